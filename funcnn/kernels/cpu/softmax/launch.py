"""How the softmax family runs on the CPU: axes folded to (outer, n, inner), work cut into chunks, scratch memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf, prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.elementwise.look_launch import look
from funcnn.kernels.cpu.elementwise.looking import look_at_classes
from funcnn.kernels.cpu.elementwise.loops import repeat_number
from funcnn.kernels.cpu.softmax import entropy
from funcnn.kernels.cpu.softmax import softmax as kernels
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import (
    CONSTANT,
    INPUT,
    OUTPUT,
    SCRATCH,
    Array,
    Constant,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Status,
    Workers,
)  # fmt: skip

CHUNK_ELEMENTS = 1 << 15  # about 20 us
ELEMENTS_PER_ROW = 64  # what a row costs beside its elements, as so many elements
BLOCK_COLUMNS = 256  # that go through the passes together
NARROW_BYTES = 256  # shorter rows are transposed
TRANSPOSED_ROWS = 16  # at least, and a multiple of them
TRANSPOSED_BYTES, COLUMN_BYTES = 8192, 512  # of a block of rows that is transposed, and of one of its columns at least
EXP_NS, PLAIN_NS = 0.5, 0.4  # nanoseconds of an element on one thread, with and without an exponential
ROW_NS = 30.0  # nanoseconds of a row, however short
DOUBLE = "float64"
NO_CLASS = "a target is no class"
Folded = tuple[int, int, int]


def _folded(x: Operand, dim: int) -> Folded:
    """Returns (outer, n, inner) with ``dim`` in the middle."""
    return prod(x.shape[:dim]), x.shape[dim], prod(x.shape[dim + 1 :])


def _cut(shape: Folded, itemsize: int = 0) -> tuple[int, int]:
    """Returns the units of a chunk, and the columns of a unit, or its rows where short ones are transposed.

    itemsize: of the data, where they may be.
    """
    outer, n, inner = shape
    width = min(inner, BLOCK_COLUMNS)
    if inner == 1 and n * itemsize < NARROW_BYTES and outer >= TRANSPOSED_ROWS and itemsize:
        rows = max(COLUMN_BYTES, TRANSPOSED_BYTES // n) // itemsize
        width = min(BLOCK_COLUMNS, rows // TRANSPOSED_ROWS * TRANSPOSED_ROWS)
    return max(1, CHUNK_ELEMENTS // (n * width + ELEMENTS_PER_ROW)), width


def _work(shape: Folded, cost: float) -> float:
    """Returns the nanoseconds on one thread, ``cost`` for each element."""
    return cost * prod(shape) + (ROW_NS * shape[0] if shape[2] == 1 else 0.0)


def _plan(launches: list[Launch], ins: tuple[Operand, ...], work: float, scratch: list[Scratch], outputs: int = 1,
          constants: tuple[Constant, ...] = ()) -> LaunchPlan:  # fmt: skip
    """Makes the plan of contiguous inputs."""
    cost = Cost(nanoseconds=work)
    return LaunchPlan(
        tuple(launches), (CONTIGUOUS,) * len(ins), (Output(),) * outputs, tuple(scratch), constants, cost=cost
    )


# ---- softmax ----------------------------------------------------------------------------------------------------------
def _softmax(operands: tuple[Operand, ...], params: dict[str, Any], logarithm: bool) -> LaunchPlan:
    (x,) = operands
    if not x.size:
        return LaunchPlan((), (ANY,), (Output(),))
    shape = _folded(x, params["dim"])
    cut, work = _cut(shape, x.itemsize), _work(shape, EXP_NS)
    scratch = [
        Scratch(x.dtype.name, kernels.room_for(shape, cut, 2, 2), each_worker=True),
        Scratch(DOUBLE, kernels.sums_for(cut), each_worker=True),
    ]
    args = (Array(INPUT, 0, shape), Array(OUTPUT, 0, shape), logarithm, Array(SCRATCH, 0), Array(SCRATCH, 1), cut)
    return _plan([Launch(kernels.softmax_forward, (*args, Workers(work)))], operands, work, scratch)


def _softmax_grad(operands: tuple[Operand, ...], params: dict[str, Any], logarithm: bool) -> LaunchPlan:
    y = operands[1]
    if not y.size:
        return LaunchPlan((), (ANY, ANY), (Output(),))
    shape = _folded(y, params["dim"])
    cut, work = _cut(shape), _work(shape, EXP_NS if logarithm else PLAIN_NS)
    scratch = [Scratch(kind, cut[1], each_worker=True) for kind in (y.dtype.name, DOUBLE)]
    args = (Array(INPUT, 0, shape), Array(INPUT, 1, shape), Array(OUTPUT, 0, shape), logarithm)
    launch = Launch(kernels.softmax_grad, (*args, Array(SCRATCH, 0), Array(SCRATCH, 1), cut, Workers(work)))
    return _plan([launch], operands, work, scratch)


def softmax(logarithm: bool) -> tuple[Implementation, ...]:
    """Makes the implementations of exp(x) / sum(exp(x)) along a dimension, or of its logarithm."""
    return (Implementation("kernel", partial(_softmax, logarithm=logarithm)),)


def softmax_grad(logarithm: bool) -> tuple[Implementation, ...]:
    """Makes the implementations of the gradient in x, of dy and y."""
    return (Implementation("kernel", partial(_softmax_grad, logarithm=logarithm)),)


# ---- logsumexp --------------------------------------------------------------------------------------------------------
def _log_sums(x: Operand, shape: Folded, top: Array, rest: Array, scratch: list[Scratch]) -> Launch:
    """Makes the launch of ``log_sums``, and adds its scratch to what there is."""
    cut = _cut(shape, x.itemsize)
    room = Array(SCRATCH, len(scratch)), Array(SCRATCH, len(scratch) + 1)
    scratch += [
        Scratch(x.dtype.name, kernels.room_for(shape, cut, 4, 1), each_worker=True), Scratch(DOUBLE, cut[1], each_worker=True)
    ]  # fmt: skip
    args = (Array(INPUT, 0, shape), top, rest, *room, cut, Workers(_work(shape, EXP_NS)))
    return Launch(entropy.log_sums, args)


def _logsumexp(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    (x,) = operands
    shape = _folded(x, params["dim"])
    if not x.size:
        fill = Launch(repeat_number, (Array(CONSTANT, 0), Array(OUTPUT, 0)))
        return _plan([fill], operands, 0.0, [], constants=(Constant(np.full(1, -inf, x.dtype)),))
    sides = shape[0], shape[2]
    scratch = [Scratch(x.dtype.name, prod(sides)) for _ in range(2)]
    launches = [
        _log_sums(x, shape, Array(SCRATCH, 0, sides), Array(SCRATCH, 1, sides), scratch),
        Launch(entropy.join_sums, (Array(SCRATCH, 0), Array(SCRATCH, 1), Array(OUTPUT, 0))),
    ]
    return _plan(launches, operands, _work(shape, EXP_NS), scratch)


def _logsumexp_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x = operands[1]
    if not x.size:
        return LaunchPlan((), (ANY,) * 3, (Output(),))
    shape = _folded(x, params["dim"])
    sides, work = (shape[0], shape[2]), _work(shape, EXP_NS)
    args = (Array(INPUT, 1, shape), Array(INPUT, 2, sides), Array(SCRATCH, 0, sides), Array(INPUT, 0, sides))
    more = (Array(OUTPUT, 0, shape), Array(CONSTANT, 0, (0, 0)), 0, _cut(shape), Workers(work))
    scratch = [Scratch(x.dtype.name, prod(sides), zeros=True)]
    no_target = Constant(np.empty((0, 0), np.int64))
    return _plan([Launch(entropy.exponentials, (*args, *more))], operands, work, scratch, constants=(no_target,))


logsumexp = (Implementation("kernel", _logsumexp),)
logsumexp_grad = (Implementation("kernel", _logsumexp_grad),)  # of dy, x and y


# ---- cross-entropy ----------------------------------------------------------------------------------------------------
def _cross_entropy(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, target = operands
    ignore, reduction = params["ignore_index"], params["reduction"]
    shape, sides = _folded(x, 1), target.shape
    loss, launches, scratch = Array(OUTPUT, 0, sides), [], []
    if reduction != "none":
        loss, scratch = Array(SCRATCH, 0, sides), [Scratch(x.dtype.name, target.size, zeros=not x.size)]
    classes, top, rest = Array(INPUT, 1, sides), Array(OUTPUT, 1, sides), Array(OUTPUT, 2, sides)
    if x.size:
        pick = (Array(INPUT, 0, shape), classes, top, rest, loss, ignore, Status())
        launches = [_log_sums(x, shape, top, rest, scratch), Launch(entropy.cross_entropy_pick, pick)]
    elif target.size:
        launches = [look(look_at_classes, 1, target, 0, ignore)]
    if reduction != "none":
        launches.append(Launch(entropy.entropy_total, (loss, classes, ignore, reduction == "mean", Array(OUTPUT, 0))))
    made = _plan(launches, operands, _work(shape, EXP_NS), scratch, 3)
    first = Output("zeros") if not x.size and reduction == "none" else Output()
    return replace(made, outputs=(first, Output(), Output()), refusals=(NO_CLASS,))


def out_of_classes(target: Any, classes: int, ignore_index: int) -> Any:
    """Where a target is no class, and not ignored."""
    return ((target < 0) | (target >= classes)) & (target != ignore_index)


def _look_at_targets(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, target = operands
    launches = (look(look_at_classes, 1, target, x.shape[1], params["ignore_index"]),) if target.size else ()
    return LaunchPlan(launches, (ANY, CONTIGUOUS), refusals=(NO_CLASS,))


looks_at_targets = (Implementation("kernel", _look_at_targets),)


def _cross_entropy_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, target = operands[:2]
    ignore, reduction = params["ignore_index"], params["reduction"]
    if not x.size:
        return LaunchPlan((), (ANY,) * 5, (Output(),))
    shape, sides = _folded(x, 1), target.shape
    work = _work(shape, EXP_NS)
    classes, scale = Array(INPUT, 1, sides), Array(INPUT, 2, sides)
    launches, scratch = [], []
    if reduction != "none":
        scale, scratch = Array(SCRATCH, 0, sides), [Scratch(x.dtype.name, target.size)]
        launches = [Launch(entropy.entropy_scale, (Array(INPUT, 2), classes, ignore, reduction == "mean", scale))]
    args = (Array(INPUT, 0, shape), Array(INPUT, 3, sides), Array(INPUT, 4, sides), scale, Array(OUTPUT, 0, shape))
    launches.append(Launch(entropy.exponentials, (*args, classes, ignore, _cut(shape), Workers(work))))
    return _plan(launches, operands, work, scratch)


cross_entropy = (Implementation("kernel", _cross_entropy),)
cross_entropy_grad = (Implementation("kernel", _cross_entropy_grad),)  # of x, target, dloss, top and rest
