"""Many models at once: vmap of an optimizer's step, its numbers, its program, its derivatives, and rates of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import optim
from funcnn.core import tree
from funcnn.kernels.cpu.optim.step import CHUNK_ELEMENTS

N = 3
RULES: dict[str, Any] = {
    "sgd": lambda lr: optim.sgd(lr, weight_decay=0.1),
    "momentum": lambda lr: optim.sgd(lr, momentum=0.9, dampening=0.3),
    "nesterov": lambda lr: optim.sgd(lr, momentum=0.9, nesterov=True),
    "adam": lambda lr: optim.adam(lr, weight_decay=0.1),
    "amsgrad": lambda lr: optim.adam(lr, amsgrad=True, maximize=True),
    "adamw": lambda lr: optim.adamw(lr),
}
every_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES)
eager_and_jit = pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])


def _drawn(seed: int, lead: tuple = (N,), dtype: str = "float32") -> dict:
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 3), "deep": {"b": (5,), "s": ()}, "long": (CHUNK_ELEMENTS // 2 + 1,), "none": (0, 2)}
    return tree.map(lambda shape: fn.tensor(rng.normal(size=(*lead, *shape)).astype(dtype)), _leaves(shapes))


def _leaves(shapes: Any) -> Any:
    """The shapes as leaves: tuples are nodes of trees."""
    return {k: _leaves(v) if isinstance(v, dict) else _Shape(v) for k, v in shapes.items()}


class _Shape:
    def __init__(self, sizes: tuple):
        self.sizes = sizes

    def __iter__(self) -> Any:
        return iter(self.sizes)


def _at(trees: Any, i: int) -> Any:
    return tree.map(lambda t: t[i], trees)


def _same(got: Any, alone: list, exact: bool = True) -> None:
    for t, *rows in zip(tree.leaves(got), *map(tree.leaves, alone), strict=True):
        wanted = np.stack([row.numpy() for row in rows])
        assert t.dtype == rows[0].dtype
        np.testing.assert_allclose(t.numpy(), wanted, rtol=0 if exact else 2e-5, atol=0 if exact else 1e-6)


@eager_and_jit
@every_rule
def test_a_step_of_each_model_has_the_bits_that_it_has_alone(make: Any, wrap: Any) -> None:
    opt = make(0.1)
    params, state = _drawn(0), fn.vmap(opt.init)(_drawn(0))
    alone = [(_at(params, i), _at(state, i)) for i in range(N)]
    step = wrap(fn.vmap(opt.update))
    for k in range(3):
        grads = _drawn(k + 1)
        params, state = step(grads, state, params)
        alone = [opt.update(_at(grads, i), s, p) for i, (p, s) in enumerate(alone)]
    _same((params, state), alone)


@every_rule
def test_what_is_not_mapped_and_what_is_mapped_twice(make: Any) -> None:
    opt = make(0.1)
    params, grads = _drawn(0, ()), _drawn(1)
    state = opt.init(params)
    one = lambda g: opt.update(g, state, params)
    _same(fn.vmap(one)(grads), [one(_at(grads, i)) for i in range(N)])
    many, outer = _drawn(2, (2, N)), _drawn(3, (2,))
    states = fn.vmap(fn.vmap(opt.init))(many)
    twice = fn.vmap(fn.vmap(opt.update, in_axes=(0, 0, None)), in_axes=(0, 0, 0))(many, states, outer)
    for i in range(2):
        rows = [opt.update(_at(_at(many, i), j), _at(_at(states, i), j), _at(outer, i)) for j in range(N)]
        _same(_at(twice, i), rows)
    empty = fn.vmap(fn.vmap(opt.update))(*[tree.map(lambda t: t[:0], part) for part in (many, states, many)])
    assert all(t.shape[0] == 0 for t in tree.leaves(empty))


@eager_and_jit
@every_rule
def test_each_model_may_have_a_rate_of_its_own(make: Any, wrap: Any) -> None:
    params, grads, rates = _drawn(0), _drawn(1), fn.tensor([0.1, 0.01, 0.5])
    state = fn.vmap(make(0.1).init)(params)
    got = wrap(fn.vmap(lambda lr, g, s, p: make(lr).update(g, s, p)))(rates, grads, state, params)
    _same(
        got, [make(float(rates[i])).update(*(_at(t, i) for t in (grads, state, params))) for i in range(N)], exact=False
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_rule
def test_derivatives_through_the_steps_of_models(make: Any, dtype: str) -> None:
    """By the gradients, of each model's own; with the vmap inside and outside of grad."""
    opt = make(0.1)
    params, grads = _drawn(0, dtype=dtype), _drawn(1, dtype=dtype)
    state = fn.vmap(opt.init)(params)
    weigh = lambda p: sum((t * t * t).sum() for t in tree.leaves(p))
    alone = lambda g, s, p: fn.grad(lambda g: weigh(opt.update(g, s, p)[0]))(g)
    wanted = [alone(*(_at(t, i) for t in (grads, state, params))) for i in range(N)]
    _same(fn.vmap(alone)(grads, state, params), wanted, exact=False)
    _same(fn.grad(lambda g: weigh(fn.vmap(opt.update)(g, state, params)[0]))(grads), wanted, exact=False)
    again = fn.jit(fn.grad(lambda g: weigh(fn.vmap(opt.update)(g, state, params)[0])))(grads)
    _same(again, wanted, exact=False)


def test_an_ensembles_program_does_not_grow_with_its_models() -> None:
    net = L.Sequential(L.Conv2d(1, 2, 3), L.ReLU(), L.Flatten(), L.Linear(18, 4))
    opt = optim.adam(0.01)
    x, target = fn.ones(2, 1, 5, 5), fn.tensor([0, 3])

    def step(params: Any, state: Any) -> Any:
        loss = lambda p: fn.nn.functional.cross_entropy(net(p, {}, x)[0], target)
        value, grads = fn.value_and_grad(loss)(params)
        return value, *opt.update(grads, state, params)

    lengths = []
    for n in (2, 7):
        params, _ = fn.vmap(net.init)(fn.random.split(fn.random.key(0), n))
        text = fn.jit(fn.vmap(step)).program(params, fn.vmap(opt.init)(params))
        assert text.count("adam_update") == 1
        lengths.append(text.count("\n"))
    assert lengths[0] == lengths[1]
