"""How reductions run on the CPU: by the kernels of ``functions.py``, on the array as it is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement.regions import laid_out
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.runs import BLOCKS, B, D, cuts_of
from funcnn.kernels.implementation import CONTIGUOUS, REAL, Implementation, Operand, host
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    Access,
    Array,
    Constant,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Workers,
)
from funcnn.kernels.plan_parts import Parts

ELEMENTS_FOR_KERNEL = 1 << 11  # below, NumPy's call costs less
STRIDED_ELEMENTS_FOR_KERNEL = 32  # of one result, where they are not contiguous: NumPy adds whole rows of results then
BYTE_NS = 0.05  # nanoseconds of a byte, which comes from beyond a core's own cache
RESULT_NS = 4.0  # nanoseconds of a result of contiguous elements, beside those of its bytes
DOUBLE = "float64"
FEW_OR_OTHER = "NumPy reduces few elements as fast; integers, half precision and no elements at all have no kernel"
UNREAD = Constant(np.zeros(1))  # stands for an array that a kernel does not touch
Operands = tuple[Operand, ...]
DType = np.dtype | Callable[[np.dtype], np.dtype] | None


def result_dtype(dtype: DType, given: np.dtype) -> np.dtype:
    """Returns the dtype of a result for an input of dtype ``given``: the same by default."""
    if dtype is None:
        return given
    return dtype(given) if callable(dtype) else dtype


# ---- layouts ----------------------------------------------------------------------------------------------------------
@lru_cache(4096)
def layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray | None:
    """Returns the kernels' cuts of a contiguous array that is not empty; None where reduced axes alternate too often with others."""
    groups: list[list[int]] = []  # sizes of neighbours that are alike, and whether they are reduced
    for axis, size in enumerate(shape):
        if size > 1:
            reduced = axis in axes
            if groups and groups[-1][1] == reduced:
                groups[-1][0] *= size
            else:
                groups.append([size, reduced])
    if not any(reduced for _, reduced in groups):
        return cuts_of(1, prod(shape), 1, 1)
    sizes = [size for size, _ in groups] + [1] * groups[-1][1]
    if len(sizes) > 4:
        return None
    a, b, c, d = [1] * (4 - len(sizes)) + sizes
    return cuts_of(a, b, c, d)


