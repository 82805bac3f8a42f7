"""Elementwise kernels as implementations of primitives, and activations whose forward and gradient are one loop each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.memory import empty
from funcnn.core.primitive import Implementation, Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import elementwise as kernels
from funcnn.kernels.cpu.threads import WORTHWHILE, workers
from funcnn.ops.common import all_batched

BLOCK = 1 << 14  # the chunk of the kernels: one such block of equal numbers stands for an array of them


def flat(x: np.ndarray, size: int) -> np.ndarray:
    """All elements in a row; where all are one number, as in the gradient of a sum, a block of them that is read again."""
    if size > BLOCK and (x.size == 1 or not any(x.strides)):
        return np.full(BLOCK, x[(0,) * x.ndim])
    return np.ascontiguousarray(x).reshape(-1)


def looped(kernel: Any, cost: float) -> Callable:
    """The implementation ``run(ins, outs, **params)`` by an elementwise kernel of ``cost`` nanoseconds an element.

    Half precision goes through float32. A lone input whose numbers are all equal is written out.
    """

    def run(ins: list, outs: list, **params: Any) -> None:
        out = outs[0]
        if out.dtype == dtypes.float16:
            wide = empty(out.shape, dtypes.float32)
            run([x.astype(np.float32) for x in ins], [wide], **params)
            out[...] = wide
            return
        flats = [np.ascontiguousarray(ins[0]).reshape(-1)] if len(ins) == 1 else [flat(x, out.size) for x in ins]
        kernel(*flats, out.reshape(-1), tuple(params.values()), workers(out.size * cost))

    return run


def large(least: float) -> Callable:
    """The condition that a kernel pays: at least so many elements, in single or double precision."""

    def when(ins: list, **params: Any) -> bool:
        x = ins[0]
        return x.size >= least and x.dtype.kind == "f" and x.dtype.itemsize >= 4

    return when


def alike(least: float) -> Callable:
    """``large`` for two inputs of one shape, or a lone number beside one of them; both contiguous."""

    def when(ins: list) -> bool:
        x, y = ins
        if (x.size < least and y.size < least) or x.dtype.kind != "f" or x.dtype.itemsize < 4:
            return False
        fits = x.shape == y.shape or x.ndim == 0 or y.ndim == 0
        return fits and x.flags.c_contiguous and y.flags.c_contiguous

    return when


def pairwise(
    kernel: Any, plain: Callable, cost: float = 0.08, least: float | None = None
) -> tuple[Implementation, ...]:
    """Implementations of a function of two inputs: the kernel for large alike ones, NumPy's ``plain`` for the others."""
    return (
        Implementation(looped(kernel, cost), alike(WORTHWHILE / cost if least is None else least)),
        Implementation(lambda ins, outs: plain(ins[0], ins[1], out=outs[0])),
    )


def with_kernel(kernel: Any, cost: float, plain: Callable, least: float | None = None) -> tuple[Implementation, ...]:
    """Implementations: the kernel for large inputs (by default where a second thread helps), NumPy for the others."""
    return (
        Implementation(looped(kernel, cost), large(WORTHWHILE / cost if least is None else least)),
        Implementation(plain),
    )


def fast(name: str, cost: float, numpy: str = "", least: float | None = None) -> tuple[Implementation, ...]:
    """Implementations of an elementwise function: its kernel for large inputs, NumPy's function for the others."""
    function = getattr(np, numpy or name)
    return with_kernel(getattr(kernels, name), cost, lambda ins, outs: function(ins[0], outs[0]), least)


def gradient(name: str, cpu: Any, curve: Callable, keeps: str = "i") -> Primitive:
    """The primitive ``g f'(k)`` of a cotangent g and what it is a function of, k: an input or an output.

    curve: ``curve(k, **params)``, the derivative of f' in terms of operations, or None where it is 0.
    """

    def shape(g: Any, k: Any, **params: Any) -> tuple:
        if tuple(g.shape) != tuple(k.shape) or g.dtype != k.dtype:
            raise ShapeError(
                f"{name}: expected a cotangent like the value, {k.dtype}{tuple(k.shape)}, got {g.dtype}{tuple(g.shape)}"
            )
        return (k,)

    def vjp(c: Tensor, ins: list, o: Tensor, **params: Any) -> tuple:
        from funcnn.ops.elementwise import mul

        g, k = ins
        return lambda: prim(c, k, **params), lambda: mul(mul(c, g), curve(k, **params))

    prim = Primitive(
        name,
        shape,
        cpu=cpu,
        vjp=vjp,
        batch=lambda n, ins, batched, **params: prim(*all_batched(n, ins, batched), **params),
    )
    return prim


def activation(name: str, kernel: Any, grad_kernel: Any, cost: float, curve: Callable) -> Primitive:
    """A primitive of one floating-point input and number parameters, with one loop forward and one backward."""
    grad = gradient(name + "_grad", looped(grad_kernel, 1.4 * cost), curve)

    def shape(x: Any, **params: Any) -> tuple:
        if x.dtype.kind != "f":
            raise DTypeError(f"{name}: expected a floating-point input, got {x.dtype}; convert with .float()")
        return (x,)

    prim = Primitive(
        name,
        shape,
        cpu=looped(kernel, cost),
        vjp=lambda g, ins, o, **params: (grad(g, ins[0], **params),),
        batch=lambda n, ins, batched, **params: prim(ins[0], **params),
    )
    return prim
