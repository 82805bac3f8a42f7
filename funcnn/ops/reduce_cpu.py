"""How large reductions run on the CPU: by the kernels of ``reduce``, on the array as it lies in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.kernels.cpu import reduce as kernels
from funcnn.kernels.cpu import reduce_back
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.threads import workers
from funcnn.kernels.implementation import UNPLANNED, Implementation, host

LARGE = 1 << 11  # numbers; below, NumPy's call costs less
FEW = 32  # numbers for one result that do not lie side by side: NumPy adds whole rows of results then
COST = 0.05  # nanoseconds a number
DOUBLE = np.dtype(np.float64)
SPREAD = 1 << 16  # numbers; below, NumPy writes out a repeated array
UNREAD = np.empty(1)  # in place of an array that a kernel does not read


@lru_cache(4096)
def layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray | None:
    """The kernels' plan for a contiguous array; None where they do not pay, or reduced axes alternate with others too often."""
    groups: list[list[int]] = []  # sizes of neighbours that are alike, and whether they are reduced
    for axis, size in enumerate(shape):
        if size > 1:
            reduced = axis in axes
            if groups and groups[-1][1] == reduced:
                groups[-1][0] *= size
            else:
                groups.append([size, reduced])
    if not groups or not any(reduced for _, reduced in groups):
        return None
    sizes = [size for size, _ in groups] + [1] * groups[-1][1]
    if len(sizes) > 4:
        return None
    a, b, c, d = [1] * (4 - len(sizes)) + sizes
    return None if d > 1 and a == 1 and c * d < FEW else kernels.plan(a, b, c, d)


def pays(ins: Any, axes: tuple, **params: Any) -> bool:
    """Whether a kernel reduces the first input: floating-point numbers, many, in one of the kernels' layouts."""
    x = ins[0]
    if x.size < LARGE or x.dtype.char not in "fd":
        return False
    if not x.contiguous:
        x, axes, _ = _as_it_lies(x, axes)
    return layout(x.shape, axes) is not None


def _as_it_lies(x: Any, axes: tuple) -> tuple[Any, tuple, list]:
    """x with its axes in the order of memory, where the reduced ones are then, and the order of the others."""
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    where = [axis for axis in order if axis not in axes]
    return (
        (x.transpose(order) if isinstance(x, np.ndarray) else x.permuted(tuple(order))),
        tuple(order.index(axis) for axis in axes),
        where,
    )


def flat(x: np.ndarray) -> np.ndarray:
    """All numbers in a row, in memory that may be written: for read-only arrays kernels would be compiled anew."""
    row = x.ravel()
    return row if row.flags.writeable else row.copy()


def reduce_into(
    kernel: Any, x: np.ndarray, axes: tuple, out: np.ndarray, how: float = 1.0, centre: Any = UNREAD
) -> None:
    """out = x reduced over ``axes``. centre: one number for each of ``out``, flat."""
    if not x.flags.c_contiguous:
        x, axes, where = _as_it_lies(x, axes)
        if where != sorted(where):
            lying = fresh([x.shape[k] for k in range(x.ndim) if k not in axes], out.dtype)
            back = np.argsort(where)
            middle = centre if centre is UNREAD else centre.reshape(out.shape).transpose(np.argsort(back)).ravel()
            reduce_into(kernel, np.ascontiguousarray(x), axes, lying, how, middle)
            out[...] = lying.transpose(back)
            return
    plan = layout(x.shape, axes)
    assert plan is not None, "pays() says for which arrays there is a plan"
    blocks = int(plan[kernels.BLOCKS])
    partial = empty((blocks * out.size,), DOUBLE) if blocks > 1 else UNREAD
    kernel(flat(x), centre, how, partial, out.reshape(-1), plan, workers(x.size * COST))


def by_kernel(kernel: Any, how: float = 1.0, mean: bool = False) -> Implementation:
    """The implementation of a reduction by a kernel. how: what the kernel makes of it; for a mean it is the count."""

    def run(ins: list, outs: list, axes: tuple) -> None:
        x, out = ins[0], outs[0]
        reduce_into(kernel, x, axes, out, x.size / out.size if mean else how)

    return host("kernel", run, UNPLANNED, pays)


def sum_of_squares(ins: list, outs: list, axes: tuple) -> None:
    """The sum of squares, added up in float64."""
    total = fresh(outs[0].shape, DOUBLE)
    reduce_into(kernels.deviations, ins[0], axes, total, 1.0, np.zeros(total.size))
    np.copyto(outs[0], total, "same_kind")


