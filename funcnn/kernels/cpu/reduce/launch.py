"""How reductions run on the CPU: by the kernels of ``reduce``, on the array as it lies in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement.permute import lay_out
from funcnn.kernels.cpu.reduce import runs as kernels
from funcnn.kernels.implementation import CONTIGUOUS, NUMPY, REAL, Implementation, Operand, host
from funcnn.kernels.launch import (
    CONSTANT,
    INPUT,
    OUTPUT,
    SCRATCH,
    Access,
    Array,
    Constant,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Workers,
)  # fmt: skip

LARGE = 1 << 11  # numbers; below, NumPy's call costs less
FEW = 32  # numbers for one result that do not lie side by side: NumPy adds whole rows of results then
COST = 0.05  # nanoseconds a byte, which comes from beyond a core's own cache
EACH = 4.0  # nanoseconds a result of contiguous numbers
DOUBLE = "float64"
Operands = tuple[Operand, ...]


# ---- layouts ----------------------------------------------------------------------------------------------------------
@lru_cache(4096)
def layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray | None:
    """The kernels' plan for a contiguous array that is not empty; None where reduced axes are too often among others."""
    groups: list[list[int]] = []  # sizes of neighbours that are alike, and whether they are reduced
    for axis, size in enumerate(shape):
        if size > 1:
            reduced = axis in axes
            if groups and groups[-1][1] == reduced:
                groups[-1][0] *= size
            else:
                groups.append([size, reduced])
    if not any(reduced for _, reduced in groups):
        return kernels.plan(1, prod(shape), 1, 1)
    sizes = [size for size, _ in groups] + [1] * groups[-1][1]
    if len(sizes) > 4:
        return None
    a, b, c, d = [1] * (4 - len(sizes)) + sizes
    return kernels.plan(a, b, c, d)


