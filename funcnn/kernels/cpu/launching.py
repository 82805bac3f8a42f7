"""How the CPU runs a launch plan in Python: memory, arguments, the calls in order, then the status words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.build.compile import Kernel, around
from funcnn.kernels.cpu.lengths import compare_lengths
from funcnn.kernels.cpu.tables import Addresses
from funcnn.kernels.cpu.threads import number
from funcnn.kernels.cpu.threads.number import workers
from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import (
    CONSTANT,
    GIVE_WAY,
    INPUT,
    OUTPUT,
    SCRATCH,
    STATUS_WORDS,
    Access,
    Array,
    Count,
    Launch,
    LaunchPlan,
    Scratch,
    Status,
    Table,
    Workers,
)  # fmt: skip
from funcnn.kernels.refusal import Refused

KEPT = 2  # times as much memory as its elements need is what the front of an output may hold


class Step(NamedTuple):
    """A launch made ready: its kernel and arguments, where arrays and numbers of workers go among these, and how often it runs.

    arrays: position, buffer, what makes the argument of the buffer (None: the buffer is it), elements from turn to turn.
    counted: position, and nanoseconds of the work on one thread.
    """

    kernel: Any
    ours: bool  # a ``Kernel``, whose dispatcher may be called at once where nothing stands around kernels
    arguments: list
    arrays: list[tuple[int, Any, Callable | None, int]]
    counted: list[tuple[int, float]]
    times: int


class Runner:
    """Holds a plan made ready for operands of one kind; ``runner(ins, outs)`` makes its launches."""

    __slots__ = (
        "constants", "nanoseconds", "otherwise", "plan", "prepare", "scratch", "steps", "tables", "take", "watched",
    )  # fmt: skip

    def __init__(self, plan: LaunchPlan, ins: tuple[Operand, ...], outs: tuple[Any, ...]):
        self.plan = plan
        self.take = [(i, take) for i, pair in enumerate(zip(ins, plan.inputs, strict=True)) if (take := _take(*pair))]
        self.prepare = [(i, output.holds) for i, output in enumerate(plan.outputs) if output.holds != "anything"]
        self.constants = [constant.array for constant in plan.constants]
        self.scratch = [_room(scratch) for scratch in plan.scratch]
        self.nanoseconds = max([arg.nanoseconds for launch in plan.launches for arg in launch.args if isinstance(arg, Workers)],
                               default=0.0)  # fmt: skip
        self.watched = any(isinstance(arg, Status) for launch in plan.launches for arg in launch.args)
        shapes = _shapes(plan, ins, outs)
        compare_lengths(plan, ins, outs, {key: shape for key, (_, shape) in shapes.items()})
        listed = dict.fromkeys(arg for launch in plan.launches for arg in launch.args if isinstance(arg, Table))
        self.tables = [Addresses(table, shapes) for table in listed]
        places: dict[Any, tuple] = {table: (len(shapes) + at, None) for at, table in enumerate(listed)}
        places[Count()] = len(shapes), None  # of a plan without tables
        self.steps = [_step(launch, {**shapes, **places}) for launch in plan.launches]
        self.otherwise = None if plan.otherwise is None else Runner(plan.otherwise, ins, outs)

    def __call__(self, ins: list, outs: list, tables: list | None = None) -> None:
        buffers = ins + outs + self.constants
        for i, take in self.take:
            buffers[i] = take(buffers[i])
        for i, holds in self.prepare:
            if not isinstance(holds, int):
                outs[i].fill(0)
            elif outs[i] is not ins[holds]:  # it may be that input's own memory
                np.copyto(outs[i], ins[holds])
        for shape, dtype, large, each, zeros in self.scratch:
            if each and self.nanoseconds >= number.NANOSECONDS_FOR_THREADS:
                room = memory.empty((shape[0] * workers(self.nanoseconds),), dtype)
            else:
                room = (memory.empty if large else memory.fresh)(shape, dtype)
            if zeros:
                room.fill(0)
            buffers.append(room)
        for table in self.tables if tables is None else tables:
            buffers.append(table(buffers))
        status = None
        if self.watched:
            status = np.zeros(STATUS_WORDS, np.int64)
            buffers.append(status)
        for step in self.steps:
            kernel, ours, arguments, arrays, counted, times = step
            if times > 1:
                _repeat(step, buffers)
                continue
            args = arguments.copy()
            for at, place, part, _ in arrays:
                args[at] = buffers[place] if part is None else part(buffers[place])
            for at, nanoseconds in counted:
                args[at] = 1 if nanoseconds < number.NANOSECONDS_FOR_THREADS else workers(nanoseconds)
            (kernel.compiled if ours and not around and kernel.compiled is not None else kernel)(*args)
        if status is not None and status[0]:
            self._stopped(status, ins, outs)

    def repeated(self, ins: list, outs: list, changing: list[int]) -> Callable[[list, list], None]:
        """Returns what runs the plan again on these arrays, whose addresses are looked up now, but for the inputs ``changing``."""
        if not self.tables:
            return self
        buffers, others = [*ins, *outs], set(changing)
        for i, take in self.take:  # each time it takes other memory
            buffers[i] = take(buffers[i])
            others.add(i)
        return partial(self, tables=[table.repeated(buffers, others) for table in self.tables])

    def _stopped(self, status: np.ndarray, ins: list, outs: list) -> None:
        if status[0] != GIVE_WAY:
            raise Refused(self.plan.refusals[status[0] - 1], tuple(status.tolist()))
        assert self.otherwise is not None, "a kernel gives way only where its plan says to what"
        self.otherwise(ins, outs)


class Counting(Runner):
    """Runs a plan that has outputs whose size depends on values: reads the count word, and hands out the fronts."""

    __slots__ = ()

    def __call__(self, ins: list, outs: list, tables: list | None = None) -> None:
        count = np.zeros(1, np.int64)
        super().__call__(ins, outs, [lambda buffers: count])
        for i, output in enumerate(self.plan.outputs):
            if output.front is not None:
                outs[i] = _front(outs[i], output.front, int(count[0]))


class Converting(Runner):
    """Runs a plan that computes in another dtype than its outputs are stored in."""

    __slots__ = ()

    def __call__(self, ins: list, outs: list, tables: list | None = None) -> None:
        kinds = [output.dtype for output in self.plan.outputs]
        wide = [
            out if kind is None else memory.empty(out.shape, np.dtype(kind))
            for kind, out in zip(kinds, outs, strict=True)
        ]
        super().__call__(ins, wide, tables)
        for out, computed in zip(outs, wide, strict=True):
            if out is not computed:
                np.copyto(out, computed, casting="same_kind")


def _front(out: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Returns the first ``count`` along an axis; a copy where the whole would hold much more memory."""
    seen = out[(slice(None),) * axis + (slice(count),)]
    return seen if count * KEPT >= out.shape[axis] else seen.copy()


