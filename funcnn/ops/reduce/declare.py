"""How reductions are declared: their kernel, derivative, dtype rule, empty axes, cost and method in one entry.

In a derivative ``g`` is the cotangent, ``x`` the input, ``o`` the output, ``axes`` what was reduced. One line of
``kernels/cpu/reduce/functions.py`` makes the kernel of three scalar functions, for every layout; a declaration here makes the
primitive with its rules, its implementations, the function of ``funcnn`` and the tensor method.

What reduces, but is no such declaration: where something is (argmax, argmin, median: an index has no ``join`` of two elements);
the running ones (``scan.py``), whose outputs are as many as their inputs; logsumexp and var, which need a first reduction (the
maximum, the mean) before ``value`` is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from funcnn.core import dtypes
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.base.declare import Declared
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import all_if_empty, reduction_primitive
from funcnn.ops.base.registry import note
from funcnn.ops.base.structure import cast as cast_to
from funcnn.ops.base.structure import reduce

AS_IT_IS, WIDE, FLOAT = "as it is", "wide", "float"  # what becomes of the input's dtype


def reduction(
    name: str,
    kernel: Any,
    d: Callable | None,
    doc: str,
    keeps: str = "",
    takes: str = AS_IT_IS,
    *,
    numpy: Callable | None = None,
    primitive: Primitive | None = None,
    no_dims_are_all: bool = True,
    casts: bool = False,
    keepdims: bool = True,
    half: bool = True,
    method: bool = True,
    **how: Any,
) -> Declared:
    """Declares a reduction over dimensions: this is all that it takes.

    kernel: made of its scalar functions by ``kernels.cpu.reduce.runs.reduction``. d: ``d(g, x, o, axes)`` is its vjp. keeps:
    whose elements that reads. takes: AS_IT_IS; WIDE: bools and integers become int64; FLOAT: others raise ``DTypeError``.
    numpy: ``(array, axes, out)`` for few elements and for dtypes that the kernel does not compute in. primitive: one that is
    declared already, in place of those. no_dims_are_all: whether an empty list of dimensions means all of them, as in
    PyTorch's sums. casts: whether there is a keyword ``dtype``; keepdims: whether there is ``keepdim``. half: whether half
    precision is reduced as it is, not in float32. method: whether it is a tensor method and a function of ``funcnn``.
    how: see ``reduction_primitive``.
    """
    if primitive is None:
        assert numpy is not None, f"{name}: a kernel computes floating-point numbers only"
        primitive = reduction_primitive(name, kernel, d, keeps, numpy, **how)
    function = _function(_applied(name, primitive, takes, no_dims_are_all, half), casts, keepdims)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    made = cast(Declared, function)
    made.primitive = primitive
    if method:
        note(name, made, inplace=False)
    return made


def _applied(name: str, prim: Primitive, takes: str, no_dims_are_all: bool, half: bool) -> Callable:
    """Returns ``f(input, dim, keepdim, dtype)``."""

    def applied(input: Any, dim: Any, keepdim: bool, dtype: Any = None) -> Tensor:
        x = input if isinstance(input, Tensor) else to_tensor(input)
        if dtype is not None:
            x = cast_to(x, dtypes.as_dtype(dtype))
        elif takes is WIDE and x._v.dtype.kind != "f":
            x = cast_to(x, dtypes.int64)
        if takes is FLOAT:
            require_floating(name, x)
        if no_dims_are_all and type(dim) is not int:
            dim = all_if_empty(dim)
        if not half and x._v.dtype == dtypes.float16:
            return cast_to(reduce(prim, cast_to(x, dtypes.float32), dim, keepdim), dtypes.float16)
        return reduce(prim, x, dim, keepdim)

    return applied


def _function(applied: Callable, casts: bool, keepdims: bool) -> Callable:
    """Returns the public function, with the arguments that it takes in PyTorch."""
    if casts:

        def with_dtype(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
            return applied(input, dim, keepdim, dtype)

        return with_dtype
    if keepdims:

        def plain(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
            return applied(input, dim, keepdim)

        return plain

    def dropping(input: Any, dim: Any = None) -> Tensor:
        return applied(input, dim, False)

    return dropping
