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

    np.testing.assert_array_equal(wrap(fn.grad(f))(X.clone()).numpy(), [2, -2, 2])


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
