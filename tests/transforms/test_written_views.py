"""In-place operations that change strides, writes through expanded views, tensors overwritten whole: as in PyTorch.

Each program is a function of the library; it gives tensors, whose values both libraries must agree on, eager and jitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn


def leaf(m: Any, *shape: int) -> Any:
    """A leaf that requires grad."""
    return m.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape).clone().requires_grad_()


# ---- programs -----------------------------------------------------------------------------------------------------------
def transposed_square(m: Any) -> tuple:
    """A square view turns, its base does not; a write lands where the view says."""
    base = m.arange(4.0).reshape(2, 2)
    part = base[:]
    part.t_()
    part[0, 1] = 9.0
    return base, part


def sibling_keeps_its_shape(m: Any) -> tuple:
    x = m.arange(6.0).reshape(2, 3)
    row = x[0]
    x.t_()
    x.add_(1.0)
    row.mul_(10.0)
    x.unsqueeze_(0)
    return x, row


def every_shape(m: Any) -> tuple:
    x = m.arange(6.0).reshape(1, 2, 3)
    return (
        x.clone().transpose_(1, 2), x.clone().squeeze_(), x.clone().squeeze_(0), x.clone().unsqueeze_(-1),
        x.clone().swapaxes_(0, 2), x.clone().swapdims_(0, 1), m.zeros(2, 0).t_(), m.tensor(3.0).unsqueeze_(0),
        m.zeros(2, 0).unsqueeze_(1), m.arange(3.0).t_(),
    )  # fmt: skip


def turned_and_recorded(m: Any) -> tuple:
    x = leaf(m, 2, 3)
    y = x * 2.0
    first = y[0]
    y.t_()
    y.mul_(y.clone())
    first.add_(1.0)
    y.unsqueeze_(0)
    (y * y).sum().backward()
    return y.detach(), first.detach(), x.grad


def turned_without_recording(m: Any) -> tuple:
    x = leaf(m, 2, 3)
    with m.no_grad():
        x.t_()
    (x * x).sum().backward()
    return x.detach(), x.grad


def turned_twice(m: Any) -> tuple:
    x = m.arange(6.0).reshape(2, 3)
    views = [x[0]]
    x.t_()
    views.append(x[0])
    x.unsqueeze_(1)
    views.append(x[0])
    x.mul_(2.0)
    views[0].add_(100.0)
    return x, *views


def turned_after_use(m: Any) -> tuple:
    """Derivatives that read only the shape of what was turned since."""
    x = leaf(m, 1, 3)
    y = x * 2.0
    z = y.kthvalue(1, 1)[0] + y.max(1)[0]
    y.squeeze_()
    (z.sum() + y.sum()).backward()
    return x.grad, y.detach()


def history_of_the_base(m: Any) -> tuple:
    """A view made before its base got a history has it, too."""
    x, y = leaf(m, 2, 3), m.ones(2, 3)
    view = y.t()
    y.mul_(x)
    assert view.requires_grad and not view.is_leaf and view.grad_fn is not None
    view.sum().backward()
    return (x.grad,)


def expanded_by_one(m: Any) -> tuple:
    x = m.ones(4)
    x.expand(4).zero_()
    x.expand(1, 4).add_(2.0)
    return (x,)


def row_of_expanded(m: Any) -> tuple:
    x = m.arange(4.0)
    wide = x.expand(2, 4)
    wide[0].mul_(3.0)
    wide.t()[:, 1].add_(1.0)
    wide[1:, :2].sub_(0.5)
    return x, wide


def filled_expanded(m: Any) -> tuple:
    x, y, z = m.ones(1), m.ones(3, 1), m.arange(5.0)
    x.expand(3).fill_(2.0)
    y.expand(3, 4).t().zero_()
    z.unfold(0, 3, 2).fill_(9.0)
    return x, y, z


def filled_expanded_and_recorded(m: Any) -> tuple:
    x = leaf(m, 3)
    y = x * 2.0
    wide = y.expand(2, 3)
    wide[0, :1].fill_(5.0)
    (y * y).sum().backward()
    return y.detach(), x.grad


def written_windows(m: Any) -> tuple:
    x = leaf(m, 7)
    y = x * 1.0
    parts = y.unfold(0, 2, 3)
    parts.mul_(parts.clone())
    y.unfold(0, 3, 1).sum().backward()
    return y.detach(), x.grad


def written_diagonals(m: Any) -> tuple:
    x = leaf(m, 2, 3, 4)
    y = x * 1.0
    y.diagonal(1, 2, 0).mul_(3.0)
    y.diagonal(-1, 1, 2).zero_()
    (y * y).sum().backward()
    return y.detach(), x.grad


def overwritten_whole(m: Any) -> tuple:
    x = leaf(m, 3)
    y = x * 2.0
    y[:] = 0.0
    z = x * 3.0
    z.zero_()
    w = x * 4.0
    w.copy_(m.ones(3))
    assert y.requires_grad and z.requires_grad and w.requires_grad
    (y.sum() + z.sum() + w.sum()).backward()
    return (x.grad,)


def overwritten_by_another(m: Any) -> tuple:
    x, s = leaf(m, 3), leaf(m, 1)
    y, z, w = x * 2.0, x * x, x * 3.0
    y[:] = s * 3.0
    z.copy_(s)
    w[:] = w * 2.0
    (y.sum() + z.sum() + w.sum()).backward()
    alone = leaf(m, 3)
    (alone * 2.0).copy_(s.detach() * leaf(m, 3)).sum().backward()
    return x.grad, s.grad, alone.grad


def overwritten_in_part(m: Any) -> tuple:
    x = leaf(m, 2, 3)
    y = x * 2.0
    y[0].fill_(1.0)
    y[1, :] = 2.0
    y.sum().backward()
    return (x.grad,)


def masked_by_a_traced_mask(m: Any) -> tuple:
    x, s = leaf(m, 2, 3), leaf(m, 6)
    y = x * 1.0
    y.masked_scatter_(y > 2.0, s)
    (y * y).sum().backward()
    return y.detach(), x.grad, s.grad


PROGRAMS = [
    transposed_square, sibling_keeps_its_shape, every_shape, turned_and_recorded, turned_without_recording, turned_twice, turned_after_use, history_of_the_base,
    expanded_by_one, row_of_expanded, filled_expanded, filled_expanded_and_recorded, written_windows, written_diagonals,
    overwritten_whole, overwritten_by_another, overwritten_in_part, masked_by_a_traced_mask,
]  # fmt: skip


def values(results: tuple) -> list[np.ndarray]:
    """The numbers of a program's results."""
    return [np.array(t.numpy()) for t in results]


