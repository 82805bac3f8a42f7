"""How elementwise operations are declared: one input or two, their kernel, derivatives, costs and methods in one entry.

In a derivative ``g`` is the cotangent, ``x`` (and ``y``) the inputs, ``o`` the output; ``keeps`` says whose numbers it reads.
Inputs broadcast and promote as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Protocol, cast

import numpy as np

from funcnn.core.aval import Aval, Tracer
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise.launch import Loop, looped, pairwise, with_kernel
from funcnn.ops.base.batching import aligned
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import floating, operand, promoted, require_same_dtype
from funcnn.ops.base.registry import note
from funcnn.ops.base.structure import number_like, unbroadcast, zeros_like

_NUMBERS = frozenset((int, float))


class Declared(Protocol):
    """What a declaration gives: a function of tensors, and the primitive that it applies."""

    primitive: Primitive

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...


def flat_slope(g: Tensor) -> Tensor:
    """The gradient of a step: zeros, also where the cotangent is infinite or NaN."""
    return zeros_like(g)


def each(flops: float) -> Callable:
    """The rule of so many flops an element of the output, where there are floating-point numbers."""

    def rule(ins: list, outs: list, params: dict) -> float:
        return flops * outs[0].size if any(a.dtype.kind == "f" for a in (*ins, *outs)) else 0.0

    return rule


def _implementations(
    kernel: Any,
    dtype: Any,
    count: int,
    numpy: Any = None,
    ns: float | None = None,
    least: float | None = None,
    flops: float = 1.0,
    loops: str = "f",
) -> tuple:
    """Those of an elementwise function: its kernel and, unless ``numpy`` is False, NumPy's function."""
    loop = Loop(kernel, 0.3 if ns is None else ns, loops, flops, dtype is not None and dtype.kind == "b")
    if numpy is False:
        return looped(loop)
    function = numpy if callable(numpy) else getattr(np, numpy or kernel.__name__)
    if ns is None and least is None:
        least = inf  # NumPy's loop is as fast
    if count == 1:
        return with_kernel(loop, lambda ins, outs: function(ins[0], outs[0]), least)
    return pairwise(loop, lambda ins, outs: function(ins[0], ins[1], out=outs[0]), least)


def unary(
    name: str,
    kernel: Any,
    d: Callable | None,
    doc: str,
    keeps: str = "i",
    to_float: bool = True,
    dtype: Any = None,
    kinds: str = "biuf",
    *,
    recorded: str = "",
    inplace: bool = True,
    method: bool = True,
    **how: Any,
) -> Declared:
    """Declare an elementwise function of one input: this is all that it takes.

    kernel: made of its scalar function by ``loop1``. d: ``d(g, x, o)`` is its vjp. keeps: whose numbers that reads.
    to_float: integers become floats first. dtype: of the output, where it is not the input's. kinds: NumPy kinds taken.
    recorded: see ``Primitive``.
    how: numpy: NumPy's name for it where that is another, a function ``(x, out)``, or False for none; ns: nanoseconds of an
    element by the kernel, which runs from ``least`` elements on, by default where a second thread helps, and where there is
    no ``ns`` only if it is preferred; loops: the kinds that the kernel computes in ("f"); flops of an element (1).
    method: whether it is a tensor method and a function of ``funcnn``; inplace: whether with a trailing underscore, too.
    """

    def shape(x: Any) -> tuple:
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name}: not defined for {x.dtype}")
        return (x if dtype is None else Aval(x.shape, dtype),)

    prim = Primitive(
        name,
        shape,
        cpu=_implementations(kernel, dtype, 1, **how),
        vjp=None if d is None else lambda g, ins, o: (d(g, ins[0], o),),
        batch=lambda n, ins, batched: prim(ins[0]),
        keeps=keeps,
        flops=each(how.get("flops", 1.0)),
        scalar=kernel.scalar,
        recorded=recorded,
    )

    def function(input: Any) -> Tensor:
        x = input if isinstance(input, Tensor) else operand(name, input)
        return prim(floating(x) if to_float else x)

    return _named(function, name, doc, prim, inplace, method)


