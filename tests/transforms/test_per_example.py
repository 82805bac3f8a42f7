"""Per-example gradients of a small CNN: ``vmap``, ``grad`` and ``jit`` through its every operation."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import funcnn  # noqa: F401  (attaches the operators)
from funcnn.core.tensor import Tensor
from funcnn.ops.conv import conv
from funcnn.ops.elementwise import math
from funcnn.ops.matmul import matmul
from funcnn.ops.movement import views as movement
from funcnn.ops.pool import pool
from funcnn.ops.reduce import sums as reduce
from funcnn.ops.softmax import loss
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import grad
from funcnn.transforms.jit import jit
from funcnn.transforms.vmap import vmap
from tests.transforms.test_nesting import compose

SHAPES = {"c1": (3, 1, 3, 3), "b1": (3,), "c2": (4, 3, 3, 3), "b2": (4,), "fc": (5, 4), "b3": (5,)}


def _weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in SHAPES.items()}


def _images(n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    return rng.standard_normal((n, 1, 8, 8)), rng.integers(0, 5, n)


def _network(f: Any, flatten: Callable, p: dict, x: Any, target: Any) -> Any:
    """The loss of one image; ``f`` is a namespace with torch.nn.functional's names."""
    y = f.max_pool2d(f.relu(f.conv2d(x[None], p["c1"], p["b1"], padding=1)), 2)
    y = f.max_pool2d(f.relu(f.conv2d(y, p["c2"], p["b2"])), 2)
    return f.cross_entropy(f.linear(flatten(y, 1), p["fc"], p["b3"]), target[None])


def _loss(p: dict, x: Tensor, target: Tensor) -> Tensor:
    f = SimpleNamespace(**{**vars(conv), **vars(pool), **vars(math), **vars(loss), **vars(matmul)})
    return _network(f, movement.flatten, p, x, target)


def _torch_per_example(second: bool = False) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    p = {name: torch.from_numpy(w) for name, w in _weights().items()}
    x, target = map(torch.from_numpy, _images())

    def of_one(p: dict, x: Any, t: Any) -> Any:
        return _network(torch.nn.functional, torch.flatten, p, x, t)

    def penalty(p: dict, x: Any, t: Any) -> Any:
        return sum((g * g).sum() for g in torch.func.grad(of_one)(p, x, t).values())

    found = torch.func.vmap(torch.func.grad(penalty if second else of_one), in_dims=(None, 0, 0))(p, x, target)
    return {name: g.numpy() for name, g in found.items()}


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: as_tensor(array) for name, array in arrays.items()}


@pytest.mark.parametrize("order", ["vmap-grad", "jit-vmap-grad", "vmap-jit-grad", "vmap-grad-jit", "jit-vmap-jit-grad"])
def test_per_example_gradients_of_a_cnn(order: str) -> None:
    transforms = {"grad": grad, "jit": jit, "vmap": lambda f: vmap(f, in_axes=(None, 0, 0))}
    run = compose(_loss, order, transforms)
    x, target = map(as_tensor, _images())
    for _ in range(2):
        got = run(_tensors(_weights()), x, target)
        for name, expected in _torch_per_example().items():
            np.testing.assert_allclose(got[name]._v, expected, 1e-9, 1e-11, err_msg=name)


def test_per_example_gradients_add_up_to_the_gradient_of_the_batch() -> None:
    images, targets = _images()
    x, target, p = as_tensor(images), as_tensor(targets), _tensors(_weights())
    each = vmap(grad(_loss), in_axes=(None, 0, 0))(p, x, target)
    whole = grad(lambda p: reduce.sum(vmap(lambda x, t: _loss(p, x, t))(x, target)))(p)
    loop = [grad(_loss)(p, as_tensor(images[i]), as_tensor(targets[i])) for i in range(len(images))]
    for name in SHAPES:
        np.testing.assert_allclose(each[name]._v.sum(0), whole[name]._v, 1e-10, 1e-12)
        np.testing.assert_allclose(each[name]._v, np.stack([one[name]._v for one in loop]), 1e-10, 1e-12)


def test_a_model_for_each_example() -> None:
    """Weights, images and targets all mapped: an ensemble. Batched weights of a convolution are its hard case."""
    images, targets = _images()
    many = [_weights(seed) for seed in range(3)]
    stacked = {name: as_tensor(np.stack([p[name] for p in many])) for name in SHAPES}
    for run in (vmap(grad(_loss)), jit(vmap(grad(_loss)))):
        got = run(stacked, as_tensor(images), as_tensor(targets))
        for i, p in enumerate(many):
            one = grad(_loss)(_tensors(p), as_tensor(images[i]), as_tensor(targets[i]))
            for name in SHAPES:
                np.testing.assert_allclose(got[name]._v[i], one[name]._v, 1e-10, 1e-12, err_msg=name)


@pytest.mark.parametrize("order", ["vmap-grad", "jit-vmap-grad"])
def test_per_example_gradient_penalties_of_a_cnn(order: str) -> None:
    """A derivative of a derivative for each image: second order through convolution, pooling and cross-entropy."""

    def penalty(p: dict, x: Tensor, t: Tensor) -> Tensor:
        squares = [reduce.sum(g * g) for g in grad(_loss)(p, x, t).values()]
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        return total

    transforms = {"grad": grad, "jit": jit, "vmap": lambda f: vmap(f, in_axes=(None, 0, 0))}
    got = compose(penalty, order, transforms)(_tensors(_weights()), *map(as_tensor, _images()))
    for name, expected in _torch_per_example(second=True).items():
        np.testing.assert_allclose(got[name]._v, expected, 1e-8, 1e-10, err_msg=name)
