"""Elementwise kernels as implementations of primitives."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Implementation
from funcnn.kernels.cpu import broadcast
from funcnn.kernels.cpu import elementwise as kernels
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import WORTHWHILE, workers

RUN = 16  # numbers at least that meet one number, or a whole vector, where shapes differ
FEW, SELECT_NS = 1 << 13, 0.15  # elements from which a kernel chooses, nanoseconds an element
BLOCK = kernels.CHUNK  # one such block of equal numbers stands for an array of them


def flat(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """All elements in a row; where all are one number, as in the gradient of a sum, a block of them that is read again.

    Raises ``ShapeError`` or ``DTypeError`` where the array is neither like ``out`` nor a lone number of its dtype.
    """
    size = out.size
    if x.size == size and (size <= BLOCK or any(x.strides)):
        return whole(x, out)
    if (x.size != 1 and x.size != size) or x.dtype != out.dtype:
        raise _differs(x, out)
    return np.full(min(size, BLOCK), x[(0,) * x.ndim])


def whole(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """All elements in a row. Raises ``ShapeError`` or ``DTypeError`` where there are not as many as in ``out``."""
    if x.size != out.size or (x.dtype is not out.dtype and x.dtype != out.dtype):
        raise _differs(x, out)
    return x.ravel()


def _differs(x: np.ndarray, out: np.ndarray) -> Exception:
    return (DTypeError if x.size in (1, out.size) else ShapeError)(
        f"elementwise kernel: an input of {x.dtype}{x.shape} for an output of {out.dtype}{out.shape}; expected the output's "
        "shape, or a lone number, and its dtype: convert or expand the input"
    )


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
        flats = [whole(ins[0], out)] if len(ins) == 1 else [flat(x, out) for x in ins]
        kernel(*flats, out.reshape(-1), tuple(params.values()), workers(out.size * cost))

    return run


def large(least: float) -> Callable:
    """The condition that a kernel pays: at least so many elements, in single or double precision."""

    def when(ins: list, **params: Any) -> bool:
        x = ins[0]
        return x.size >= least and x.dtype.kind == "f" and x.dtype.itemsize >= 4

    return when


def _alike(x: np.ndarray, y: np.ndarray) -> bool:
    """Two arrays of one shape, or a lone number beside an array; contiguous."""
    fits = x.shape == y.shape or x.ndim == 0 or y.ndim == 0
    return fits and x.flags.c_contiguous and y.flags.c_contiguous


@lru_cache(4096)
def along(shape: tuple[int, ...], vector: tuple[int, ...]) -> int:
    """How many numbers of an array meet each of a vector that lies along some neighbouring axes of it; 0: not so."""
    spread = (1,) * (len(shape) - len(vector)) + vector
    axes = [axis for axis, size in enumerate(spread) if size > 1]
    if not axes or len(vector) > len(shape) or spread[axes[0] : axes[-1] + 1] != shape[axes[0] : axes[-1] + 1]:
        return 0
    inner = prod(shape[axes[-1] + 1 :])
    return inner if max(inner, prod(vector)) >= RUN and (inner == 1 or inner >= RUN) else 0


def _striped(x: np.ndarray, y: np.ndarray) -> bool:
    return x.flags.c_contiguous and along(x.shape, y.shape) > 0


def pairwise(name: str, cost: float = 0.08, numpy: str = "", least: float | None = None) -> tuple[Implementation, ...]:
    """Implementations of a function of two inputs: for large ones its kernels, else NumPy's function.

    There is one for inputs that are alike and may be one for an array and a vector along its axes, or the two exchanged.
    """
    plain, least = getattr(np, numpy or name), WORTHWHILE / cost if least is None else least
    loop, strip = looped(getattr(kernels, name), cost), getattr(broadcast, name + "_strip", None)
    commutes = name in ("add", "mul")

    def run(ins: list, outs: list) -> None:
        x, y = ins
        if _alike(x, y):
            loop(ins, outs)
            return
        x, y = (x, y) if _striped(x, y) else (y, x)
        inner, work = along(x.shape, y.shape), workers(x.size * cost)
        if x.size != outs[0].size:
            raise _differs(x, outs[0])
        strip(x.reshape(-1), np.ascontiguousarray(y).reshape(-1), outs[0].reshape(-1), inner, work)

    def when(ins: list) -> bool:
        x, y = ins
        if (x.size < least and y.size < least) or x.dtype.char not in "fd":
            return False
        return _alike(x, y) or (strip is not None and (_striped(x, y) or (commutes and _striped(y, x))))

    return Implementation(run, when), Implementation(lambda ins, outs: plain(ins[0], ins[1], out=outs[0]))


def _select(ins: list, outs: list) -> None:
    mask, out = ins[0].reshape(-1).view(np.uint8), outs[0].reshape(-1)
    if mask.size != out.size:
        raise ShapeError(f"where: a condition of {ins[0].shape} for an output of {outs[0].shape}; expand the condition")
    broadcast.select(mask, flat(ins[1], out), flat(ins[2], out), out, workers(out.size * SELECT_NS))


def _selects(ins: list) -> bool:
    mask, x, y = ins
    if mask.size < FEW or x.dtype.char not in "fd" or not mask.flags.c_contiguous:
        return False
    return all(t.ndim == 0 or t.shape == mask.shape for t in (x, y))


selects = Implementation(_select, _selects)  # of ``where``, for a mask of the output's shape


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