def binary(
    name: str,
    kernel: Any,
    dx: Callable | None,
    dy: Callable | None,
    doc: str,
    keeps: str = "i",
    to_float: bool = False,
    dtype: Any = None,
    kinds: str = "biuf",
    looks: tuple = (),
    refuse: Callable | None = None,
    takes_bools: bool = True,
    *,
    inplace: bool = True,
    method: bool = True,
    **how: Any,
) -> Declared:
    """Declare an elementwise function of two broadcast inputs; ``dx(g, x, y, o)`` and ``dy`` before summing over axes.

    kernel: made of its scalar function by ``loop2``. takes_bools: whether one input may be bool where the other is not. NumPy's
    function is ``(x, y, out)``. The others: see ``unary``.
    """

    prim = Primitive(
        name,
        _broadcast_shape(name, kinds, dtype),
        cpu=_implementations(kernel, dtype, 2, **how),
        vjp=None if dx is None or dy is None else _broadcast_vjp(dx, dy),
        batch=lambda n, ins, batched: prim(*aligned(ins, batched)),
        keeps=keeps,
        looks=looks,
        refuse=refuse,
        flops=each(how.get("flops", 1.0)),
        scalar=kernel.scalar,
    )

    function = _of_two(name, prim, to_float, takes_bools)
    return _named(function, name, doc, prim, inplace, method)


def _of_two(name: str, prim: Primitive, to_float: bool, takes_bools: bool) -> Callable:
    def function(input: Any, other: Any) -> Tensor:
        if isinstance(input, Tensor) and isinstance(other, Tensor):
            dtype = input._v.dtype
            if dtype is other._v.dtype and (not to_float or dtype.kind == "f"):
                return prim(input, other)
        elif type(other) in _NUMBERS and isinstance(input, Tensor) and holds(input, other):
            return prim(input, number_like(input, other))
        elif type(input) in _NUMBERS and isinstance(other, Tensor) and holds(other, input):
            return prim(number_like(other, input), other)
        if not takes_bools and any(_is_bool(t) for t in (input, other)):
            raise DTypeError(f"{name}: not defined for bool; use logical_not() for ~, or convert with .long()")
        return prim(*promoted(name, input, other, to_float=to_float))

    return function


def _is_bool(t: Any) -> bool:
    return isinstance(t, bool) or (isinstance(t, (Tensor, np.ndarray)) and t.dtype.kind == "b")


def holds(t: Tensor, number: float) -> bool:
    """Whether a number simply takes a tensor's dtype: the common case, kept apart from promotion for speed."""
    value = t._v
    return value.dtype.kind == "f" and -6e4 < number < 6e4 and not (isinstance(value, Tracer) and value.weak)


def _broadcast_shape(name: str, kinds: str, dtype: Any) -> Callable:
    def shape(x: Any, y: Any) -> tuple:
        if x.dtype is not y.dtype:
            require_same_dtype(name, x, y)
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name}: not defined for {x.dtype}")
        left, right = x.shape, y.shape
        if left == right or not right or not left:
            like = x if left else y
            return (like,) if dtype is None else (Aval(like.shape, dtype),)
        return (Aval(broadcast(name, tuple(left), tuple(right)), dtype or x.dtype),)

    return shape


def _broadcast_vjp(dx: Callable, dy: Callable) -> Callable:
    def vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
        x, y = ins
        return lambda: unbroadcast(dx(g, x, y, o), x._v.shape), lambda: unbroadcast(dy(g, x, y, o), y._v.shape)

    return vjp


def _named(function: Callable, name: str, doc: str, prim: Primitive, inplace: bool, method: bool) -> Declared:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    made = cast(Declared, function)
    made.primitive = prim
    if method:
        note(name, made, inplace)
    return made


def zero(*_: Any) -> None:
    """The derivative of a piecewise constant function: no cotangent at all."""
