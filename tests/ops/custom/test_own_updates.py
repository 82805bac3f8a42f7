"""Operations that overwrite their inputs: in whose memory, eagerly and under jit, and who notices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from tests.ops.custom.test_own_primitives import lion, normal, np_lion

RATES = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99}


def tensors() -> list[Any]:
    """A parameter, its momentum and a gradient."""
    return [fn.tensor(a.copy()) for a in (normal(5), normal(5) * 0, normal(6)[:5])]


def test_memory_is_overwritten_and_views_see_it() -> None:
    p, m, g = tensors()
    expected = np_lion(p.numpy().copy(), m.numpy(), g.numpy(), **RATES)
    memory, view = p._v, p[1:3]
    changed = lion(p, m, g, lr=0.1)
    assert changed[0] is p and changed[1] is m and p._v is memory
    np.testing.assert_allclose(p.numpy(), expected[0])
    np.testing.assert_allclose(view.numpy(), expected[0][1:3])


def test_a_view_a_transposed_and_a_shared_tensor() -> None:
    whole = fn.tensor(normal(3, 4))
    before = whole.numpy().copy()
    column, m, g = whole[:, 1], fn.zeros(3, dtype=fn.float64), fn.ones(3, dtype=fn.float64)
    lion(column, m, g, lr=0.5)
    before[:, 1] -= 0.5
    np.testing.assert_allclose(whole.numpy(), before)
    p, m, _ = tensors()
    expected = np_lion(p.numpy().copy(), m.numpy(), p.numpy().copy(), **RATES)
    lion(p, m, p, lr=0.1)  # its own gradient: read as it was
    np.testing.assert_allclose(p.numpy(), expected[0])
    np.testing.assert_allclose(m.numpy(), expected[1])


def test_what_was_recorded_notices() -> None:
    p, m, g = tensors()
    w = fn.ones(5, dtype=fn.float64).requires_grad_()
    loss = (w * p).sum()
    with fn.no_grad():
        lion(p, m, g)
    with pytest.raises(fn.GradientError, match="in place|changed|overwritten"):
        loss.backward()
    with pytest.raises(fn.GradientError, match="no derivative"):
        lion(w, m, g)
    frozen = fn.ones(1, dtype=fn.float64)
    with fn.no_grad(), pytest.raises(fn.ShapeError, match="read-only"):
        lion(frozen.expand(5), m, g)


def test_under_jit_the_memory_stays() -> None:
    p, m, g = tensors()
    q, n, _ = tensors()

    @fn.jit
    def step(g: Any) -> Any:
        before = p.sum()
        lion(p, m, g, lr=0.1)
        return before

    for _ in range(3):
        memory = p._v
        total = float(q.sum())
        assert float(step(g)) == pytest.approx(total)  # what is read before sees what was before
        lion(q, n, g, lr=0.1)
        assert p._v is memory
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(m.numpy(), n.numpy())


def test_under_jit_a_value_that_is_read_on_is_a_new_one() -> None:
    p, m, g = tensors()
    q, n, _ = tensors()

    def twice(p: Any, m: Any, g: Any) -> Any:
        old = p * 1
        lion(p, m, g, lr=0.1)
        first = p.sum()
        lion(p, m, g, lr=0.2)
        return old.sum() + first + p.sum()

    step = fn.jit(lambda g: twice(p, m, g))
    for _ in range(3):
        assert float(step(g)) == pytest.approx(float(twice(q, n, g)))
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(m.numpy(), n.numpy())


def test_an_error_before_an_update_has_written_nothing() -> None:
    p, m, g = tensors()
    table = fn.tensor(normal(3, 2))

    @fn.jit
    def step(index: Any, g: Any) -> Any:
        lion(p, m, g)
        return fn.nn.functional.embedding(index, table)

    step(fn.tensor([1]), g)
    before = p.numpy().copy()
    with pytest.raises(IndexError):
        step(fn.tensor([7]), g)
    np.testing.assert_array_equal(p.numpy(), before)


def test_arguments_donated_arrays_and_vmap() -> None:
    p, m, g = tensors()
    expected = np_lion(p.numpy().copy(), m.numpy(), g.numpy(), **RATES)
    step = fn.jit(lambda p, m, g: [lion(p, m, g, lr=0.1), None][1])
    step(p, m, g)
    step(*tensors())
    np.testing.assert_allclose(p.numpy(), expected[0])
    ps, ms, gs = (fn.tensor(normal(n, 3)) for n in (4, 4, 4))
    want = np_lion(ps.numpy().copy(), ms.numpy(), gs.numpy(), **RATES)
    fn.vmap(lambda p, m, g: [lion(p, m, g, lr=0.1), p][1])(ps, ms, gs)
    np.testing.assert_allclose(ps.numpy(), want[0])