def ready(plan: LaunchPlan, ins: tuple[Operand, ...], outs: tuple[Any, ...]) -> Runner:
    """Returns what runs a plan on operands of one kind."""
    counts = any(output.front is not None for output in plan.outputs)
    converts = any(output.dtype is not None for output in plan.outputs)
    return (Counting if counts else Converting if converts else Runner)(plan, ins, outs)


def _room(scratch: Scratch) -> tuple[tuple[int], np.dtype, bool, bool, bool]:
    """Returns shape and dtype of scratch (of one worker), whether it is large, one for each worker, and zeros at the start."""
    shape, dtype = (scratch.size,), np.dtype(scratch.dtype)
    return shape, dtype, memory.is_large(shape, dtype), scratch.each_worker, scratch.zeros


def _take(operand: Operand, access: Access) -> Callable | None:
    """Returns what copies or permutes an input so that it has the required layout; None where it has that layout already."""
    if access.any:
        return None
    steps: list[Callable] = []
    if access.repeated:
        index = tuple(0 if axis in access.repeated else slice(None) for axis in range(operand.ndim))
        steps.append(lambda x: np.asarray(x[index]))
        operand = operand.without(access.repeated)
    if access.order is not None:
        order = access.order
        steps.append(lambda x: x.transpose(order))
        operand = operand.permuted(order)
    if access.dtype is not None:
        steps.append(partial(memory.copied, dtype=np.dtype(access.dtype)))
    elif not operand.contiguous:
        steps.append(_contiguous)
    if len(steps) < 2:
        return steps[0] if steps else None

    def take(x: np.ndarray) -> np.ndarray:
        for step in steps:
            x = step(x)
        return x

    return take


