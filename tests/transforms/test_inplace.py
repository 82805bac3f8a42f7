"""In-place operations under ``backward()``: what is recorded, detected and refused; and what a graph keeps alive."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import funcnn
import funcnn as fn
from funcnn import no_grad
from funcnn.core.errors import GradientError
from funcnn.ops.elementwise import math as m
from funcnn.ops.indexing import index
from funcnn.ops.movement import views as movement
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.backward import gradients
from tests.transforms.test_backward import const, leaf, numbers


# ---- in place -------------------------------------------------------------------------------------------------------
def test_leaf_cannot_be_changed_in_place_while_recording() -> None:
    x = leaf(1.0, 2.0)
    for change in (lambda: x.add_(1.0), lambda: x.zero_(), lambda: x.__setitem__(0, 5.0), lambda: x[0:1].mul_(2.0)):
        with pytest.raises(GradientError, match="leaf tensor that requires grad cannot be changed in place"):
            change()
    with no_grad():
        x.add_(1.0)
    x.detach().mul_(2.0)
    assert numbers(x) == [4.0, 6.0]
    sum_(x * x).backward()
    assert numbers(x.grad) == [8.0, 12.0]


def test_overwritten_input_is_detected() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = sum_(y * y)
    y.add_(1.0)
    with pytest.raises(GradientError, match=r"mul needs for its gradient was overwritten .*version 1, expected 0"):
        z.backward()


def test_overwritten_output_is_detected() -> None:
    x = leaf(1.0, 2.0)
    y = m.exp(x)
    z = sum_(y)
    y.add_(1.0)
    with pytest.raises(GradientError, match="exp needs for its gradient was overwritten"):
        z.backward()


def test_overwriting_through_a_view_or_detached_alias_is_detected() -> None:
    for alias in (lambda y: y[0:1], lambda y: movement.reshape(y, (1, 2)), lambda y: y.detach()):
        x = leaf(1.0, 2.0)
        y = x * 3.0
        z = sum_(y * y)
        with no_grad():
            alias(y).mul_(0.0)
        with pytest.raises(GradientError, match="overwritten"):
            z.backward()


def test_overwriting_what_is_not_needed_is_allowed() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = sum_(y + 1.0)  # addition keeps no values
    y.mul_(0.0)
    z.backward()
    assert numbers(x.grad) == [3.0, 3.0]


def test_in_place_operations_are_recorded() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1.0
    y.mul_(3.0)
    y += x
    y.exp_()
    sum_(y).backward()
    np.testing.assert_allclose(x.grad._v, 4 * np.exp([4.0, 8.0]), 1e-13)


def test_constant_takes_on_history_in_place() -> None:
    x, y = leaf(1.0, 2.0), const(10.0, 10.0)
    y.mul_(x)
    assert y.requires_grad
    sum_(y * x).backward()
    assert numbers(x.grad) == [20.0, 40.0]


def test_write_through_a_view_reaches_the_history_of_its_base() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2.0
    part = y[0:2]
    part.mul_(10.0)
    assert numbers(y) == [20.0, 40.0, 6.0]
    (y * const(1.0, 2.0, 3.0)).backward(const(1.0, 1.0, 1.0))
    assert numbers(x.grad) == [20.0, 40.0, 6.0]


def test_view_taken_earlier_sees_a_write_to_its_base() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2.0
    part = y[1:]
    y.mul_(5.0)
    assert numbers(part) == [20.0, 30.0]
    sum_(part * part).backward()
    assert numbers(x.grad) == [0.0, 400.0, 600.0]


def test_sibling_views_share_history() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2.0
    one, two = y[0:2], y[1:3]
    one.mul_(10.0)
    sum_(two).backward()
    assert numbers(x.grad) == [0.0, 20.0, 2.0]


def test_view_of_a_view_and_a_transpose() -> None:
    x = as_tensor(np.arange(6.0).reshape(2, 3)).requires_grad_()
    y = x * 1.0
    inner = movement.transpose(y, 0, 1)[1:][0]
    inner.mul_(7.0)
    expected = np.ones((2, 3))
    expected[:, 1] = 7.0
    sum_(y).backward()
    np.testing.assert_array_equal(x.grad._v, expected)
    np.testing.assert_array_equal(y._v, np.arange(6.0).reshape(2, 3) * expected)


def test_assignment_by_index_is_recorded() -> None:
    x, v = leaf(1.0, 2.0, 3.0), leaf(5.0)
    y = x * 2.0
    y[1:2] = v * v
    (y * const(1.0, 10.0, 100.0)).backward(const(1.0, 1.0, 1.0))
    assert numbers(x.grad) == [2.0, 0.0, 200.0] and numbers(v.grad) == [100.0]


def test_in_place_matches_torch() -> None:
    torch = pytest.importorskip("torch")

    def run(x: Any, w: Any) -> Any:
        y = x * w
        a, b = y[0], y[:, 1]
        a.mul_(w)
        b.add_(a[0])
        y[1] = y[0] * 2.0
        y.sin_()
        return (y * x).sum()

    arrays = np.random.default_rng(0).standard_normal((2, 3)), np.random.default_rng(1).standard_normal(3)
    ours = [as_tensor(a.copy()).requires_grad_() for a in arrays]
    theirs = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    run(*ours).backward()
    run(*theirs).backward()
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.grad._v, two.grad.numpy(), 1e-12)


# ---- memory ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def _no_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_graphs_are_freed_without_the_collector() -> None:
    x = leaf(1.0, 2.0)
    seen = []
    for build in (
        lambda: m.exp(x) * x,
        lambda: m.sigmoid(m.tanh(x)),
        lambda: movement.reshape(x * 2.0, (2, 1))[0],
        lambda: fn.where(fn.gt(x, 1.0), x, m.exp(x)),
        lambda: index.getitem(x * x, 0),
    ):
        y = build()
        seen += [weakref.ref(y), weakref.ref(y.grad_fn)]
        loss = sum_(y)
        seen += [weakref.ref(loss), weakref.ref(loss.grad_fn)]
        loss.backward(retain_graph=True)
        loss.backward()
        del y, loss
    assert [ref() for ref in seen] == [None] * len(seen)


@pytest.mark.usefixtures("_no_collector")
def test_in_place_graphs_are_freed_without_the_collector() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3.0
    y.mul_(x)
    part = y[0:1]
    part.add_(x[1:])
    seen = [weakref.ref(t) for t in (y, part, y.grad_fn)]
    sum_(y).backward()
    del y, part
    assert [ref() for ref in seen] == [None] * 3


@pytest.mark.usefixtures("_no_collector")
def test_second_order_graphs_are_freed_without_the_collector() -> None:
    x = leaf(1.0, 2.0)
    (g,) = gradients(sum_(m.exp(x) * x), x, create_graph=True)
    seen = [weakref.ref(g), weakref.ref(g.grad_fn)]
    gradients(sum_(g * g), x)
    del g
    assert [ref() for ref in seen] == [None, None]


@pytest.mark.usefixtures("_no_collector")
def test_backward_frees_saved_values_while_the_result_lives() -> None:
    x = leaf(1.0, 2.0)
    y = m.exp(x)
    big = y * y
    ref = weakref.ref(y)
    loss = sum_(big)
    del y, big
    assert ref() is not None
    loss.backward()
    assert ref() is None


# ---- views that a write to their base left behind -------------------------------------------------------------
def _stale(x: Any) -> tuple:
    """Values of views taken before their base was written: returned, copied, and the base itself."""
    y = x * 2.0
    part, flat = y[0:2], y.reshape(-1)
    y.mul_(x)
    flat.copy_(flat)
    part[0] = 5.0
    return part, flat, y


def test_views_are_up_to_date_wherever_they_are_returned() -> None:
    x = np.array([3.0, 4.0, 5.0])
    expected = [[5.0, 32.0], [5.0, 32.0, 50.0], [5.0, 32.0, 50.0]]
    t = as_tensor(x)
    assert [numbers(out) for out in _stale(t)] == expected
    assert [numbers(out) for out in funcnn.jit(_stale)(t)] == expected
    assert [numbers(out) for out in funcnn.vjp(_stale, t)[0]] == expected
    assert [numbers(out[0]) for out in funcnn.vmap(_stale)(as_tensor(x[None]))] == expected


def test_gradients_of_views_written_since() -> None:
    weights = [const(1.0, 1.0), const(0.0, 0.0, 0.0), const(0.0, 0.0, 0.0)]
    x = leaf(3.0, 4.0, 5.0)
    (g,) = funcnn.vjp(_stale, x.detach())[1](tuple(weights))
    assert numbers(g) == [0.0, 16.0, 0.0]
    _stale(x)[0].backward(weights[0])
    assert numbers(x.grad) == [0.0, 16.0, 0.0]
    assert numbers(gradients(_stale(x)[0], x, weights[0])[0]) == [0.0, 16.0, 0.0]


def test_only_the_value_an_operation_itself_overwrites_is_kept() -> None:
    x, w = leaf(1.0, 2.0), const(3.0, 4.0)
    y = x * 1.0
    z = y * w * y
    y[0] = 7.0
    y.copy_(z)
    with pytest.raises(GradientError, match="overwritten"):
        sum_(y).backward()


WRITES: dict[str, Any] = {
    "data": lambda v, y: v.data.mul_(2.0),
    "detach": lambda v, y: v.detach().add_(1.0),
    "a view, unrecorded": lambda v, y: no_grad()(v.add_)(1.0),
    "its view, unrecorded": lambda v, y: no_grad()(lambda: v[:].add_(1.0))(),
    "its base, unrecorded": lambda v, y: no_grad()(y.add_)(1.0),
    "nothing": lambda v, y: None,
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("wrap", [lambda f: f, funcnn.jit], ids=["eager", "jit"])
def test_an_unrecorded_write_leaves_a_view_the_history_of_its_base(wrap: Any, name: str) -> None:
    def step(x: Any) -> None:
        y = x * 1.0
        v = y[:1]
        y.mul_(3.0)  # v lags behind until it is used
        WRITES[name](v, y)
        ((v * 1.0).sum() + 10.0 * y.sum()).backward()

    x = leaf(1.0, 1.0)
    wrap(step)(x)
    assert numbers(x.grad) == [33.0, 30.0]


@pytest.mark.parametrize("grad", [True, False])
def test_a_view_stays_where_it_was_when_its_base_is_rebound(grad: bool) -> None:
    with funcnn.set_grad_enabled(grad):
        root = const(1.0, 1.0, 1.0, 1.0)
        x, sibling = root[:], root[:1]
        base = root.view(4)
        view = base[1:]
        sibling.add_(1.0)  # the view lags behind
        base.data = const(0.0, 0.0, 0.0, 0.0)
        view.add_(1.0)
        assert numbers(view) == [2.0] * 3 and numbers(view * 1.0) == [2.0] * 3
        assert numbers(root) == numbers(x) == [2.0] * 4 and numbers(base) == [0.0] * 4