@lru_cache(4096)
def _pays(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a kernel pays for many numbers: something is reduced, and numbers for a result lie side by side or are many."""
    plan = layout(shape, axes)
    if plan is None or all(shape[axis] == 1 for axis in axes):
        return False
    return not (plan[3] > 1 and plan[0] == 1 and plan[2] * plan[3] < FEW)


def many(x: Operand) -> bool:
    """Whether x holds floating-point numbers for which a kernel's call pays."""
    return x.size >= LARGE and x.dtype.char in REAL


def _lying(x: Operand, axes: tuple) -> tuple[Operand, tuple, tuple[int, ...]]:
    """x with its axes in the order of memory, where the reduced ones are then, and the order."""
    order = tuple(range(x.ndim) if x.contiguous else sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return x.permuted(order), tuple(order.index(axis) for axis in axes), order


def pays(operands: Operands, params: dict[str, Any]) -> bool:
    """Whether a kernel reduces the first input at once: many floating-point numbers, in one of the kernels' layouts."""
    if not many(operands[0]):
        return False
    x, axes, _ = _lying(operands[0], params["axes"])
    return _pays(x.shape, axes)


@lru_cache(4096)
def last_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The last of the axes that have several numbers, and those just before it; all where one step reduces them, or none."""
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
    """The launches that reduce an array over some axes, as it lies in memory, and the memory between them."""

    def __init__(self, x: Operand, axes: tuple):
        lying, self.axes, order = _lying(x, axes)
        self.shape, self.itemsize, self.kind = lying.shape, x.itemsize, x.dtype.name
        self.input = CONTIGUOUS if x.contiguous else Access(order=order)
        self.kept = [axis for axis in order if axis not in axes]
        self.size = prod(x.shape[axis] for axis in self.kept)
        self.launches: list[Launch] = []
        self.scratch: list[Scratch] = []
        self.constants: list[Constant] = []
        self.cost = Cost(x.size, x.nbytes, 0.0)

    def room(self, dtype: str, size: int, zeros: bool = False) -> Array:
        """Scratch memory."""
        self.scratch.append(Scratch(dtype, size, zeros=zeros))
        return Array(SCRATCH, len(self.scratch) - 1)

    def constant(self, values: Any) -> Array:
        """A constant array."""
        self.constants.append(Constant(values))
        return Array(CONSTANT, len(self.constants) - 1)

    def reduce(
        self, kernel: Any, source: Array, axes: tuple, how: float, target: Array, centre: Array | None = None
    ) -> None:
        """target = source reduced over ``axes`` of the shape at hand. centre: one number for each of the target."""
        plan = layout(self.shape, axes)
        assert plan is not None, "last_axes() and possible() say over which axes there is a plan"
        size, blocks = int(plan[1] * plan[3]), int(plan[kernels.BLOCKS])
        partial = self.room(DOUBLE, blocks * size if blocks > 1 else 1)
        centre = self.constant(np.zeros(1)) if centre is None else centre
        work = prod(self.shape) * self.itemsize * COST + (EACH * size if plan[3] == 1 else 0.0)
        args = (source, centre, how, partial, target, self.constant(plan), Workers(work))
        self.launches.append(Launch(kernel, args))
        self.cost = self.cost._replace(nanoseconds=self.cost.nanoseconds + work)

    def step(self, kernel: Any, source: Array, how: float, kind: str, centred: bool = False) -> Array:
        """Scratch with the source reduced over the last of the axes; the others are left."""
        last = last_axes(self.shape, self.axes)
        left = [axis for axis in range(len(self.shape)) if axis not in last]
        size = prod(self.shape[axis] for axis in left)
        target = self.room(kind, size)
        self.reduce(kernel, source, last, how, target, self.room(DOUBLE, size, zeros=True) if centred else None)
        self.axes = tuple(left.index(axis) for axis in self.axes if axis not in last)
        self.shape, self.itemsize = tuple(self.shape[axis] for axis in left), np.dtype(kind).itemsize
        return target

    @property
    def possible(self) -> bool:
        """Whether one launch reduces what is left."""
        return layout(self.shape, self.axes) is not None

    def result(self, number: int, write: Callable[[Array], None]) -> None:
        """Let ``write(target)`` fill an output; if its axes lie in another order in memory, by way of scratch."""
        if self.kept == sorted(self.kept):
            return write(Array(OUTPUT, number))
        target = self.room(self.kind, self.size)
        write(target)
        self.turn(target, number)
        return None

    def turn(self, source: Array, number: int) -> None:
        """Write an output of results whose axes are ``kept``."""
        left = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        sizes = [self.shape[axis] for axis in left]
        steps = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
        order = sorted(range(len(sizes)), key=self.kept.__getitem__)
        table = [*(sizes[i] for i in order), *(steps[i] for i in order)]
        self.launches.append(Launch(lay_out, (source, self.constant(np.array(table)), Array(OUTPUT, number))))

    def plan(self, outputs: int = 1) -> LaunchPlan:
        """The plan made of the launches."""
        return LaunchPlan(
            tuple(self.launches), (self.input,), (Output(),) * outputs, tuple(self.scratch), tuple(self.constants),
            cost=self.cost,
        )  # fmt: skip


def by_kernel(kernel: Any, how: float = 1.0, mean: bool = False, wide: bool = True) -> tuple[Implementation, ...]:
    """The implementations of a reduction by a kernel. how: what the kernel makes of it; for a mean it is the count.

    wide: groups of axes that are reduced one after another are joined in float64.
    """

    def plan(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
        (x,) = operands
        if not x.size or x.dtype.char not in REAL:
            return None
        steps, source = Steps(x, params["axes"]), Array(INPUT, 0)
        while not steps.possible:
            source = steps.step(kernel, source, how, DOUBLE if wide else x.dtype.name)
        last = x.size / steps.size if mean else how
        steps.result(0, lambda target: steps.reduce(kernel, source, steps.axes, last, target))
        return steps.plan()

    return (Implementation("kernel", plan, pays_in_steps),)


def _squares(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """The sum of squares, added up in float64."""
    (x,) = operands
    if not x.size or x.dtype.char not in REAL:
        return None
    steps, source, kernel = Steps(x, params["axes"]), Array(INPUT, 0), kernels.deviations
    while not steps.possible:
        source = steps.step(kernel, source, 1.0, DOUBLE, kernel is kernels.deviations)
        kernel = kernels.sums
    zeros = steps.room(DOUBLE, steps.size, zeros=True) if kernel is kernels.deviations else None
    steps.result(0, lambda target: steps.reduce(kernel, source, steps.axes, 1.0, target, zeros))
    return steps.plan()


SQUARES = (Implementation("kernel", _squares, pays_in_steps),)


# ---- moments ----------------------------------------------------------------------------------------------------------
def _moments(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """The squared deviations over ``freedom`` and the mean, both summed in float64: two passes over the array."""
    (x,) = operands
    steps = Steps(x, params["axes"])
    if not x.size or x.dtype.char not in REAL or not steps.possible:
        return None
    zeros = steps.room(DOUBLE, steps.size, zeros=True)
    total, squares = (steps.room(DOUBLE, steps.size) for _ in range(2))

    def quotients(sums: Array, by: float) -> Callable:
        return lambda target: steps.launches.append(Launch(kernels.quotients, (sums, by, target)))

    steps.reduce(kernels.deviations, Array(INPUT, 0), steps.axes, 0.0, total, zeros)
    steps.result(1, quotients(total, float(x.size // steps.size)))
    steps.reduce(kernels.deviations, Array(INPUT, 0), steps.axes, 1.0, squares, total)
    steps.result(0, quotients(squares, float(params["freedom"])))
    return steps.plan(2)


def plain_moments(ins: list, outs: list, axes: tuple, freedom: float) -> None:
    """Variance and mean by NumPy."""
    x, (variance, mean) = ins[0].astype(np.float64), outs
    total = np.add.reduce(x, axes, keepdims=True)
    total /= x.size // max(total.size, 1)
    mean[...] = total.reshape(mean.shape)
    x -= total
    np.divide(np.add.reduce(np.square(x, x), axes), freedom, out=variance, casting="same_kind")


MOMENTS = (Implementation("kernel", _moments, pays), host("numpy", plain_moments, NUMPY))


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
