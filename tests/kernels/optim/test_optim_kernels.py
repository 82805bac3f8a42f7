"""The fused updates: the composed step as oracle, in place and elsewhere, and the same bits for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import optim
from funcnn.kernels.cpu.optim.launch import chunk_table
from funcnn.kernels.cpu.optim.step import CHUNK_ELEMENTS
from funcnn.optim import fused
from funcnn.optim.in_place import GroupUpdate
from funcnn.optim.rules import ADAM, ADAMW, SGD, Rule
from tests import helpers as h

SIZES = [(3,), (), (0,), (129, 257), (7, 5), (CHUNK_ELEMENTS + 1,)]
ROWS: list[tuple[Rule, dict]] = [
    (SGD, {"lr": 0.1}), (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}), (ADAM, {"lr": 0.01, "weight_decay": 0.1}),
    (ADAM, {"lr": 0.01, "amsgrad": True, "maximize": True}), (ADAMW, {"lr": 0.01, "amsgrad": True}),
]  # fmt: skip
IDS = [f"{rule.name}-{'-'.join(options)}" for rule, options in ROWS]


def _members(rule: Rule, hyper: dict, dtype: str) -> list:
    rng = np.random.default_rng(0)
    members = []
    for shape in SIZES:
        p, g = (fn.tensor(rng.normal(size=shape).astype(dtype)) for _ in range(2))
        slots = rule.init(p, hyper)
        for name, t in slots.items():
            counted = len(members) % 3
            t._v[...] = counted if name == "step" else rng.uniform(0.1, 1, shape) if counted else 0
        members.append((p, g, slots))
    return members


def _arrays(done: list) -> list:
    return [t._v for p, slots in done for t in (p, *slots.values())]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rule", "options"), ROWS, ids=IDS)
def test_like_the_composed_step_and_the_same_bits_in_place(rule: Rule, options: dict, dtype: str) -> None:
    hyper = {**rule.defaults, **options}
    members = _members(rule, hyper, dtype)
    wanted = [rule.step(g, slots, p, hyper) for p, g, slots in members]
    done = fused.update(rule, members, hyper)
    for mine, oracle in zip(_arrays(done), _arrays(wanted), strict=True):
        np.testing.assert_allclose(mine, oracle, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-7)
    names = rule.wanted(hyper)
    memory = [p._v for p, _, _ in members]
    assert GroupUpdate(rule, names, hyper, len(members)).first(members)
    assert all(p._v is array for (p, _, _), array in zip(members, memory, strict=True))
    for new, old in zip(_arrays(done), _arrays([(p, slots) for p, _, slots in members]), strict=True):
        assert new.tobytes() == old.tobytes()


@pytest.mark.parametrize(("rule", "options"), ROWS, ids=IDS)
def test_the_same_bits_for_one_and_two_threads(rule: Rule, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    hyper = {**rule.defaults, **options}
    found = []
    for count in (1, 2):
        h.on_workers(monkeypatch, count)
        found.append([a.tobytes() for a in _arrays(fused.update(rule, _members(rule, hyper, "float32"), hyper))])
    assert found[0] == found[1]


def test_infinite_and_missing_numbers_stay_where_they_are() -> None:
    p, g = fn.tensor([np.inf, 1.0, 2.0, 3.0]), fn.tensor([1.0, np.nan, np.inf, 1.0])
    ((new, slots),) = fused.update(ADAM, [(p, g, ADAM.init(p, ADAM.defaults))], ADAM.defaults)
    assert np.isinf(new._v[0]) and np.isnan(new._v[1]) and np.isnan(new._v[2]) and np.isfinite(new._v[3])
    assert np.isfinite(slots["exp_avg"]._v[0])


def test_chunks_cover_every_element_once() -> None:
    table = chunk_table((3, 0, 2 * CHUNK_ELEMENTS + 1)).array
    assert table.tolist() == [
        [0, 0, 3, 0],
        [2, 0, CHUNK_ELEMENTS, 0],
        [2, CHUNK_ELEMENTS, CHUNK_ELEMENTS, 0],
        [2, 2 * CHUNK_ELEMENTS, 1, 0],
    ]
    assert chunk_table((2, 3), 2).array.tolist() == [[0, 0, 2, 0], [0, 2, 2, 1], [1, 0, 3, 0], [1, 3, 3, 1]]


def test_no_models_are_no_launches() -> None:
    state = fn.vmap(optim.adam().init)(fn.ones(2, 3))
    none = {name: t[:0] for name, t in state.items()}
    params, after = fn.vmap(optim.adam().update)(fn.ones(0, 3), none, fn.ones(0, 3))
    assert params.shape == (0, 3) and after["step"].shape == (0,)


def _pure(name: str, params: Any, grads: Any, state: Any, **options: Any) -> Any:
    return getattr(optim, name)(**options).update(grads, state, params)[0]


def test_the_update_can_be_differentiated_and_batched() -> None:
    """Through a fused step: the derivative by the learning rate, the gradient and twice; and a batch of steps."""
    p, g = fn.tensor([1.0, -2.0], dtype=fn.float64), fn.tensor([0.5, 0.25], dtype=fn.float64)

    def after(lr: Any, g: Any) -> Any:
        return _pure("sgd", p, g, {}, lr=lr, weight_decay=0.1).sum()

    lr = fn.tensor(0.1, dtype=fn.float64)
    by_lr, by_g = fn.grad(after, (0, 1))(lr, g)
    np.testing.assert_allclose(by_lr.item(), -(0.75 + 0.1 * -1.0))
    np.testing.assert_allclose(by_g.numpy(), [-0.1, -0.1])
    np.testing.assert_allclose(fn.grad(lambda lr: fn.grad(after, 1)(lr, g).sum())(lr).item(), -2.0)
    state = optim.adam().init(p)

    def moved(g: Any) -> Any:
        return (_pure("adamw", p, g, state, eps=0.1) * fn.tensor([1.0, 3.0], dtype=fn.float64)).sum()

    up, down = (moved(g + fn.tensor([h, 2 * h], dtype=fn.float64)).item() for h in (1e-5, -1e-5))
    np.testing.assert_allclose(fn.grad(moved)(g).numpy() @ [1.0, 2.0], (up - down) / 2e-5, rtol=1e-6)
    batched = fn.vmap(lambda g: _pure("adam", p, g, state))(fn.stack([g, -g]))
    np.testing.assert_allclose(batched.numpy()[1], _pure("adam", p, -g, state).numpy())


def test_inputs_that_do_not_fit_are_refused() -> None:
    p = fn.ones(3)
    state = optim.adam().init(p)
    with pytest.raises(fn.ShapeError, match=r"adam: gradient of float32\(2,\) for a parameter of float32\(3,\)"):
        _pure("adam", p, fn.ones(2), state)
    with pytest.raises(fn.DTypeError, match="exp_avg of float64"):
        _pure("adam", p, p, {**state, "exp_avg": fn.zeros(3, dtype=fn.float64)})
    half = _pure("adam", p.half(), p.half(), optim.adam().init(p.half()))
    assert half.dtype == fn.float16
