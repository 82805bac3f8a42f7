"""``backward()``: PyTorch's semantics of leaves, graphs, in-place operations and memory."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn import no_grad
from funcnn.core.errors import DTypeError, GradientError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.elementwise import math as m
from funcnn.ops.movement import views as movement
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.backward import gradients


def leaf(*values: float, dtype: str = "float64") -> Tensor:
    """A leaf that wants a gradient."""
    return as_tensor(np.array(values, dtype)).requires_grad_()


def const(*values: float) -> Tensor:
    """A float64 tensor."""
    return as_tensor(np.array(values, "float64"))


def numbers(t: Tensor | None) -> list:
    """The values of a tensor as a list."""
    assert t is not None
    return t._v.tolist()


# ---- leaves and accumulation ----------------------------------------------------------------------------------
def test_gradients_add_up_until_they_are_cleared() -> None:
    x = leaf(1.0, 2.0)
    sum_(x * x).backward()
    assert numbers(x.grad) == [2.0, 4.0]
    sum_(x * 3.0).backward()
    assert numbers(x.grad) == [5.0, 7.0]
    x.grad = None
    sum_(x * 3.0).backward()
    assert numbers(x.grad) == [3.0, 3.0]


def test_accumulation_does_not_change_a_gradient_that_was_taken_away() -> None:
    x = leaf(1.0, 2.0)
    sum_(x * 2.0).backward()
    before = x.grad
    sum_(x * 2.0).backward()
    assert numbers(x.grad) == [4.0, 4.0] and numbers(before) in ([2.0, 2.0], [4.0, 4.0])


def test_gradient_memory_belongs_to_its_leaf_alone() -> None:
    x, y, g = leaf(1.0, 2.0), leaf(3.0, 4.0), const(1.0, 1.0)
    (x + y).backward(g)
    x.grad.mul_(10.0)
    assert numbers(y.grad) == [1.0, 1.0] and numbers(g) == [1.0, 1.0]


def test_gradient_of_a_view_of_the_cotangent_is_a_copy() -> None:
    x, g = leaf(1.0, 2.0), as_tensor(np.array([[1.0, 2.0]]))
    movement.reshape(x, (1, 2)).backward(g)
    x.grad.mul_(10.0)
    assert numbers(g) == [[1.0, 2.0]]


def test_only_leaves_that_ask_get_a_gradient() -> None:
    x, y = leaf(2.0), const(3.0)
    middle = x * y
    sum_(middle * middle).backward()
    assert numbers(x.grad) == [36.0] and y.grad is None and middle.grad is None
    assert x.is_leaf and not middle.is_leaf and middle.requires_grad and not y.requires_grad
    assert repr(middle.grad_fn) == "<MulBackward0>"


def test_a_leaf_is_its_own_root() -> None:
    x = leaf(2.0)
    x.backward()
    x.backward(const(3.0))
    assert numbers(x.grad) == [4.0]


def test_gradient_argument_weighs_the_outputs() -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(const(10.0, 100.0))
    assert numbers(x.grad) == [20.0, 400.0]


def test_shared_subgraphs_are_walked_once() -> None:
    x = leaf(1.5)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y + y
    sum_(y).backward()
    assert numbers(x.grad) == [2.0**60]


def test_diamond_of_different_depths() -> None:
    x = leaf(0.5, 2.0)
    a = x * x
    b = m.exp(a)
    sum_(a * b + b * x + a).backward()
    v = np.array([0.5, 2.0])
    ev = np.exp(v * v)
    expected = 2 * v * ev + v * v * ev * 2 * v + ev + v * ev * 2 * v + 2 * v
    np.testing.assert_allclose(x.grad._v, expected, 1e-13)


def test_long_chains_do_not_recurse() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y * 1.0001
    y.backward()
    np.testing.assert_allclose(x.grad._v, [1.0001**5000], 1e-9)
    del y


def test_long_graphs_are_freed_without_recursion() -> None:
    y = leaf(1.0)
    for _ in range(50_000):
        y = y + 1.0
    del y  # a recursive destructor would overflow the C stack here


# ---- graphs freed and kept ------------------------------------------------------------------------------------
def test_second_backward_needs_retain_graph() -> None:
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert numbers(x.grad) == [12.0]
    with pytest.raises(GradientError, match=r"mul were freed by an earlier backward.*retain_graph=True"):
        y.backward()
    assert numbers(x.grad) == [12.0]


def test_part_of_a_graph_that_was_freed() -> None:
    x = leaf(3.0)
    shared = m.exp(x)
    (shared * 2.0).backward()
    with pytest.raises(GradientError, match="freed"):
        (shared * 3.0).backward()


def test_create_graph_gives_second_and_third_derivatives() -> None:
    x = leaf(2.0)
    (x * x * x * x).backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.backward(create_graph=True)
    second = x.grad
    x.grad = None
    second.backward()
    assert (numbers(first), numbers(second), numbers(x.grad)) == ([32.0], [48.0], [48.0])
    assert not x.grad.requires_grad


def test_double_backward_through_saved_outputs() -> None:
    for f, df, ddf in (
        (m.exp, np.exp, np.exp),
        (m.tanh, lambda v: 1 - np.tanh(v) ** 2, lambda v: -2 * np.tanh(v) * (1 - np.tanh(v) ** 2)),
        (m.sqrt, lambda v: 0.5 / np.sqrt(v), lambda v: -0.25 * v**-1.5),
    ):
        x, v = leaf(0.7, 1.3), np.array([0.7, 1.3])
        (g,) = gradients(sum_(f(x)), x, create_graph=True)
        np.testing.assert_allclose(g._v, df(v), 1e-13)
        (gg,) = gradients(sum_(g), x)
        np.testing.assert_allclose(gg._v, ddf(v), 1e-12)


def test_gradient_penalty() -> None:
    w, x = leaf(0.3, -0.4), leaf(1.0, 2.0)
    (g,) = gradients(sum_(m.tanh(w * x)), x, create_graph=True)
    sum_(g * g).backward()
    wv, xv = np.array([0.3, -0.4]), np.array([1.0, 2.0])
    t = np.tanh(wv * xv)
    s = 1 - t * t
    np.testing.assert_allclose(w.grad._v, 2 * wv * s * s + (wv * s) * 2 * wv * (-2 * t * s * xv), 1e-12)


def test_gradients_with_respect_to_inner_points_and_several_outputs() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * 3.0
    gy, gx = gradients([z, y], [y, x], [const(1.0), const(10.0)])
    assert numbers(gy) == [13.0] and numbers(gx) == [52.0] and x.grad is None
    unused = leaf(1.0)
    with pytest.raises(GradientError, match="allow_unused=True"):
        gradients(x * x, unused)
    assert gradients(x * x, unused, allow_unused=True) == (None,)


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_non_scalar_without_a_gradient() -> None:
    with pytest.raises(GradientError, match=r"single element, this tensor has shape \(2,\)"):
        (leaf(1.0, 2.0) * 2.0).backward()


def test_no_graph() -> None:
    with pytest.raises(GradientError, match="does not require grad"):
        const(1.0).backward()


def test_wrong_gradients() -> None:
    y = leaf(1.0, 2.0) * 2.0
    with pytest.raises(ShapeError, match=r"gradient of shape \(3,\) for a tensor of \(2,\)"):
        y.backward(const(1.0, 2.0, 3.0))
    with pytest.raises(DTypeError, match="gradient must be a tensor, got list"):
        y.backward([1.0, 2.0])  # type: ignore[arg-type]


def test_integers_have_no_gradients() -> None:
    with pytest.raises(DTypeError, match="only floating-point tensors can have gradients, got int64"):
        as_tensor(np.array([1, 2])).requires_grad_()
    whole = fn.floor_divide(as_tensor(np.array([5, 7])), 2)
    assert not whole.requires_grad and not fn.gt(leaf(1.0), 0.0).requires_grad


def test_requires_grad_of_a_result_cannot_be_turned_off() -> None:
    y = leaf(1.0) * 2.0
    with pytest.raises(GradientError, match="detach"):
        y.requires_grad_(False)


def test_wrong_grad_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ShapeError, match=r"grad: expected float64 of shape \(2,\)"):
        x.grad = const(1.0)
    with pytest.raises(DTypeError, match="grad: expected a tensor or None"):
        x.grad = 1.0  # type: ignore[assignment]


# ---- constants ------------------------------------------------------------------------------------------------------
def test_detach_and_stop_gradient_are_constants() -> None:
    x = leaf(3.0)
    (x * x.detach() + fn.stop_gradient(x * x)).backward()
    assert numbers(x.grad) == [3.0]
    assert not x.detach().requires_grad and x.detach()._v is x._v


def test_no_grad_records_nothing() -> None:
    x = leaf(3.0)
    with no_grad():
        y = x * x
        inside = m.exp(y)
    assert not y.requires_grad and not inside.requires_grad
    (x * y).backward()
    assert numbers(x.grad) == [9.0]


def test_gradients_of_leaves_share_no_memory():
    """A leaf may keep a gradient that came as a view, but only if nobody else has the memory."""
    a, b, given = fn.randn(300, 400, requires_grad=True), fn.randn(300, 400, requires_grad=True), fn.randn(120000)
    (a.reshape(-1) + b.reshape(-1)).backward(given)
    before = given.numpy().copy()
    a.grad.mul_(3.0)
    assert np.array_equal(b.grad.numpy().reshape(-1), before)
    b.grad.mul_(5.0)
    assert np.array_equal(given.numpy(), before)
    assert np.array_equal(a.grad.numpy().reshape(-1), 3 * before)


def test_the_gradient_of_a_reshaped_leaf_is_not_copied():
    x = fn.randn(300, 400, requires_grad=True)
    with fn.profiler.profile() as prof:
        (x.reshape(-1) * 2.0).backward(fn.ones(120000))
    assert "clone" not in {event.name for event in prof.events}
    assert np.array_equal(x.grad.numpy(), np.full((300, 400), 2, np.float32))
