"""``v.data = t``: from then on the two share memory, whatever traces it, and ``v`` keeps its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn

torch = pytest.importorskip("torch")


def _then_the_other_is_written(x: Any) -> Any:
    v, t = x * 3, x.detach() * 2
    v.data = t
    t.add_(1)
    return v * x


def _then_it_is_written(x: Any) -> Any:
    v, t = x * 3, x.detach() * 2
    v.data = t
    v.data.mul_(5)
    return t * x + 0 * v


def _an_older_alias_is_written(x: Any) -> Any:
    v = x * 3
    w, t = v.detach(), x.detach() * 2
    v.data = t
    w.add_(1)
    return v * x + w


def _an_older_view_is_read(x: Any) -> Any:
    v, t = x * 3, x.detach() * 2
    w = v[:1]
    v.data = t
    t.zero_()
    return v * x + w


def _of_an_expanded_view(x: Any) -> Any:
    v, t = x * 3, x.detach() * 2
    v.data = t[:1].expand(2)
    t.add_(1)
    return v * x


def _of_a_row(x: Any) -> Any:
    v, t = x * 3, (x.detach() * 2).reshape(1, 2)
    v.data = t[0]
    v.data.mul_(5)
    return t.sum() * x + v * x


def _twice(x: Any) -> Any:
    v, t = x * 1, x.detach() * 2
    v.data = t
    u = t * 10
    v.data = u
    u.add_(1)
    t.zero_()
    return v * x


CASES = (
    _then_the_other_is_written, _then_it_is_written, _an_older_alias_is_written, _an_older_view_is_read, _of_an_expanded_view,
    _of_a_row, _twice,
)  # fmt: skip
NUMBERS = np.array([1.0, 2.0], np.float32)


@pytest.mark.parametrize("f", CASES, ids=lambda f: f.__name__)
def test_values_and_gradients_are_pytorchs(f: Callable) -> None:
    theirs = torch.tensor(NUMBERS, requires_grad=True)
    expected = f(theirs)
    (slope,) = torch.autograd.grad(expected.sum(), theirs)
    x, graded = fn.tensor(NUMBERS), fn.grad(lambda x: f(x).sum())
    for run in (f, fn.jit(f), lambda x: fn.vmap(f)(x[None])[0], fn.jit(lambda x: fn.vmap(f)(x[None])[0])):
        np.testing.assert_array_equal(run(x).numpy(), expected.detach().numpy())
    for run in (graded, fn.jit(graded), fn.jit(lambda x: fn.vmap(graded)(x[None])[0])):
        np.testing.assert_array_equal(run(x).numpy(), slope.numpy())


def test_what_comes_from_outside_is_written_where_it_lies() -> None:
    w, x = fn.ones(2), fn.tensor(NUMBERS)
    memory = w.numpy()

    def step(x: Any) -> Any:
        w.data = w * x
        return w + 0

    assert fn.jit(step)(x).tolist() == [1, 2] and w.tolist() == [1, 2] and memory.tolist() == [1, 2]


def test_a_value_traced_further_inside_is_refused() -> None:
    def outer(x: Any) -> Any:
        v = (x * 3).sum()

        def inner(y: Any) -> Any:
            v.data = y * 2
            return y

        return fn.vmap(inner)(x).sum() + v

    with pytest.raises(fn.TracerError, match="data: a tensor made outside vmap"):
        fn.grad(outer)(fn.tensor(NUMBERS))
