"""Gradient clipping and vectors of parameters, against torch."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn  # noqa: F401  (attaches the methods of Tensor)
from funcnn.core.errors import GradientError, ShapeError
from funcnn.nn import utils
from funcnn.nn.parameter import Parameter
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.tensor import creation
from funcnn.transforms.jit import jit

SHAPES = ((3, 2), (4,), ())


def array(t) -> np.ndarray:
    return np.asarray(t._v)


def pair(scale: float = 1.0) -> tuple[list, list]:
    """The same parameters with the same gradients in both libraries; the last has no gradient."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in SHAPES:
        value, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        ours.append(Parameter(creation.tensor(value)))
        theirs.append(torch.nn.Parameter(torch.tensor(value)))
        ours[-1].grad, theirs[-1].grad = creation.tensor(g * scale), torch.tensor(g * scale)
    ours.append(Parameter(creation.ones(2)))
    theirs.append(torch.nn.Parameter(torch.ones(2)))
    return ours, theirs


def compare_gradients(ours: list, theirs: list) -> None:
    for p, q in zip(ours, theirs, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(array(p.grad), q.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("order", [2.0, 1, 3.0, float("inf"), 0.0])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_grad_norm_as_torch(order, limit):
    torch = pytest.importorskip("torch")
    ours, theirs = pair()
    held = ours[0].grad
    total = utils.clip_grad_norm_(iter(ours), limit, order)
    reference = torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    np.testing.assert_allclose(array(total), reference.numpy(), rtol=1e-5)
    compare_gradients(ours, theirs)
    assert ours[0].grad is held and not total.requires_grad


def test_clip_one_tensor_and_nothing():
    ours, theirs = pair()
    torch = pytest.importorskip("torch")
    utils.clip_grad_norm_(ours[0], 0.1)
    torch.nn.utils.clip_grad_norm_(theirs[0], 0.1)
    compare_gradients(ours, theirs)
    assert array(utils.clip_grad_norm_([], 1.0)) == 0.0


def test_nonfinite_norm():
    ours, _ = pair(float("inf"))
    with pytest.raises(GradientError, match="not finite"):
        utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    assert np.isinf(array(ours[0].grad)).all()


def test_get_total_norm_as_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = pair()
    total = utils.get_total_norm([p.grad for p in ours[:3]])
    reference = torch.nn.utils.get_total_norm([q.grad for q in theirs[:3]])
    np.testing.assert_allclose(array(total), reference.numpy(), rtol=1e-6)


def test_clip_grad_value_as_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = pair()
    utils.clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    compare_gradients(ours, theirs)


def test_clipping_inside_jit():
    ours, theirs = pair()
    torch = pytest.importorskip("torch")

    @jit
    def step(limit):
        return utils.clip_grad_norm_(ours, 0.5)

    total = step(creation.ones(1))
    np.testing.assert_allclose(array(total), torch.nn.utils.clip_grad_norm_(theirs, 0.5).numpy(), rtol=1e-5)
    compare_gradients(ours, theirs)


def test_vector_and_back():
    torch = pytest.importorskip("torch")
    ours, theirs = pair()
    vector = utils.parameters_to_vector(ours)
    np.testing.assert_array_equal(array(vector), torch.nn.utils.parameters_to_vector(theirs).detach().numpy())
    assert vector.requires_grad
    memory = ours[0]._v
    utils.vector_to_parameters(mul(vector, 2.0), ours)
    assert ours[0]._v is memory and ours[0].is_leaf
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(array(p), 2 * q.detach().numpy())


def test_vector_of_another_length_is_refused():
    ours, _ = pair()
    with pytest.raises(ShapeError, match="13 elements"):
        utils.vector_to_parameters(creation.ones(12), ours)
    with pytest.raises(TypeError, match="list"):
        utils.vector_to_parameters([1.0], ours)
