"""Wrong declarations and wrong calls of a user's primitive are refused by name, where they are made or at the first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.kernels import kernel
from tests.ops.custom.test_own_primitives import (
    cube,
    histogram,
    lion,
    lion_update,
    scale_forward,
    scaled,
    swish,
    swish_backward,
    swish_forward,
)

X = fn.tensor([[0.5, -1.0, 2.0]])


@kernel
def returns_it(x, y):
    """Forgets its output."""
    return x


@kernel
def swish_backward_of_z(dz, x, beta, dx):
    """Takes the cotangent of an output that there is not."""


def python_returns(x, y):
    """Returns what it should have filled in."""
    return np.exp(x)


# ---- declarations -----------------------------------------------------------------------------------------------------
DECLARED: dict[str, tuple[Callable, str]] = {
    "name": (lambda: fn.primitive("a b", swish_forward, {"y": "x"}), "identifier, got 'a b'"),
    "no kernel": (lambda: fn.primitive("p", 3, {"y": "x"}), "p: the arguments of 3 have no names"),
    "no such output": (lambda: fn.primitive("p", swish_forward, {"z": "x"}),
                       r"kernel swish_forward\(x, beta, y\) has no argument z, which is declared as output"),
    "no output": (lambda: fn.primitive("p", swish_forward), "nothing says which arguments .* are filled"),
    "like no input": (lambda: fn.primitive("p", swish_forward, {"y": "z"}), "output y is like z, which is no input"),
    "no rule": (lambda: fn.primitive("p", swish_forward, {"y": (3, 4)}), "output y needs the name of an input or a rule"),
    "no dict": (lambda: fn.primitive("p", swish_forward, ["y"]), "outputs must be a dict"),
    "returns": (lambda: fn.primitive("p", returns_it, {"y": "x"}), "returns a value; a kernel returns nothing"),
    "twice": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, params={"y": 1}), "y is declared twice"),
    "scratch": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, scratch={"room": lambda x: (3, x.dtype)}),
                "has no argument room, which is declared as scratch"),
    "workers": (lambda: fn.primitive("p", lion_update, {"p": "g"}, worker_scratch={"m": lambda: (3, "int64")}),
                "needs the argument workers"),
    "zeros": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, zeros=("x",)), r"zeros=\['x'\] names neither"),
    "fold": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, fold=("z",)), r"fold=\['z'\] is no input"),
    "fold text": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, fold="x"), "several names"),
    "backward output": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, backward=swish_backward_of_z, params={"beta": 1}),
                        "takes dz, which is no input"),
    "backward nothing": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, backward=swish_forward),
                         r"fills no d<input>; expected some of dx, dbeta"),
    "backward function": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, backward=lambda dy, z: dy), "takes z"),
    "backward number": (lambda: fn.primitive("p", swish_forward, {"y": "x"}, backward=3), "backward must be a kernel"),
    "in place": (lambda: fn.primitive("p", lion_update, overwrites=("p", "m"), backward=swish_backward), "has no backward"),
    "varargs": (lambda: fn.primitive("p", lambda *x: None, {"y": "x"}), r"takes \*x; every argument must be a plain name"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_a_wrong_declaration_is_refused_where_it_is_made(name: str) -> None:
    declare, message = DECLARED[name]
    with pytest.raises(TypeError, match=message):
        declare()


# ---- the first call -----------------------------------------------------------------------------------------------------
undeclared = fn.primitive("undeclared", scale_forward, {"y": "x"})  # positive is filled as well
no_pair = fn.primitive("no_pair", swish_forward, {"y": lambda x: 3}, params={"beta": 1.0})
no_such = fn.primitive("no_such", swish_forward, {"y": lambda x, n: ((n,), x.dtype)}, params={"beta": 1.0})
returned = fn.primitive("returned", python_returns, {"y": "x"})
by_shape = fn.primitive("by_shape", swish_forward, {"y": "x"}, backward=lambda dy: dy.sum(), params={"beta": 1.0})
by_dtype = fn.primitive(
    "by_dtype", swish_forward, {"y": "x"}, backward=lambda dy: dy.to(fn.float64), params={"beta": 1.0}
)
by_count = fn.primitive("by_count", swish_forward, {"y": "x"}, backward=lambda dy: (dy, dy), params={"beta": 1.0})
by_array = fn.primitive("by_array", swish_forward, {"y": "x"}, backward=lambda dy: dy.numpy(), params={"beta": 1.0})

CALLED: dict[str, tuple[Callable, str]] = {
    "array": (lambda: swish(np.ones(3)), r"swish: input x must be a tensor, got a ndarray; pass fn.tensor\(...\)"),
    "list": (lambda: swish([1.0]), "swish: input x must be a tensor, got a list"),
    "number": (lambda: swish(1.0), "swish: input x must be a tensor, got a float; .* may be a parameter"),
    "few": (lambda: scaled(X), r"scaled: takes 2 inputs \(x, w\), got 1"),
    "many": (lambda: swish(X, X), r"swish: takes 1 input \(x\), got 2"),
    "unknown": (lambda: swish(X, gamma=1), r"swish: unexpected argument gamma; its parameters are \['beta'\]"),
    "missing": (lambda: histogram(X), "histogram: the parameter bins must be given"),
    "tensor": (lambda: swish(X, beta=fn.tensor(1.0)), "the parameter beta is static .* got a Tensor"),
    "half": (lambda: swish(X.to(fn.float16)), "swish: x is float16, and it computes in float32 and float64"),
    "mixed": (lambda: scaled(X, X[0].to(fn.float64)), "floating inputs must have one dtype, got x float32, w float64"),
    "undeclared": (lambda: undeclared(X, X[0], X[0].to(fn.int64)), "writes into positive, which is not declared"),
    "no pair": (lambda: no_pair(X), r"the rule of output y must give \(shape, dtype\), got 3"),
    "no such": (lambda: no_such(X), r"the rule of output y takes \['n'\]; there are beta, x"),
    "returned": (lambda: returned(X), "python_returns.* returned a ndarray; it has to fill its outputs"),
    "shape": (lambda: fn.grad(lambda x: by_shape(x).sum())(X), r"derivative of input x has the shape \(\), and the input \(1, 3\)"),
    "dtype": (lambda: fn.grad(lambda x: by_dtype(x).sum())(X), "derivative of input x is float64, and the input float32"),
    "count": (lambda: fn.grad(lambda x: by_count(x).sum())(X), "gives 2 derivatives; expected one, or None, for each of 1 input"),
    "no tensor": (lambda: fn.grad(lambda x: by_array(x.detach()).sum() + by_array(x).sum())(X), "derivative of input x is a|numpy"),
    "in place": (lambda: lion(X.clone().requires_grad_(), X * 0, X), "lion: changes its inputs in place and has no derivative"),
    "shared": (lambda: (lambda p: lion(p, p.view(-1).view(1, 3), X))(X.clone()), "two of the tensors that it overwrites share"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_a_wrong_call_is_refused_by_name(name: str) -> None:
    call, message = CALLED[name]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        call()


# ---- Primitive itself ---------------------------------------------------------------------------------------------------
def raw(**more: Any) -> Primitive:
    """exp as in the README."""
    return Primitive("raw", **{"shape": lambda x: (x,), "cpu": lambda ins, outs: np.exp(ins[0], outs[0]), **more})


RAW: dict[str, tuple[Callable, str]] = {
    "two outputs": (lambda: raw(shape=lambda x: (x, x))(X), "raw: the shape rule gives 2 outputs; declare multiple=True"),
    "no avals": (lambda: raw(shape=lambda x: x.shape)(X), "raw: the shape rule must give a tuple of Avals"),
    "returned": (lambda: raw(cpu=lambda ins, outs: np.exp(ins[0]))(X), "raw: its function on arrays returned a ndarray"),
    "few": (lambda: raw()(), "raw: its shape rule does not take 0 inputs"),
    "many": (lambda: raw()(X, X), "raw: its shape rule does not take 2 inputs"),
    "parameter": (lambda: raw()(X, beta=1), r"raw: its shape rule does not take 1 inputs and parameters \['beta'\]"),
    "array": (lambda: raw()(np.ones(3)), "raw: input 0 must be a tensor, got a ndarray"),
    "list": (lambda: raw()([1.0]), "raw: input 0 must be a tensor, got a list"),
    "number": (lambda: fn.vmap(lambda x: raw()(2.0))(X), "raw: input 0 must be a tensor, got a float"),
    "shape": (lambda: gradient(lambda g, ins, y: (g.sum(),)), r"raw: its derivative of input 0 has the shape \(\)"),
    "dtype": (lambda: gradient(lambda g, ins, y: (g.to(fn.float64),)), "raw: its derivative of input 0 is float64"),
    "later": (lambda: gradient(lambda g, ins, y: (lambda: g.sum(),)), r"raw: its derivative of input 0 has the shape \(\)"),
    "count": (lambda: gradient(lambda g, ins, y: (g, g)), "raw: its vjp rule gives 2 derivatives"),
    "tensor": (lambda: gradient(lambda g, ins, y: g), "raw: its vjp rule gives a Tensor; expected a tuple"),
}  # fmt: skip


def gradient(vjp: Callable) -> Any:
    """A gradient through a primitive with this rule."""
    prim = raw(vjp=vjp)
    return fn.grad(lambda x: prim(x).sum())(X)


@pytest.mark.parametrize("name", RAW)
def test_a_primitive_that_does_not_fit_is_refused_by_name(name: str) -> None:
    call, message = RAW[name]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        call()


def test_what_is_declared_right_goes_on_to_work() -> None:
    prim = raw(vjp=lambda g, ins, y: (lambda: g * y,), keeps="o")
    np.testing.assert_allclose(fn.grad(lambda x: prim(x).sum())(X).numpy(), np.exp(X.numpy()), 1e-6)
    two = Primitive("two", lambda x: (x, Aval(x.shape, np.dtype("int64"))), cpu=lambda ins, outs: None, multiple=True)
    assert [t.dtype for t in two(X)] == [np.float32, np.int64]
    assert cube(X).shape == (1, 3)


# ---- what check_primitive finds -----------------------------------------------------------------------------------------
@kernel
def beyond(x, y):
    """Writes one number too many."""
    p = y.ravel()
    for i in range(x.size + 1):
        p[i] = 1.0


@kernel
def unfilled(x, y):
    """Leaves the last number as it was."""
    for i in range(x.size - 1):
        y.ravel()[i] = x.ravel()[i]


WRONG: dict[str, tuple[Callable, str]] = {
    "bands": (lambda: fn.primitive("beyond", beyond, {"y": "x"}), "bytes behind its argument y"),
    "unfilled": (lambda: fn.primitive("unfilled", unfilled, {"y": "x"}), "unfilled, example 0"),
    "slope": (lambda: fn.primitive("slope", swish_forward, {"y": "x"}, backward=lambda dy, x: dy * x, params={"beta": 1.0}), "vjp"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_check_primitive_finds(name: str) -> None:
    declare, message = WRONG[name]
    with pytest.raises((AssertionError, RuntimeError), match=message):
        fn.testing.check_primitive(declare(), (np.arange(1.0, 4.0),), skip=("values",))


def test_check_primitive_refuses_names_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"no check is called \['speed'\]"):
        fn.testing.check_primitive(swish, (X,), skip=("speed",))
    with pytest.raises(ValueError, match="needs an example"):
        fn.testing.check_primitive(swish)
    with pytest.raises(AssertionError, match="beside its reference"):
        fn.testing.check_primitive(swish, (X,), reference=lambda x: x)
    assert swish_backward is not None
