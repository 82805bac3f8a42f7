"""An error is an effect: what raises for its numbers in eager mode raises under ``jit``, whether its result is used or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.ops.indexing.embedding import embedding_grad_p
from tests import helpers as h

ROWS = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype(np.float32)
WIDE = np.array([0, 1, 7])

# By the primitive's name: a call that its check refuses, and the arguments.
REFUSED: dict[str, tuple[Callable, tuple]] = {
    "gather": (lambda x, i: x.gather(0, i[None]), (ROWS, WIDE)),
    "index": (lambda x, i: x[i], (ROWS, WIDE)),
    "index_put": (lambda x, i: fn.index_put(x, (i,), fn.ones(3, 3)), (ROWS, WIDE)),
    "scatter": (lambda x, i: x.scatter(0, i[None], 1.0), (ROWS, WIDE)),
    "embedding": (lambda x, i: F.embedding(i, x), (ROWS, WIDE)),
    "embedding_grad": (lambda x, i: embedding_grad_p(x, i, rows=4), (ROWS[:3], WIDE)),
    "one_hot": (lambda i: F.one_hot(i, 3), (WIDE,)),
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i), (ROWS[:3], WIDE)),
    "nll_loss": (lambda x, i, w: F.nll_loss(x, i, w), (ROWS[:3], WIDE, ROWS[0])),
    "binary_cross_entropy": (lambda x: F.binary_cross_entropy(x * 9, x), (ROWS,)),
    "max_unpool": (lambda x, i: F.max_unpool1d(x[None], i, 2, output_size=(6,)), (ROWS[:1], WIDE[None, None])),
    "floor_divide": (lambda i: i // (i - 1), (WIDE,)),
    "remainder": (lambda i: i % (i - 1), (WIDE,)),
    "fmod": (lambda i: fn.fmod(i, i - 1), (WIDE,)),
    "bernoulli": (lambda x: fn.bernoulli(x * 9), (ROWS,)),
    "multinomial": (lambda x: fn.multinomial(x - 9, 1), (ROWS,)),
    "normal": (lambda x: fn.normal(x, x - 9), (ROWS,)),
    "svd": (lambda x: fn.norm(x / 0.0, "nuc"), (ROWS,)),
    "masked_scatter": (lambda x, i: x.masked_scatter(x > 0, i.float()), (ROWS, WIDE)),
}


def checked() -> set[str]:
    """The names of the primitives that look at numbers, or whose kernels do."""
    return {prim.name for prim in h.all_primitives() if prim.check is not None or prim.refuse is not None}


def test_every_primitive_with_a_check_is_here() -> None:
    assert checked() == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_the_error_of_a_result_that_nobody_uses_is_raised(name: str) -> None:
    f, arrays = REFUSED[name]
    tensors = [fn.tensor(a) for a in arrays]
    with pytest.raises((IndexError, ValueError, ZeroDivisionError)) as eager:
        f(*tensors)

    def unused(*given: Any) -> Any:
        f(*given)
        return given[0] * 1

    run = fn.jit(unused)
    for _ in range(2):
        with pytest.raises(type(eager.value)) as raised:
            run(*tensors)
        assert str(raised.value) == str(eager.value)
    program = run.program(*tensors)
    assert f"{name}_check(" in program or f" = {name}(" in program  # the latter: another check reads what it gives


def test_a_good_index_passes_and_nothing_is_written_when_one_is_bad() -> None:
    seen = fn.zeros(())

    @fn.jit
    def run(x: Any, i: Any) -> Any:
        seen.add_(1)
        x[i]
        return x * 2

    x = fn.tensor(ROWS)
    np.testing.assert_array_equal(run(x, fn.tensor([0, 3])).numpy(), ROWS * 2)
    with pytest.raises(IndexError):
        run(x, fn.tensor([0, 4]))
    assert seen.item() == 1


def test_under_grad_and_vmap_too() -> None:
    def loss(x: Any, i: Any) -> Any:
        x.gather(0, i)
        return (x * x).sum()

    x = fn.tensor(ROWS)
    bad = fn.full((4, 3), 9, dtype=fn.int64)
    for f in (fn.grad(loss), fn.vmap(loss)):
        with pytest.raises(IndexError):
            fn.jit(f)(x, bad)


def test_equations_without_a_check_are_still_removed() -> None:
    program = fn.jit(lambda x: (x.exp(), x[:2], x + 1)[2]).program(fn.tensor(ROWS))
    assert "exp" not in program and "slice" not in program