def _contiguous(x: np.ndarray) -> np.ndarray:
    return memory.copied(x, x.dtype)


def _shapes(
    plan: LaunchPlan, ins: tuple[Operand, ...], outs: tuple[Any, ...]
) -> dict[tuple[str, int], tuple[int, Any]]:
    """Maps each buffer to its index in the list of buffers and its shape there: None where the number of workers decides it."""
    taken = []
    for operand, access in zip(ins, plan.inputs, strict=True):
        seen = operand.without(access.repeated)
        taken.append(seen if access.order is None else seen.permuted(access.order))
    known: list[tuple[str, int, Any]] = [
        *((INPUT, i, x.shape) for i, x in enumerate(taken)),
        *((OUTPUT, i, y.shape) for i, y in enumerate(outs)),
        *((CONSTANT, i, constant.array.shape) for i, constant in enumerate(plan.constants)),
        *((SCRATCH, i, None if s.each_worker else (s.size,)) for i, s in enumerate(plan.scratch)),
    ]
    return {(buffer, i): (place, shape) for place, (buffer, i, shape) in enumerate(known)}


def _step(launch: Launch, shapes: dict) -> Step:
    arrays, counted, kernel = [], [], launch.kernel
    for at, arg in enumerate(launch.args):
        if isinstance(arg, Array):
            place, shape = shapes[arg.buffer, arg.number]
            arrays.append((at, place, _as_dtype(_part(arg, shape), arg.dtype), arg.step))
        elif isinstance(arg, Status):
            arrays.append((at, -1, None, 0))
        elif isinstance(arg, (Table, Count)):
            arrays.append((at, shapes[arg][0], None, 0))
        elif isinstance(arg, Workers):
            counted.append((at, arg.nanoseconds))
    return Step(kernel, type(kernel) is Kernel, list(launch.args), arrays, counted, launch.times)


def _repeat(step: Step, buffers: list) -> None:
    """Makes the launches of a loop over a batch."""
    args = step.arguments.copy()
    for at, nanoseconds in step.counted:
        args[at] = workers(nanoseconds)
    for turn in range(step.times):
        for at, place, part, stride in step.arrays:
            if stride:
                assert part is not None, "an argument that moves is a part of its buffer"
                args[at] = part(buffers[place], turn * stride)
            elif not turn:
                args[at] = buffers[place] if part is None else part(buffers[place])
        step.kernel(*args)


def _part(arg: Array, shape: tuple[int, ...] | None) -> Callable | None:
    """Returns what makes the argument of a buffer of this shape; None where the buffer itself is the argument."""
    wanted, offset = arg.shape, arg.offset
    if offset == 0 and arg.step == 0 and (shape is None or wanted is None or prod(wanted) == prod(shape)):
        if wanted is None or wanted == shape:
            return None if shape is None or wanted == shape or len(shape) == 1 else np.ndarray.ravel
        if len(wanted) == 1:
            return np.ndarray.ravel
        return methodcaller("reshape", wanted)
    if wanted is None:
        return lambda x, step=0: x.ravel()[offset + step :]
    size = prod(wanted)
    return lambda x, step=0: x.ravel()[offset + step : offset + step + size].reshape(wanted)


def _as_dtype(part: Callable | None, dtype: str | None) -> Callable | None:
    if dtype is None:
        return part
    other = np.dtype(dtype)
    if part is None:
        return methodcaller("view", other)
    return lambda x, *step: part(x, *step).view(other)
