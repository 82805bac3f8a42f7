"""``inplace=True``: every function and layer that takes it changes its input as PyTorch does, and leaves autograd right."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers, nn
from funcnn.core.errors import DTypeError, GradientError

FUNCTIONS = [
    name for name in F.__all__ if "inplace" in inspect.signature(getattr(F, name)).parameters and name[-1] != "_"
]
UNDERSCORED = [name for name in F.__all__ if name[-1] == "_"]
LAYERS = [name for name in dir(layers) if inspect.isclass(cls := getattr(layers, name)) and issubclass(cls, layers.Layer)
          and any(f.name == "inplace" for f in fields(cls))]  # fmt: skip
MORE = {"threshold": (0.1, 7.0), "leaky_relu": (0.3,), "elu": (0.7,), "celu": (0.6,)}
KEY = {"dropout": {"key": fn.random.key(3)}}
X = np.random.default_rng(0).uniform(-4, 4, (5, 6)).astype(np.float32)


def apply(name: str, x: Any, **options: Any) -> Any:
    """``F.name(x)`` with the arguments that it needs."""
    return getattr(F, name)(x, *MORE.get(name, ()), **KEY.get(name, {}), **options)


def test_all_of_pytorchs_are_there() -> None:
    assert set(FUNCTIONS) == {
        "celu", "dropout", "elu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6", "selu",
        "silu", "threshold",
    }  # fmt: skip
    assert set(LAYERS) == {"Dropout", "LeakyReLU", "ReLU"}
    assert {name[:-1] for name in UNDERSCORED} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_input_takes_over_the_result(name: str) -> None:
    x = fn.tensor(X)
    expected = apply(name, x).tolist()
    assert apply(name, x, inplace=True) is x and x.tolist() == expected != X.tolist()
    whole = fn.tensor(X)
    row = whole[1]
    apply(name, row, inplace=True)
    assert whole.tolist()[0] == X[0].tolist() and whole[1].tolist() == row.tolist() != X[1].tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_networks_that_read_their_input_again(name: str) -> None:
    """Values and gradients are those of a program that says ``copy_``, recorded, compiled and transformed."""

    def kept(w: Any, option: bool = True) -> Any:
        z = w * 1.5
        y = apply(name, z, inplace=True) if option else z.copy_(apply(name, z))
        return (y * y + z * w).sum()

    w = fn.tensor(X).requires_grad_()
    plain = fn.tensor(X).requires_grad_()
    loss, expected = kept(w), kept(plain, False)
    loss.backward()
    expected.backward()
    assert loss.item() == expected.item() and w.grad.tolist() == plain.grad.tolist()
    for made in (fn.value_and_grad(kept), fn.jit(fn.value_and_grad(kept)), fn.value_and_grad(fn.jit(kept))):
        value, gradient = made(fn.tensor(X))
        np.testing.assert_allclose(value.item(), expected.item(), 1e-5)
        np.testing.assert_allclose(gradient.numpy(), plain.grad.numpy(), 1e-5, 1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_under_jit_and_vmap_arguments_change_too(name: str) -> None:
    expected = apply(name, fn.tensor(X)).tolist()
    step = fn.jit(lambda x: (apply(name, x, inplace=True) * 2, x + 0))
    for _ in range(2):
        x = fn.tensor(X)
        _, after = step(x)
        assert x.tolist() == after.tolist() == expected
    if name != "dropout":
        mapped = fn.vmap(lambda row: (lambda own: (apply(name, own, inplace=True), own)[1])(row * 1))(fn.tensor(X))
        assert mapped.tolist() == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autograd_refuses_what_it_must(name: str) -> None:
    x = fn.tensor(X).requires_grad_()
    with pytest.raises(GradientError, match=f"{name if name != 'relu6' else 'hardtanh'}_: a leaf tensor"):
        apply(name, x, inplace=True)
    y = fn.exp(x)
    z = (y * 2).sum() + apply(name, y, inplace=True).sum()
    with pytest.raises(GradientError, match="exp needs for its gradient was overwritten"):
        z.backward()
    with pytest.raises(DTypeError, match="only a tensor can be changed in place, got ndarray"):
        apply(name, X, inplace=True)


@pytest.mark.parametrize("name", UNDERSCORED)
def test_underscored_functions(name: str) -> None:
    x = fn.tensor(X)
    assert getattr(F, name)(x, *MORE.get(name[:-1], ())) is x
    assert x.tolist() == apply(name[:-1], fn.tensor(X)).tolist()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_modules(name: str) -> None:
    key = fn.random.key(1)
    expected = getattr(layers, name)()({}, {}, fn.tensor(X), training=True, key=key)[0].tolist()
    layer, x = getattr(layers, name)(inplace=True), fn.tensor(X)
    assert layer({}, {}, x, training=True, key=key)[0] is x and x.tolist() == expected
    compiled, x = fn.jit(lambda x: layer({}, {}, x, training=True, key=key)[0]), fn.tensor(X)
    assert compiled(x) is x and x.tolist() == expected
    module, x = getattr(nn, name)(inplace=True), fn.tensor(X)
    assert module(x) is x and x.tolist() != X.tolist()
    module.inplace = False
    x = fn.tensor(X)
    assert module(x) is not x and x.tolist() == X.tolist()


def test_dropout_outside_training_is_its_input() -> None:
    x = fn.tensor(X).requires_grad_()
    assert F.dropout(x, 0.5, False, True) is x and F.dropout(x, 0.0, True, True) is x
    y = fn.tensor(X)
    assert F.dropout(y, 1.0, True, True) is y and not y.numpy().any()


def test_as_in_pytorch() -> None:
    """A block that passes on an activation and adds its own input, with the gradient of everything."""
    torch = pytest.importorskip("torch")
    results = []
    for T in (fn, torch):
        w = T.tensor(X, requires_grad=True)
        z = w * 2
        out = T.nn.Sequential(T.nn.LeakyReLU(0.2, inplace=True))(z[1:])
        out = T.nn.functional.elu(out - 1, 0.5, True) + z[1:]
        (out * out).sum().backward()
        results.append((out.detach().numpy(), z.detach().numpy(), w.grad.numpy()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, 1e-5, 1e-6)