def moments(ins: list, outs: list, axes: tuple, freedom: float) -> None:
    """The squared deviations over ``freedom`` and the mean, both summed in float64: two passes over the array."""
    x, (variance, mean) = ins[0], outs
    total = fresh(mean.shape, DOUBLE)
    reduce_into(kernels.deviations, x, axes, total, 0.0, np.zeros(mean.size))
    total /= x.size // mean.size
    mean[...] = total
    squares = fresh(mean.shape, DOUBLE)
    reduce_into(kernels.deviations, x, axes, squares, 1.0, total.reshape(-1))
    np.divide(squares, freedom, out=variance, casting="same_kind")


def plain_moments(ins: list, outs: list, axes: tuple, freedom: float) -> None:
    """The same by NumPy."""
    x, (variance, mean) = ins[0].astype(np.float64), outs
    total = np.add.reduce(x, axes, keepdims=True)
    total /= x.size // max(total.size, 1)
    mean[...] = total.reshape(mean.shape)
    x -= total
    np.divide(np.add.reduce(np.square(x, x), axes), freedom, out=variance, casting="same_kind")


# ---- the way back -------------------------------------------------------------------------------------------------------
def is_spread(ins: Any) -> bool:
    """Whether the input is a contiguous array repeated over some axes, large enough for ``spread``."""
    x = ins[0]
    if x.contiguous or x.size < SPREAD or x.dtype.char not in "fd":
        return False
    plan = layout(x.shape, x.repeated)
    return plan is not None and max(plan[2], plan[3]) >= FEW and x.without(x.repeated).contiguous


def _repeated(x: np.ndarray) -> tuple[int, ...]:
    return tuple(axis for axis in range(x.ndim) if x.strides[axis] == 0 and x.shape[axis] > 1)


def _once(x: np.ndarray, axes: tuple) -> np.ndarray:
    return x[tuple(0 if axis in axes else slice(None) for axis in range(x.ndim))]


def spread(ins: list, outs: list) -> None:
    """Write out an array that is repeated over some axes, as the gradient of a sum is."""
    x, axes = ins[0], _repeated(ins[0])
    reduce_back.spread_over(flat(_once(x, axes)), outs[0].reshape(-1), layout(x.shape, axes), workers(x.size * 0.1))


def _spoil(top: np.ndarray, out: np.ndarray, axes: tuple, spoilt: bool) -> None:
    """NaN wherever the extremum is NaN, if that is asked for."""
    if spoilt and (lost := top != top).any():
        np.copyto(out, np.nan, where=np.expand_dims(lost, axes))


def spread_extremum(ins: list, outs: list, axes: tuple, spoilt: bool) -> None:
    """The gradient of an extremum by the kernel."""
    g, x, top = ins
    plan = layout(x.shape, axes)
    reduce_back.spread_extremum(flat(x), flat(top), flat(g), outs[0].reshape(-1), plan, workers(x.size * 0.15))
    _spoil(top, outs[0], axes, spoilt)


def plain_extremum(ins: list, outs: list, axes: tuple, spoilt: bool) -> None:
    """The same by NumPy."""
    g, x, top = ins
    tells = (x == np.expand_dims(top, axes)) | (x != x)
    count = np.add.reduce(tells, axes, np.float64, keepdims=True)
    np.multiply(tells, (np.expand_dims(g, axes) / count).astype(x.dtype), out=outs[0])
    _spoil(top, outs[0], axes, spoilt)


_BLOCK = 256  # rows added one after another; the rounding error grows with it, the number of partial sums shrinks


def blocked_sum(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    """Add up in blocks along a strided axis: NumPy adds pairwise only along contiguous memory, one by one elsewhere."""
    if x.size <= 2 * _BLOCK and x.dtype != np.float16:
        np.add.reduce(x, axes, out=out)
        return
    if x.dtype == np.float16:  # its running sums would stop growing at 2048
        out[...] = np.sum(x, axis=axes, dtype=np.float32)
        return
    axis = max(axes, key=x.shape.__getitem__, default=None)
    if axis is not None and x.dtype == np.float32 and x.shape[axis] > 2 * _BLOCK and x.strides[axis] != x.itemsize:
        blocks = x.shape[axis] // _BLOCK
        head, tail = np.split(x, [blocks * _BLOCK], axis)
        parts = head.reshape(*x.shape[:axis], blocks, _BLOCK, *x.shape[axis + 1 :]).sum(axis + 1)
        blocked_sum(np.concatenate([parts, tail.sum(axis, keepdims=True)], axis), axes, out)
        return
    np.add.reduce(x, axes, out=out)