@pytest.mark.parametrize("program", PROGRAMS)
def test_writes_to_views_are_pytorch(program: Callable) -> None:
    torch = pytest.importorskip("torch")
    expected = values(program(torch))
    jitted = fn.jit(lambda: program(fn))
    for got in (program(fn), jitted(), jitted()):
        for ours, theirs in zip(values(got), expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


# ---- what a compiled function cannot do to its arguments, it does eagerly -------------------------------------------------------
def test_an_argument_of_jit_changes_its_shape() -> None:
    f = fn.jit(lambda x: x.t_() * 2.0)
    for _ in range(2):
        x = fn.arange(6.0).reshape(2, 3)
        y = f(x)
        assert tuple(x.shape) == tuple(y.shape) == (3, 2)


def test_a_leaf_that_requires_grad_keeps_its_shape_while_recording() -> None:
    x = fn.ones(2, 3, requires_grad=True)
    for change in (x.t_, x[0].squeeze_, lambda: x.unsqueeze_(0), lambda: x[:].transpose_(0, 1)):
        with pytest.raises(RuntimeError, match="a leaf tensor that requires grad cannot be changed in place"):
            change()


def test_what_was_recorded_with_the_old_shape_notices() -> None:
    x = fn.ones(2, 3, requires_grad=True)
    y = x * 2.0
    z = (y * y).sum()
    y.t_()
    with pytest.raises(RuntimeError, match="overwritten by an in-place operation"):
        z.backward()


def test_several_elements_at_one_place_are_not_written() -> None:
    for t in (fn.ones(3).expand(2, 3), fn.ones(3).expand(2, 3)[:, :2], fn.ones(4).unfold(0, 3, 1)):
        with pytest.raises(RuntimeError, match="read-only"):
            t.add_(1.0)


# ---- values kept for the derivative, where PyTorch's formula does not read what is written -----------------------------------
RESCUED: dict[str, Callable] = {
    "erfinv": lambda m, x: ((h := m.erfinv(x * 0.1)), h),
    "reciprocal": lambda m, x: ((h := x * 1.0), 1 / h),
    "nothing over": lambda m, x: ((h := x * 1.0), 0.0 / h),
    "quotient": lambda m, x: ((y := 3.0 / (x * 1.0)), y),
    "cross_entropy": lambda m, x: ((h := x * 1.0), m.nn.functional.cross_entropy(h, m.tensor([0, 1]))),
    "attention": lambda m, x: ((y := m.nn.functional.scaled_dot_product_attention(x * 1.0, x * 2.0, x * 3.0)), y),
    "vector @ batch": lambda m, x: ((b := x.reshape(1, 2, 3) * m.ones(2, 1, 1)), x[:, 0] @ b),
    "matrix @ batch": lambda m, x: ((b := x.reshape(1, 2, 3) * m.ones(2, 1, 1)), x[:, :2] @ b),
    "take_along_dim": lambda m, x: ((i := m.tensor([[0], [2]])), m.take_along_dim(x * 1.0, i, 1)),
}


@pytest.mark.parametrize("name", RESCUED)
def test_a_write_that_pytorch_takes_is_taken(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for m in (torch, fn):
        x = leaf(m, 2, 3)
        written, y = RESCUED[name](m, x)
        written.copy_(written * 2 - 1 if written.is_floating_point() else written * 0)
        (y * y).sum().backward()
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_a_value_is_copied_once_and_only_for_a_derivative_that_is_still_wanted() -> None:
    x = leaf(fn, 2, 3)
    h = x * 1.0
    loss = fn.nn.functional.cross_entropy(h, fn.tensor([0, 1]))
    assert h._cell is not None and len(h._cell.readers) == 1
    h.mul_(2.0)
    assert h._cell.readers is None
    del loss
    for _ in range(3):
        fn.nn.functional.cross_entropy(h, fn.tensor([0, 1]))
    assert len(h._cell.readers) == 1  # those of results that are gone leave


def test_a_view_of_no_recording_takes_no_history_on_from_a_write_to_its_own_view() -> None:
    def told(w: fn.Tensor) -> list:
        whole = w * 2.0
        with fn.no_grad():
            row = whole[0:1:2]
        piece = row.split(1, 0)[0]
        with fn.no_grad():
            piece.add_(-2.0)
        return [t.requires_grad for t in (whole, row, piece)]

    weight, seen = fn.ones(2).requires_grad_(), []
    fn.jit(lambda: (seen.append(told(weight)), weight * 1.0)[1])()
    assert seen and all(facts == [True, False, False] == told(weight) for facts in seen)
