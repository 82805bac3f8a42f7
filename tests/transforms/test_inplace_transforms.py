"""In-place writes inside ``fn.grad`` and ``fn.vmap``: right where ``backward`` is, refused where it refuses, never wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import GradientError, TracerError

X = fn.tensor([1.0, -2.0, 3.0])


def _row(x: Any) -> Any:
    y = fn.ones(2, 3)
    y[1].mul_(x)
    y[0] *= x * x
    return y


def _reused(x: Any) -> Any:
    y = fn.full((3,), 2.0)
    z = y * 3
    y.mul_(x).mul_(x)
    return y * z


def _twice(x: Any) -> Any:
    y = fn.ones(3)
    y.mul_(x)
    z = y.clone()
    y.div_(x + 4.0)
    return y * z


def _inner(x: Any) -> Any:
    y = fn.ones(3).mul_(x)
    return fn.grad(lambda z: fn.ones(3).mul_(z).mul_(y).pow_(2).sum())(x * 2)


# What starts as a constant and takes a derivative on in place.
FUNCTIONS: dict[str, Callable] = {
    "mul_": lambda x: fn.ones(3).mul_(x),
    "mul_ twice": lambda x: fn.full((3,), 3.0).mul_(x).mul_(x),
    "div_": lambda x: fn.ones(3).div_(x),
    "pow_": lambda x: fn.full((3,), 2.0).pow_(x),
    "add_ and mul_": lambda x: fn.ones(3).mul_(2.0).add_(x).mul_(x),
    "rows": _row,
    "reused": _reused,
    "twice": _twice,
    "closed over": lambda x: (lambda y: y.mul_(x) + x)(fn.arange(3.0)),
}
ORDERS: dict[str, Callable] = {
    "grad": lambda f: fn.grad(lambda x: f(x).sum()),
    "jit of grad": lambda f: fn.jit(fn.grad(lambda x: f(x).sum())),
    "grad of jit": lambda f: fn.grad(fn.jit(lambda x: f(x).sum())),
    "vmap of grad": lambda f: lambda x: fn.vmap(fn.grad(lambda x: f(x).sum()))(fn.stack([x, x]))[1],
    "grad of vmap": lambda f: lambda x: fn.grad(lambda xs: fn.vmap(f)(xs).sum())(fn.stack([x, x]))[1],
}


def by_backward(f: Callable) -> Any:
    x = X.clone().requires_grad_()
    f(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_constant_that_is_multiplied_in_place(name: str, order: str) -> None:
    expected = by_backward(FUNCTIONS[name])
    np.testing.assert_allclose(ORDERS[order](FUNCTIONS[name])(X).numpy(), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])
def test_second_derivatives_through_in_place_products(wrap: Any) -> None:
    def f(x: Any) -> Any:
        return fn.ones(3).mul_(x).mul_(x).mul_(x).sum()

    np.testing.assert_allclose(wrap(fn.grad(lambda x: fn.grad(f)(x).sum()))(X).numpy(), 6 * X.numpy(), rtol=1e-6)
    got = wrap(_inner)(X)  # the gradient of (z y)^2 at z = 2 x, with y = x
    np.testing.assert_allclose(got.numpy(), 4 * X.numpy() ** 3, rtol=1e-6)
    np.testing.assert_allclose(fn.grad(lambda x: _inner(x).sum())(X).numpy(), 12 * X.numpy() ** 2, rtol=1e-6)


def test_the_recorded_graph_outside_keeps_the_old_value_too() -> None:
    w = X.clone().requires_grad_()
    fn.grad(lambda x: fn.ones(3).mul_(x).mul_(w).sum())(X).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.ones(3))


@pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "write", [lambda x: x.mul_(2), lambda x: x[:2].mul_(2), lambda x: x.__setitem__(0, 1.0), lambda x: x.t().add_(1)]
)
def test_what_is_differentiated_is_not_written_while_recording(write: Callable, wrap: Any) -> None:
    """As with ``backward``; the gradient would be that of the new value, or zero."""
    for f in (fn.grad, lambda f: fn.vmap(fn.grad(f))):
        x = X.clone() if f is fn.grad else fn.stack([X, X])
        with pytest.raises(GradientError, match="leaf"):
            wrap(f(lambda x: (write(x), x.sum())[1]))(x)
    with pytest.raises(GradientError, match="leaf"):
        write(X.clone().requires_grad_())


@pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])
def test_a_write_without_recording_leaves_it_what_is_differentiated(wrap: Any) -> None:
    def f(x: Any) -> Any:
        with fn.no_grad():
            x.clamp_(-1.0, 1.0)
        return (x * x).sum()

    x = X.clone()
    np.testing.assert_array_equal(wrap(fn.grad(f))(x).numpy(), [2, -2, 2])
    assert x.tolist() == [1, -1, 1]


def test_values_overwritten_before_their_derivative_was_taken_are_still_refused() -> None:
    def f(x: Any) -> Any:
        y = fn.ones(3)
        z = y * x
        y.mul_(x)
        return (z + y).sum()

    with pytest.raises(GradientError, match="overwritten"):
        fn.grad(f)(X)
    with pytest.raises(GradientError, match="overwritten"):
        by_backward(f)


def test_nonzero_inside_grad_and_refused_inside_vmap_and_jit() -> None:
    def f(x: Any) -> Any:
        rows = fn.nonzero(fn.relu(x))[:, 0]
        return (x[rows] * len(rows) + x[x > 0] ** 2).sum()

    expected = np.where(X.numpy() > 0, 2 + 2 * X.numpy(), 0)
    np.testing.assert_array_equal(fn.grad(f)(X).numpy(), expected)
    np.testing.assert_array_equal(by_backward(f).numpy(), expected)
    assert fn.grad(lambda x: (x * len(x.nonzero(as_tuple=True)[0])).sum())(X).tolist() == [3, 3, 3]
    np.testing.assert_array_equal(fn.grad(lambda x: fn.grad(f)(x).sum())(X).numpy(), np.where(X.numpy() > 0, 2, 0))
    for traced in (fn.vmap(fn.grad(f)), fn.grad(lambda x: fn.vmap(f)(x).sum())):
        with pytest.raises(TracerError, match="nonzero"):
            traced(fn.stack([X, X]))
    with pytest.raises(TracerError, match="nonzero"):
        fn.jit(fn.grad(f))(X)


def _silently(x: Any) -> Any:
    y = x * x
    with fn.no_grad():
        y.mul_(2.0)
    return y * 3


def _detached(x: Any) -> Any:
    y = fn.ones(3)
    y.detach().copy_(x)
    z = x * 2
    z.detach().mul_(3.0)
    return y + z


def _copied_leaf(x: Any) -> Any:
    y = fn.ones(3)
    y.copy_(x)
    return y.mul_(2.0).add_(x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("f", [_silently, _detached, _copied_leaf])
def test_writes_that_are_not_recorded_leave_the_history_and_copies_of_an_input_are_no_leaves(
    f: Any, order: str
) -> None:
    np.testing.assert_allclose(ORDERS[order](f)(X).numpy(), by_backward(f).numpy(), rtol=1e-6)
    if order == "grad":
        slope = fn.grad(lambda x: (fn.grad(lambda x: (f(x) ** 2).sum())(x)).sum())(X)
        step = np.float32(0.25)
        up, down = (fn.grad(lambda x: (f(x) ** 2).sum())(X + s) for s in (step, -step))
        if f is not _detached and f is not _silently:
            np.testing.assert_allclose(slope.numpy(), ((up - down) / (2 * step)).numpy(), rtol=1e-4)


# ---- arguments that are neither differentiated nor mapped ----------------------------------------------------------------
def _view_written(x: Any, b: Any) -> Any:
    b[1:].mul_(x[1:])
    return x * b


def _two_views(x: Any, b: Any) -> Any:
    first, last = b[0], b[-1]
    last.add_(1.0)
    b.mul_(x)
    first.mul_(3.0)
    return x * b + last


WRITES: dict[str, Callable] = {
    "a constant": lambda x, b: x * b.add_(1.0),
    "a traced value": lambda x, b: x * b.mul_(x),
    "both": lambda x, b: (b.add_(1.0), b.mul_(x), b.add_(2.0), x * b)[-1],
    "read before": lambda x, b: (x + b) * b.add_(x),
    "whole": lambda x, b: b.copy_(x * 2) * x,
    "set": lambda x, b: (b.__setitem__(0, x[1]), x * b)[-1],
    "a view": _view_written,
    "two views": _two_views,
    "returned": lambda x, b: b.mul_(x),
    "not written": lambda x, b: x * b,
}
both_ways = pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])


def eagerly(f: Callable, b: Any) -> tuple[list, list]:
    """What ``backward`` gives: the gradient, and the argument afterwards."""
    x = X.clone().requires_grad_()
    b = b.clone()
    (f(x, b) ** 2).sum().backward()
    return x.grad.tolist(), b.detach().tolist()


@both_ways
@pytest.mark.parametrize("name", WRITES)
def test_grad_writes_to_its_other_arguments_as_eager_code_does(name: str, wrap: Any) -> None:
    f = WRITES[name]
    gradient, after = eagerly(f, fn.arange(1.0, 4.0))
    run = wrap(fn.grad(lambda x, b: (f(x, b) ** 2).sum()))
    named = wrap(fn.grad(lambda x, *, b: (f(x, b) ** 2).sum()))
    for call in (lambda b: run(X, b), lambda b: named(X, b=b)):
        for _ in range(2):
            b = fn.arange(1.0, 4.0)
            np.testing.assert_allclose(call(b).numpy(), gradient, rtol=1e-5)
            np.testing.assert_allclose(b.numpy(), after, rtol=1e-5)


@both_ways
@pytest.mark.parametrize("name", WRITES)
def test_grad_of_grad_writes_them_too(name: str, wrap: Any) -> None:
    f = WRITES[name]

    def inner(x: Any, b: Any) -> Any:
        return (fn.grad(lambda x, b: (f(x, b) ** 2).sum())(x, b) ** 2).sum()

    _, after = eagerly(f, fn.arange(1.0, 4.0))
    b = fn.arange(1.0, 4.0)
    got = wrap(fn.grad(inner))(X, b)
    np.testing.assert_allclose(b.numpy(), after, rtol=1e-5)
    step = 1e-2
    for i in range(3):
        up, down = (X.double() + s * fn.eye(3, dtype=fn.float64)[i] for s in (step, -step))
        slope = (inner(up, fn.arange(1.0, 4.0).double()) - inner(down, fn.arange(1.0, 4.0).double())) / (2 * step)
        np.testing.assert_allclose(got[i].item(), slope.item(), rtol=1e-2)


@both_ways
@pytest.mark.parametrize("name", WRITES)
def test_vmap_lets_each_example_write_its_own(name: str, wrap: Any) -> None:
    f = WRITES[name]
    xs = fn.stack([X, X * 2])
    expected = [f(x, fn.arange(1.0, 4.0)).tolist() for x in xs]
    b = fn.arange(1.0, 4.0)
    run = wrap(fn.vmap(f, in_axes=(0, None)))
    np.testing.assert_allclose(run(xs, b).numpy(), expected, rtol=1e-6)
    constant = {"a constant": [2, 3, 4], "both": [2, 3, 4], "two views": [1, 2, 4]}
    assert b.tolist() == constant.get(name, [1, 2, 3])  # what is the same for all examples is in the argument
    slopes = wrap(fn.vmap(fn.grad(lambda x, b: (f(x, b) ** 2).sum()), in_axes=(0, None)))(xs, fn.arange(1.0, 4.0))
    np.testing.assert_allclose(slopes[0].numpy(), eagerly(f, fn.arange(1.0, 4.0))[0], rtol=1e-5)


@both_ways
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_writes_to_what_it_maps(wrap: Any, axis: int) -> None:
    """As torch.func does."""
    for write in (lambda x: x.mul_(2.0), lambda x: x.zero_(), lambda x: x[1:].add_(x[:-1]), lambda x: x.copy_(X)):
        x = fn.arange(9.0).reshape(3, 3)
        expected = x.clone()
        for row in expected if axis == 0 else expected.t():
            write(row)
        wrap(fn.vmap(lambda x, w=write: (w(x), x + 0)[1], in_axes=axis))(x)
        assert x.tolist() == expected.tolist()
    with pytest.raises(GradientError, match="leaf"):
        wrap(fn.vmap(lambda x: x.mul_(2.0)))(fn.ones(3).requires_grad_())


@both_ways
def test_the_same_argument_twice_and_a_view_of_it(wrap: Any) -> None:
    def f(x: Any, b: Any, c: Any) -> Any:
        b.mul_(2.0)
        return (x * c).sum()

    for make in (lambda b: b, lambda b: b[:], lambda b: b.detach()):
        b = fn.arange(1.0, 4.0)
        assert wrap(fn.grad(f))(X, b, make(b)).tolist() == [2, 4, 6] and b.tolist() == [2, 4, 6]


@both_ways
def test_an_argument_that_is_returned_is_that_argument(wrap: Any) -> None:
    b = fn.arange(1.0, 4.0)
    run = wrap(fn.grad(lambda x, b: ((x * b.add_(1.0)).sum(), {"b": b}), has_aux=True))
    gradient, aux = run(X, b)
    assert aux["b"] is b and b.tolist() == gradient.tolist() == [2, 3, 4]


def test_what_is_reached_from_outside_is_refused_and_left_alone() -> None:
    b = fn.ones(3)
    for write in (lambda x: b.mul_(x), lambda x: b[0].mul_(x[0]), lambda x: b.view(3, 1).mul_(x[:, None])):
        for f in (fn.grad(lambda x, w=write: (w(x), x.sum())[1]), lambda x, w=write: fn.vmap(w)(fn.stack([x, x]))):
            with pytest.raises(TracerError, match="made outside"):
                f(X)
            assert isinstance(b._v, np.ndarray) and b.tolist() == [1, 1, 1]


def test_an_argument_that_requires_grad_is_a_leaf_inside_too() -> None:
    b = fn.ones(3).requires_grad_()
    with pytest.raises(GradientError, match="leaf"):
        fn.grad(lambda x, b: (x * b.mul_(2.0)).sum())(X, b)
    fn.grad(lambda x, b: (x * x * b).sum())(X, b).sum().backward()
    assert b.grad.tolist() == [2, -4, 6]
