"""How recurrent layers run on the CPU: weights are packed, then one launch goes over all steps; models one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

from funcnn.kernels.cpu.recurrent import gru, lstm, rnn, tasks, weights
from funcnn.kernels.cpu.recurrent.sequence import pack_backward, pack_forward, strips_size
from funcnn.kernels.cpu.vector.tiles import strided_shape
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, SCRATCH, Array, Cost, Launch, LaunchPlan, Output, Scratch, Workers

# Nanoseconds of a step on one thread, below which threads would wait for each other at its end.
NANOSECONDS_FOR_SHARING = 1_500
FLOP_NS = 0.01  # a flop on one core
# Kinds of output: (steps, n, hidden), (n, hidden), (steps, n, gates hidden).
STEPS, STATE, GATES = "steps", "state", "gates"


class Cell(NamedTuple):
    """A primitive's kernel: how many gates its cell has, and how many tiles of sums a task holds.

    reads: its inputs in order, by their numbers; w: the number of the weights of the states; makes: the kinds of its outputs.
    kept: of how many of the last outputs only backward reads, and how many steps of each are scratch where it does not.
    """

    kernel: Any
    gates: int
    slots: int
    reads: tuple[int, ...]
    w: int
    makes: tuple[str, ...]
    kept: tuple[int, ...] = ()


LSTM = Cell(lstm.lstm_forward, 4, 4, (0, 2, 3, 5), 4, (STEPS, STATE, STATE, GATES, STEPS), (1, 2))
GRU = Cell(gru.gru_forward, 3, 4, (0, 2, 4, 5), 3, (STEPS, STATE, GATES, STEPS), (1, 1))
RNN = Cell(rnn.rnn_forward, 1, 1, (0, 2, 4), 3, (STEPS, STATE))
LSTM_BACK = Cell(lstm.lstm_backward, 4, 1, (0, 1, 2, 3, 4, 8), 9, (GATES, STATE, STATE))
GRU_BACK = Cell(gru.gru_backward, 3, 1, (0, 1, 2, 3, 4, 7), 8, (GATES, GATES, STATE))
RNN_BACK = Cell(rnn.rnn_backward, 1, 1, (0, 1, 2), 6, (GATES, STATE))


class _Run:
    """What the launches of a cell share. first: its first operand, a sequence; inputs: the width of x, 0 backward."""

    def __init__(self, cell: Cell, operands: tuple[Operand, ...], inputs: int):
        *lead, self.steps, self.n, _ = operands[0].shape
        self.cell, self.lead, self.hidden = cell, len(lead), operands[cell.w].shape[-1]
        self.models, self.operands, self.inputs = prod(lead), operands, inputs
        self.tiles, self.units = tasks.blocking(self.n, operands[0].itemsize)
        self.scratch: list[Scratch] = []

    def threads(self) -> Workers | int:
        """Returns how many run: one where a step is short, or has one block of units."""
        step = self.n * self.hidden * self.cell.gates * ((self.hidden + self.inputs) / 50 + 1)  # ns, at 100 GFLOP/s
        return Workers(step * 1000) if step > NANOSECONDS_FOR_SHARING and self.hidden > self.units else 1

    def model(self, buffer: str, number: int, shape: tuple[int, ...]) -> Array:
        """Returns an array of each model in turn."""
        return Array(buffer, number, shape, step=prod(shape) if self.models > 1 else 0)

    def read(self, number: int) -> Array:
        """Returns an input."""
        return self.model(INPUT, number, self.operands[number].shape[self.lead :])

    def strips(self, width: int) -> Array:
        """Returns scratch for the packed weights of all models."""
        size = strips_size(self.units, self.hidden, self.cell.gates, width)
        return self.model(SCRATCH, self.room(size * self.models).number, (size,))

    def room(self, size: int, dtype: str | None = None, each_worker: bool = False) -> Array:
        """Returns scratch."""
        self.scratch.append(Scratch(dtype or self.operands[0].dtype.name, size, each_worker))
        return Array(SCRATCH, len(self.scratch) - 1)

    def outputs(self, residuals: bool) -> Iterable[Array]:
        """Returns the outputs; without residuals scratch in place of the last."""
        sizes = {STEPS: (self.steps, self.n, self.hidden), STATE: (self.n, self.hidden),
                 GATES: (self.steps, self.n, self.cell.gates * self.hidden)}  # fmt: skip
        kinds, kept = self.cell.makes, () if residuals else self.cell.kept
        given = len(kinds) - len(kept)
        yield from (self.model(OUTPUT, i, sizes[kind]) for i, kind in enumerate(kinds[:given]))
        for kind, steps in zip(kinds[given:], kept, strict=True):
            shape = (steps, *sizes[kind][1:])
            yield Array(SCRATCH, self.room(prod(shape)).number, shape)

    def plan(self, pack: Launch, packed: list[Array], threads: Workers | int, params: dict[str, Any]) -> LaunchPlan:
        """Plans packing, then the cell's kernel with its inputs, the parameters, how the work is cut, scratch and the outputs."""
        cell, residuals = self.cell, params.get("residuals", True)
        given = [params["relu"]] if "relu" in params else [residuals] if cell.kept else []
        made = len(cell.makes) - (0 if residuals else len(cell.kept))
        scratch = self.room(-(-self.n // self.tiles) * cell.slots * self.units, each_worker=True)
        args = (*map(self.read, cell.reads), *given, params["reverse"], self.tiles, self.units, threads,
                self.room(3, "int64"), *packed, scratch, *self.outputs(residuals))  # fmt: skip
        launch = Launch(cell.kernel, args, self.models)
        read = {*cell.reads, *(arg.number for arg in pack.args if isinstance(arg, Array) and arg.buffer == INPUT)}
        inputs = tuple(CONTIGUOUS if i in read else ANY for i in range(len(self.operands)))
        flops = 2.0 * self.models * self.steps * self.n * cell.gates * self.hidden * (self.hidden + self.inputs)
        cost = Cost(nanoseconds=FLOP_NS * flops)
        return LaunchPlan((pack, launch), inputs, (Output(),) * made, tuple(self.scratch), cost=cost)


def _nothing(cell: Cell, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Returns the plan for no models."""
    made = len(cell.makes) - (0 if params.get("residuals", True) else len(cell.kept))
    return LaunchPlan((), (ANY,) * len(operands), (Output(),) * made)


def _forward(cell: Cell, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    run = _Run(cell, operands, operands[0].shape[-1])
    if not run.models:
        return _nothing(cell, operands, params)
    threads, packed = run.threads(), [run.strips(run.hidden), run.strips(run.inputs)]
    args = (run.read(cell.w), run.read(1), *packed, cell.gates, run.units, threads)
    return run.plan(Launch(pack_forward, args, run.models, once=True), packed, threads, params)


def _backward(cell: Cell, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    run = _Run(cell, operands, 0)
    if not run.models:
        return _nothing(cell, operands, params)
    threads, packed = run.threads(), [run.strips(run.hidden)]
    args = (run.read(cell.w), *packed, run.units, threads)
    return run.plan(Launch(pack_backward, args, run.models, once=True), packed, threads, params)


def _ways(plan: Any, cell: Cell) -> tuple[Implementation]:
    return (Implementation("kernel", lambda operands, params: plan(cell, operands, params)),)


lstm_ways, gru_ways, rnn_ways = (_ways(_forward, cell) for cell in (LSTM, GRU, RNN))
lstm_grad, gru_grad, rnn_grad = (_ways(_backward, cell) for cell in (LSTM_BACK, GRU_BACK, RNN_BACK))


# ---- the gradients of the weights ---------------------------------------------------------------------------------------
def _weights(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    d, *other, x, y, _ = operands
    (steps, n, inputs), hidden, (gates, dtype) = x.shape, y.shape[-1], (d.shape[-1], d.dtype.name)
    outputs, terms = 3 + len(other), steps * n
    if not terms:  # the kernel writes what it has terms for
        return LaunchPlan((), (ANY,) * len(operands), (Output("zeros"),) * outputs)
    tile = high, wide = strided_shape(d.itemsize)
    deep = high * weights.PANEL_TILES
    scratch = (
        Scratch(dtype, (-(-inputs // wide) - (-hidden // wide)) * wide * terms),
        Scratch(dtype, deep * min(terms, weights.BLOCK_TERMS) + high * wide, each_worker=True),
        Scratch("float64", deep, each_worker=True),
    )
    flops = 2.0 * terms * gates * (inputs + hidden)
    last = len(operands) - 3
    args = (
        *(Array(INPUT, i, operands[i].shape) for i in (0, last - 1)), not other,
        *(Array(INPUT, i, operands[i].shape) for i in range(last, last + 3)), params["reverse"], tile, weights.BLOCK_TERMS,
        Workers(FLOP_NS * flops), *(Array(SCRATCH, i) for i in range(3)),
        Array(OUTPUT, 0, (gates, inputs)), Array(OUTPUT, 1, (gates, hidden)), Array(OUTPUT, 2), Array(OUTPUT, outputs - 1),
    )  # fmt: skip
    cost = Cost(nanoseconds=FLOP_NS * flops)
    launch = Launch(weights.weights_grad, args)
    return LaunchPlan((launch,), (CONTIGUOUS,) * len(operands), (Output(),) * outputs, scratch, cost=cost)


recurrent_weights = (Implementation("kernel", _weights),)
