"""``nn.pure`` of modules with buffers, in training, in every nesting of ``jit``, ``grad`` and ``vmap``, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn
from funcnn.core import tree

X = fn.tensor(np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32))


class Assigns(nn.Module):
    """Buffers that the forward replaces, writes in place, and makes; a frozen and a tied parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 4)
        self.bn = nn.BatchNorm1d(4)
        self.frozen = nn.Parameter(fn.full((4,), 2.0), requires_grad=False)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.lin.weight
        self.register_buffer("mean", fn.zeros(4))
        self.register_buffer("calls", fn.zeros((), dtype=fn.int64))
        self.register_buffer("last", None)

    def forward(self, x: Any) -> Any:
        y = self.bn(self.lin(x)) * self.frozen + self.tied(x)
        self.mean = 0.9 * self.mean + 0.1 * y.mean(0)
        self.mean[0] = 3.0
        self.calls.add_(1)
        self.last = y.sum()
        return y - self.mean


MODULES = {
    "sequential": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()),
    "generated": lambda: nn.BatchNorm1d(3),
    "handwritten": Assigns,
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
eager_and_jit = pytest.mark.parametrize("compiled", [lambda f: f, fn.jit], ids=["eager", "jit"])


def prepared(make: Callable) -> tuple:
    """The loss with the new state beside it, and the trees."""
    fn.manual_seed(0)
    layer, params, state = nn.pure(make())

    def loss(params: Any, state: Any, x: Any) -> tuple:
        y, state = layer(params, state, x, training=True)
        return (y**2).sum(), state

    return layer, loss, params, state


def stacked(*trees: Any) -> Any:
    return tree.map(lambda *leaves: fn.stack(list(leaves)), *trees)


def same(got: Any, expected: Any) -> None:
    (a, left), (b, right) = tree.flatten(got), tree.flatten(expected)
    assert left == right
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype and isinstance(x._v, np.ndarray)
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-4, atol=1e-4)


def added(f: Callable, **axes: Any) -> Callable:
    """The sum of a loss over a batch, and the states."""

    def total(*args: Any) -> tuple:
        values, state = fn.vmap(f, **axes)(*args)
        return values.sum(), state

    return total


@every_module
def test_jit_of_grad_and_grad_of_jit(make: Any) -> None:
    _, loss, params, state = prepared(make)
    both = fn.value_and_grad(loss, has_aux=True)
    expected = both(params, state, X[0])
    same(fn.jit(both)(params, state, X[0]), expected)
    same(fn.value_and_grad(fn.jit(loss), has_aux=True)(params, state, X[0]), expected)
    closed = fn.value_and_grad(lambda p, x: loss(p, state, x), has_aux=True)
    same(fn.jit(closed)(params, X[0]), expected)


@every_module
def test_compiled_training_keeps_the_state(make: Any) -> None:
    _, loss, params, state = prepared(make)

    def step(params: Any, state: Any, x: Any) -> tuple:
        (_, state), grads = fn.value_and_grad(loss, has_aux=True)(params, state, x)
        return tree.map(lambda p, g: p - 0.1 * g, params, grads), state

    compiled, eager, run = fn.jit(step), (params, state), (params, state)
    for x in X:
        eager, run = step(*eager, x), compiled(*run, x)
    same(run, eager)
    assert compiled.traces <= 2, "the second trace is that of the buffer which the first forward made"


@every_module
@eager_and_jit
def test_vmap_over_a_stack_of_models(make: Any, compiled: Any) -> None:
    _, loss, params, state = prepared(make)
    both = fn.value_and_grad(loss, has_aux=True)
    others = tree.map(lambda p: p * 0.5, params)
    pairs = stacked(params, others), stacked(state, state)
    expected = stacked(both(params, state, X[0]), both(others, state, X[1]))
    same(compiled(fn.vmap(both))(*pairs, X[:2]), expected)
    (_, after), grads = compiled(fn.value_and_grad(added(loss), has_aux=True))(*pairs, X[:2])
    same((after, grads), (expected[0][1], expected[1]))


@every_module
@eager_and_jit
def test_vmap_over_examples_makes_a_state_for_each(make: Any, compiled: Any) -> None:
    _, loss, params, state = prepared(make)
    both = fn.value_and_grad(loss, has_aux=True)
    expected = stacked(*[both(params, state, x) for x in X])
    same(compiled(fn.vmap(both, in_axes=(None, None, 0)))(params, state, X), expected)
    shared = compiled(fn.value_and_grad(added(loss, in_axes=(None, None, 0)), has_aux=True))(params, state, X)
    same(shared[0][1], expected[0][1])
    same(shared[1], tree.map(lambda g: g.sum(0), expected[1]))