@lru_cache(4096)
def _pays(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a kernel pays for many elements: several are reduced, and those of one result are contiguous or many."""
    cuts = layout(shape, axes)
    if cuts is None or all(shape[axis] == 1 for axis in axes):
        return False
    a, _, c, d = cuts[:4]
    return not (d > 1 and a == 1 and c * d < STRIDED_ELEMENTS_FOR_KERNEL)


def many(x: Operand) -> bool:
    """Whether x has as many floating-point elements as make a kernel's call pay."""
    return x.size >= ELEMENTS_FOR_KERNEL and x.dtype.char in REAL


def _in_memory(x: Operand, axes: tuple) -> tuple[Operand, tuple, tuple[int, ...]]:
    """Returns x with its axes in the order of memory, which of them are the reduced ones then, and the order."""
    order = tuple(range(x.ndim) if x.contiguous else sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return x.permuted(order), tuple(order.index(axis) for axis in axes), order


def pays(operands: Operands, params: dict[str, Any]) -> bool:
    """Whether one launch reduces the first input, which has many floating-point elements in one of the kernels' layouts."""
    if not many(operands[0]):
        return False
    x, axes, _ = _in_memory(operands[0], params["axes"])
    return _pays(x.shape, axes)


@lru_cache(4096)
def last_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the last of the axes that have several elements and its neighbours before it; all where one step reduces them."""
    end = max((axis for axis in axes if shape[axis] > 1), default=-1)
    start = end
    while start > 0 and (start - 1 in axes or shape[start - 1] == 1):
        start -= 1
    return tuple(axis for axis in axes if start <= axis <= end)


def pays_in_steps(operands: Operands, params: dict[str, Any]) -> bool:
    """Whether kernels reduce the first input at once, or a contiguous one by one group of neighbouring axes after another."""
    x, axes = operands[0], params["axes"]
    if pays(operands, params):
        return True
    last = last_axes(x.shape, axes) if many(x) and x.contiguous else axes
    return len(last) < len(axes) and _pays(x.shape, last)


# ---- plans ------------------------------------------------------------------------------------------------------------
class Steps:
    """Gathers the launches that reduce an array over some axes, as it is in memory, and the scratch between them."""

    def __init__(self, x: Operand, axes: tuple, dtype: DType = None):
        inside, self.axes, order = _in_memory(x, axes)
        self.shape, self.itemsize = inside.shape, x.itemsize
        out = result_dtype(dtype, x.dtype)
        self.kind = "uint8" if out.kind == "b" else out.name  # a bool is a byte in memory
        self.input = CONTIGUOUS if x.contiguous else Access(order=order)
        self.kept = [axis for axis in order if axis not in axes]
        self.size = prod(x.shape[axis] for axis in self.kept)
        self.launches: list[Launch] = []
        self.parts = Parts()
        self.nanoseconds = 0.0

    def reduce(
        self, kernel: Any, source: Array, axes: tuple, param: float, target: Array, centre: Array | None = None
    ) -> None:
        """Launches ``target = source`` reduced over ``axes`` of the shape at hand. centre: a float64 for each of the target."""
        cuts = layout(self.shape, axes)
        assert cuts is not None, "last_axes() and possible() say over which axes there is a plan"
        size, blocks = int(cuts[B] * cuts[D]), int(cuts[BLOCKS])
        partial = self.parts.room(DOUBLE, blocks * size if blocks > 1 else 1)
        centre = self.parts.constant(UNREAD) if centre is None else centre
        work = prod(self.shape) * self.itemsize * BYTE_NS + (RESULT_NS * size if cuts[D] == 1 else 0.0)
        args = (source, centre, param, partial, target, self.parts.constant(cuts), Workers(work))
        self.launches.append(Launch(kernel, args))
        self.nanoseconds += work

    def step(self, kernel: Any, source: Array, param: float, kind: str) -> Array:
        """Returns scratch with the source reduced over the last of the axes; the others are left."""
        last = last_axes(self.shape, self.axes)
        left = [axis for axis in range(len(self.shape)) if axis not in last]
        target = self.parts.room(kind, prod(self.shape[axis] for axis in left))
        self.reduce(kernel, source, last, param, target)
        self.axes = tuple(left.index(axis) for axis in self.axes if axis not in last)
        self.shape, self.itemsize = tuple(self.shape[axis] for axis in left), np.dtype(kind).itemsize
        return target

    @property
    def possible(self) -> bool:
        """Whether one launch reduces what is left."""
        return layout(self.shape, self.axes) is not None

    def result(self, number: int, write: Callable[[Array], None]) -> None:
        """Lets ``write(target)`` fill an output; by way of scratch if its axes are in another order in memory."""
        output = Array(OUTPUT, number, dtype="uint8" if self.kind == "uint8" else None)
        if self.kept == sorted(self.kept):
            return write(output)
        target = self.parts.room(self.kind, self.size)
        write(target)
        self.transpose(target, output)
        return None

    def transpose(self, source: Array, output: Array) -> None:
        """Writes an output of results whose axes are ``kept``."""
        left = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        sizes = [self.shape[axis] for axis in left]
        strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
        order = sorted(range(len(sizes)), key=self.kept.__getitem__)
        laid = tuple(strides[i] for i in order), output, tuple(sizes[i] for i in order)
        self.launches.append(laid_out(self.parts, source, *laid, self.kind))

    def plan(self, outputs: int = 1) -> LaunchPlan:
        """Returns the plan made of the launches."""
        cost = Cost(nanoseconds=self.nanoseconds)
        return self.parts.plan(tuple(self.launches), (self.input,), (Output(),) * outputs, cost=cost)


def by_kernel(
    kernel: Any,
    param: float | Callable[[float], float] = 1.0,
    *,
    wide: bool = True,
    dtype: DType = None,
    least: float = 0.0,
) -> Implementation:
    """Makes the implementation of a reduction by a kernel of ``functions.py``.

    param: what the kernel's functions read, or a function of the count of elements that makes it; of several groups of axes
    that are reduced one after another only the last reads that, the others 1. wide: their results are float64, not the
    data's dtype. dtype: of the output, where it is not the input's. least: elements at which it pays.
    """

    def plan(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
        (x,) = operands
        if not x.size or x.dtype.char not in REAL:
            return None
        steps, source, last = Steps(x, params["axes"], dtype), Array(INPUT, 0), kernel
        if not steps.possible:
            if kernel.steps is None:
                return None
            first, between, last = kernel.steps
            for step in _in_turn(first, between):
                source = steps.step(step, source, 1.0 if callable(param) else param, DOUBLE if wide else x.dtype.name)
                if steps.possible:
                    break
        number = param(x.size / steps.size) if callable(param) else param
        steps.result(0, lambda target: steps.reduce(last, source, steps.axes, number, target))
        return steps.plan()

    def worth(operands: Operands, params: dict[str, Any]) -> bool:
        return operands[0].size >= least and pays_in_steps(operands, params)

    return Implementation("kernel", plan, worth)


def _in_turn(first: Any, between: Any) -> Iterator[Any]:
    yield first
    while True:
        yield between


# ---- moments ----------------------------------------------------------------------------------------------------------
def _moments(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """Plans the squared deviations over ``freedom`` and the mean, both summed in float64: two passes over the array."""
    (x,) = operands
    steps = Steps(x, params["axes"])
    if not x.size or x.dtype.char not in REAL or not steps.possible:
        return None
    zeros = steps.parts.room(DOUBLE, steps.size, zeros=True)
    total, squares = (steps.parts.room(DOUBLE, steps.size) for _ in range(2))

    def quotients(sums: Array, by: float) -> Callable:
        return lambda target: steps.launches.append(Launch(functions.quotients, (sums, by, target)))

    steps.reduce(functions.deviations, Array(INPUT, 0), steps.axes, 0.0, total, zeros)
    steps.result(1, quotients(total, float(x.size // steps.size)))
    steps.reduce(functions.deviations, Array(INPUT, 0), steps.axes, 1.0, squares, total)
    steps.result(0, quotients(squares, float(params["freedom"])))
    return steps.plan(2)


def plain_moments(ins: list, outs: list, axes: tuple, freedom: float) -> None:
    """Computes variance and mean by NumPy."""
    x, (variance, mean) = ins[0].astype(np.float64), outs
    total = np.add.reduce(x, axes, keepdims=True)
    total /= x.size // max(total.size, 1)
    mean[...] = total.reshape(mean.shape)
    x -= total
    np.divide(np.add.reduce(np.square(x, x), axes), freedom, out=variance, casting="same_kind")


MOMENTS = (Implementation("kernel", _moments, pays), host("numpy", plain_moments, FEW_OR_OTHER))


# ---- NumPy's sums -----------------------------------------------------------------------------------------------------
SUMMED_ROWS = 256  # added one after another; the rounding error grows with it, the number of partial sums shrinks


def blocked_sum(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    """Adds up in blocks along a strided axis: NumPy adds pairwise only along contiguous memory, one by one elsewhere."""
    if x.size <= 2 * SUMMED_ROWS and x.dtype != np.float16:
        np.add.reduce(x, axes, out=out)
        return
    if x.dtype == np.float16:  # its running sums would stop growing at 2048
        out[...] = np.sum(x, axis=axes, dtype=np.float32)
        return
    axis, most = max(axes, key=x.shape.__getitem__, default=None), 2 * SUMMED_ROWS
    if axis is not None and x.dtype == np.float32 and x.shape[axis] > most and x.strides[axis] != x.itemsize:
        blocks = x.shape[axis] // SUMMED_ROWS
        head, tail = np.split(x, [blocks * SUMMED_ROWS], axis)
        parts = head.reshape(*x.shape[:axis], blocks, SUMMED_ROWS, *x.shape[axis + 1 :]).sum(axis + 1)
        blocked_sum(np.concatenate([parts, tail.sum(axis, keepdims=True)], axis), axes, out)
        return
    np.add.reduce(x, axes, out=out)
