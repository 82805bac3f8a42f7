"""``nn.pure`` and ``nn.module``: any module as a pure layer, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn
from funcnn.core import tree

X = fn.tensor(np.random.default_rng(0).normal(size=(6, 2, 5, 5)).astype(np.float32))


class Handwritten(nn.Module):
    """Buffers, a parameter of its own, tied weights, a plain forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(fn.full((1,), 1.5))
        self.first = nn.Linear(36, 36)
        self.second = nn.Linear(36, 36)
        self.second.weight = self.first.weight
        self.register_buffer("calls", fn.zeros((), dtype=fn.int64))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        x = F.relu(self.bn(self.conv(x))).flatten(1)
        return self.second(F.relu(self.first(x))) * self.scale


@dataclass(frozen=True, repr=False)
class Residual(L.Layer):
    """A composite layer: two layers among its fields."""

    conv: L.Layer
    norm: L.Layer

    def __call__(self, params, state, x, *, training=False, key=None):
        y, _ = self.conv(params["conv"], state["conv"], x)
        y, norm = self.norm(params["norm"], state["norm"], y, training=training)
        return x + y, state if norm is state["norm"] else {**state, "norm": norm}


MODULES = {
    "generated": lambda: nn.BatchNorm2d(2),
    "sequential": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)
    ),
    "handwritten": Handwritten,
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_pure_layer_does_what_the_module_does_and_leaves_it_alone(make: Any) -> None:
    module = make()
    before = {k: v.numpy().copy() for k, v in module.state_dict().items()}
    layer, params, state = nn.pure(module)
    y, after = layer(params, state, X, training=True)
    again, _ = layer(params, state, X, training=True)
    np.testing.assert_array_equal(y.numpy(), again.numpy())
    assert all(np.array_equal(v.numpy(), before[k]) for k, v in module.state_dict().items())
    np.testing.assert_allclose(module(X).detach().numpy(), y.numpy(), rtol=1e-6, atol=1e-6)
    held = dict(tree.paths(after))
    for name, buffer in module.named_buffers():
        np.testing.assert_allclose(held[name].numpy(), buffer.numpy(), rtol=1e-6, err_msg=name)


def test_nothing_changed_gives_the_very_same_state() -> None:
    layer, params, state = nn.pure(MODULES["sequential"]())
    assert layer(params, state, X)[1] is state
    assert layer(params, state, X, training=True)[1] is not state


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_gradients_equal_backward(make: Any) -> None:
    module = make()
    layer, params, state = nn.pure(module)
    grads = fn.grad(lambda p: (layer(p, state, X, training=True)[0] ** 2).sum())(params)
    (module(X) ** 2).sum().backward()
    found = dict(tree.paths(grads))
    for name, p in module.named_parameters():
        np.testing.assert_allclose(found[name].numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_and_back(make: Any) -> None:
    module = make()
    module(X)
    layer, params, state = nn.pure(module)
    doubled = tree.map(lambda p: p * 2, params)
    again = nn.module(layer, doubled, state)
    assert list(again.state_dict()) == list(module.state_dict()) and repr(again) == repr(module)
    again.eval()
    np.testing.assert_allclose(again(X).detach().numpy(), layer(doubled, state, X)[0].numpy(), rtol=1e-6)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in again.parameters())
    np.testing.assert_array_equal(next(module.parameters()).detach().numpy(), tree.leaves(params)[0].numpy())


def test_composite_layers_become_modules_with_submodules() -> None:
    layer = Residual(L.Conv2d(2, 2, 3, padding=1), L.BatchNorm2d(2))
    params, state = layer.init(fn.random.key(0))
    module = nn.module(layer, params, state)
    assert list(module.state_dict())[:3] == ["conv.weight", "conv.bias", "norm.weight"]
    assert isinstance(module.conv, nn.Conv2d) and repr(module).splitlines()[0] == "Residual("
    expected, after = layer(params, state, X, training=True)
    np.testing.assert_allclose(module(X).detach().numpy(), expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(module.norm.running_mean.numpy(), after["norm"]["running_mean"].numpy(), rtol=1e-6)
    module(X).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_random_layers_inside_take_the_key_or_refuse() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Any) -> Any:
            return self.drop(x) + self.drop(x)

    layer, params, state = nn.pure(Noisy())
    key, other = fn.random.split(fn.random.key(0))
    first = layer(params, state, X, training=True, key=key)[0].numpy()
    np.testing.assert_array_equal(first, layer(params, state, X, training=True, key=key)[0].numpy())
    assert not np.array_equal(first, layer(params, state, X, training=True, key=other)[0].numpy())
    generator = fn.get_rng_state().tolist()
    with pytest.raises(ValueError, match="pass key="):
        layer(params, state, X, training=True)
    assert fn.get_rng_state().tolist() == generator
    np.testing.assert_array_equal(layer(params, state, X)[0].numpy(), 2 * X.numpy())


def test_per_example_gradients_and_jit_through_a_module() -> None:
    module = Handwritten().eval()
    layer, params, state = nn.pure(module)

    def loss(p: Any, x: Any) -> Any:
        return (layer(p, state, x[None])[0] ** 2).sum()

    each = fn.jit(fn.vmap(fn.grad(loss), in_axes=(None, 0)))(params, X)
    for i in range(2):
        one = fn.grad(loss)(params, X[i])
        for (name, a), (_, b) in zip(tree.paths(each), tree.paths(one), strict=True):
            np.testing.assert_allclose(a[i].numpy(), b.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