@every_module
def test_second_derivatives(make: Any) -> None:
    _, loss, params, state = prepared(make)

    def penalty(p: Any) -> Any:
        return sum((g**2).sum() for g in tree.leaves(fn.grad(loss, has_aux=True)(p, state, X[0])[0]))

    same(fn.jit(fn.grad(penalty))(params), fn.grad(penalty)(params))


@every_module
def test_back_to_a_module_after_compiled_steps(make: Any) -> None:
    layer, loss, params, state = prepared(make)
    (_, state), _ = fn.jit(fn.value_and_grad(loss, has_aux=True))(params, state, X[0])
    module = nn.module(layer, params, state)
    held = {path: t for trees in (params, state) for path, t in tree.paths(trees)}
    assert {k: v.tolist() for k, v in module.state_dict().items() if k in held} == {
        k: t.tolist() for k, t in held.items()
    }
    expected, after = layer(params, state, X[1], training=True)
    same(module(X[1]), expected)
    same({**dict(module.named_buffers())}, {path: t for path, t in tree.paths(after)})
    loss_of_module = (module(X[1]) ** 2).sum()
    loss_of_module.backward()
    wanted = {name for name, p in make().named_parameters() if p.requires_grad}
    assert {name for name, p in module.named_parameters() if p.grad is not None} == wanted


@every_module
@eager_and_jit
def test_a_module_made_inside_a_transformation_is_differentiated(make: Any, compiled: Any) -> None:
    layer, loss, params, state = prepared(make)

    def inside(params: Any, state: Any, x: Any) -> Any:
        return (nn.module(layer, params, state)(x) ** 2).sum()

    (value, _), grads = fn.value_and_grad(loss, has_aux=True)(params, state, X[0])
    run = compiled(fn.value_and_grad(inside))
    for _ in range(2):
        same(run(params, state, X[0]), (value, grads))
    each = compiled(fn.vmap(inside, in_axes=(None, None, 0)))(params, state, X)
    same(each, fn.stack([loss(params, state, x)[0] for x in X]))
    if compiled is fn.jit:
        assert run.traces == 1


@every_module
def test_a_module_made_pure_inside_a_transformation(make: Any) -> None:
    module = make()

    def f(x: Any) -> Any:
        layer, params, state = nn.pure(module)
        return (layer(params, state, x, training=True)[0] ** 2).sum()

    before = {k: v.tolist() for k, v in module.state_dict().items()}
    run, slope = fn.jit(f), fn.jit(fn.grad(f))
    for change in (lambda: None, lambda: next(module.parameters()).data.mul_(2.0), lambda: setattr(norm, "eps", 0.5)):
        norm = next(m for m in module.modules() if isinstance(m, nn.BatchNorm1d))
        change()
        same(run(X[0]), f(X[0]))
        same(slope(X[0]), fn.grad(f)(X[0]))
    assert run.traces == 2, "another option traces anew, other numbers do not"
    buffers = {k for k, _ in module.named_buffers()}
    assert {k: v.tolist() for k, v in module.state_dict().items() if k in buffers} == {
        k: before[k] for k in buffers & {*before}
    }


class _Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.register_buffer("total", fn.zeros(3))

    def forward(self, x: Any) -> Any:
        self.total.mul_(0.5).add_(x.mean(0))
        return self.bn(x)


@eager_and_jit
def test_the_new_state_is_differentiated_as_that_of_the_layer(compiled: Any) -> None:
    layer, params, state = nn.pure(_Wrapped())

    def new(state: Any, x: Any) -> Any:
        after = layer(params, state, x, training=True)[1]
        return (after["bn"]["running_mean"] + 2 * after["bn"]["running_var"] + after["total"]).sum()

    def of_floats(mean: Any, var: Any, total: Any) -> Any:
        bn = {**state["bn"], "running_mean": mean, "running_var": var}
        return new({**state, "bn": bn, "total": total}, X[0])

    floats = state["bn"]["running_mean"], state["bn"]["running_var"], state["total"]
    for g, slope in zip(compiled(fn.grad(of_floats, argnums=(0, 1, 2)))(*floats), (0.9, 1.8, 0.5), strict=True):
        np.testing.assert_allclose(g.numpy(), np.full(3, slope), rtol=1e-6)
    np.testing.assert_allclose(
        compiled(fn.grad(lambda x: new(state, x)))(X[0]).numpy(), np.full((6, 3), 1 / 6), rtol=1e-6
    )
