"""How large reductions run on the CPU: by the kernels of ``reduce``, on the array as it lies in memory."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.reduce import argument as places
from funcnn.kernels.cpu.reduce import runs as kernels
from funcnn.kernels.cpu.reduce import spread as reduce_back
from funcnn.kernels.cpu.threads.number import workers
from funcnn.kernels.implementation import NUMPY, UNPLANNED, Implementation, host

LARGE = 1 << 11  # numbers; below, NumPy's call costs less
FEW = 32  # numbers for one result that do not lie side by side: NumPy adds whole rows of results then
COST = 0.05  # nanoseconds a byte, which comes from beyond a core's own cache
EACH = 4.0  # nanoseconds a result of contiguous numbers
ARGUMENT_COST, ARGUMENT_EACH = 0.2, 8.0  # the same of a number, and of a result, where the place of one is looked for
DOUBLE = np.dtype(np.float64)
SPREAD = 1 << 16  # numbers; below, NumPy writes out a repeated array
UNREAD = np.empty(1)  # in place of an array that a kernel does not read


@lru_cache(4096)
def layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray | None:
    """The kernels' plan for a contiguous array; None where nothing is reduced, or reduced axes are too often among others."""
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
    return kernels.plan(a, b, c, d)


@lru_cache(4096)
def _plan(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray | None:
    """The plan, where the kernels pay."""
    plan = layout(shape, axes)
    return None if plan is None or (plan[3] > 1 and plan[0] == 1 and plan[2] * plan[3] < FEW) else plan


def pays(ins: Any, axes: tuple, **params: Any) -> bool:
    """Whether a kernel reduces the first input: floating-point numbers, many, in one of the kernels' layouts."""
    x = ins[0]
    if x.size < LARGE or x.dtype.char not in "fd":
        return False
    if not x.contiguous:
        x, axes, _ = _as_it_lies(x, axes)
    return _plan(x.shape, axes) is not None


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
    work = x.nbytes * COST + (EACH * out.size if plan[3] == 1 else 0.0)
    kernel(flat(x), centre, how, partial, out.reshape(-1), plan, workers(work))


@lru_cache(4096)
def last_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The last of the axes that have several numbers, and those just before it; all where one step reduces them, or none."""
    end = max((axis for axis in axes if shape[axis] > 1), default=-1)
    start = end
    while start > 0 and (start - 1 in axes or shape[start - 1] == 1):
        start -= 1
    return tuple(axis for axis in axes if start <= axis <= end)


def pays_in_steps(ins: Any, axes: tuple) -> bool:
    """Whether kernels reduce a contiguous array by one group of neighbouring axes after another, where they cannot at once."""
    x = ins[0]
    if x.size < LARGE or x.dtype.char not in "fd" or not x.contiguous:
        return False
    last = last_axes(x.shape, axes)
    return len(last) < len(axes) and _plan(x.shape, last) is not None


def step(kernel: Any, x: np.ndarray, axes: tuple, how: float, dtype: Any, centre: Any = UNREAD) -> tuple:
    """x reduced over the last of the axes, and where the others are then."""
    last = last_axes(x.shape, axes)
    left = [axis for axis in range(x.ndim) if axis not in last]
    out = empty(tuple(x.shape[axis] for axis in left), dtype)
    reduce_into(kernel, x, last, out, how, np.zeros(out.size) if centre is None else centre)
    return out, tuple(left.index(axis) for axis in axes if axis not in last)


def by_kernel(kernel: Any, how: float = 1.0, mean: bool = False, wide: bool = True) -> tuple[Implementation, ...]:
    """The implementations of a reduction by a kernel. how: what the kernel makes of it; for a mean it is the count.

    wide: groups of axes that are reduced one after another are joined in float64.
    """

    def run(ins: list, outs: list, axes: tuple) -> None:
        x, out = ins[0], outs[0]
        reduce_into(kernel, x, axes, out, x.size / out.size if mean else how)

    def in_steps(ins: list, outs: list, axes: tuple) -> None:
        x, out = ins[0], outs[0]
        last = x.size / out.size if mean else how
        while layout(x.shape, axes) is None:
            x, axes = step(kernel, x, axes, how, DOUBLE if wide else x.dtype)
        reduce_into(kernel, x, axes, out, last)

    return host("kernel", run, UNPLANNED, pays), host("kernel in steps", in_steps, UNPLANNED, pays_in_steps)


def squares_in_steps(ins: list, outs: list, axes: tuple) -> None:
    """The sum of squares over axes that the kernel cannot take at once."""
    x, axes = step(kernels.deviations, ins[0], axes, 1.0, DOUBLE, None)
    while layout(x.shape, axes) is None:
        x, axes = step(kernels.sums, x, axes, 1.0, DOUBLE)
    total = fresh(outs[0].shape, DOUBLE)
    reduce_into(kernels.sums, x, axes, total)
    np.copyto(outs[0], total, "same_kind")


def sum_of_squares(ins: list, outs: list, axes: tuple) -> None:
    """The sum of squares, added up in float64."""
    total = fresh(outs[0].shape, DOUBLE)
    reduce_into(kernels.deviations, ins[0], axes, total, 1.0, np.zeros(total.size))
    np.copyto(outs[0], total, "same_kind")


SQUARES = (
    host("kernel", sum_of_squares, UNPLANNED, pays),
    host("kernel in steps", squares_in_steps, UNPLANNED, pays_in_steps),
)


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


def argument(sign: float) -> Implementation:
    """The implementation of where the largest is, or with -1 the smallest, along one axis of many contiguous numbers."""

    def run(ins: list, outs: list, axes: tuple) -> None:
        x, out = ins[0], outs[0]
        inner = prod(x.shape[axes[0] + 1 :])
        work = workers(x.size * ARGUMENT_COST + (ARGUMENT_EACH * out.size if inner == 1 else 0.0))
        places.argument(flat(x), out.reshape(-1), x.shape[axes[0]], inner, sign, work)

    def when(ins: Any, axes: tuple) -> bool:
        return ins[0].size >= LARGE and ins[0].dtype.char in "fd" and ins[0].contiguous

    return host("kernel", run, UNPLANNED, when)


# ---- the way back -------------------------------------------------------------------------------------------------------
def is_spread(ins: Any) -> bool:
    """Whether the input is a contiguous array repeated over some axes, large enough for ``spread``."""
    x = ins[0]
    if x.contiguous or x.size < SPREAD or x.dtype.char not in "fd":
        return False
    return layout(x.shape, x.repeated) is not None and x.without(x.repeated).contiguous


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
    reduce_back.spread_extremum(
        flat(x), flat(top), flat(g), outs[0].reshape(-1), plan, workers(x.size * 0.15 + top.size * 10.0)
    )
    _spoil(top, outs[0], axes, spoilt)


def plain_extremum(ins: list, outs: list, axes: tuple, spoilt: bool) -> None:
    """The same by NumPy."""
    g, x, top = ins
    tells = (x == np.expand_dims(top, axes)) | (x != x)
    count = np.add.reduce(tells, axes, np.float64, keepdims=True)
    np.multiply(tells, (np.expand_dims(g, axes) / count).astype(x.dtype), out=outs[0])
    _spoil(top, outs[0], axes, spoilt)


EXTREMUM_GRAD = (
    host("kernel", spread_extremum, UNPLANNED, lambda ins, axes, spoilt: ins[1].contiguous and pays(ins[1:], axes)),
    host("numpy", plain_extremum, NUMPY),
)


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
