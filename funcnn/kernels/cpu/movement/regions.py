"""How parts are joined, reversed, set into a frame, a slice or a diagonal on the CPU: plans of strided copies.

A region is a block of flat memory: sizes, strides and a first element, all counted in elements. Each primitive says which
region of its operand goes to which region of its output; what lies outside holds what the output starts with.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.creation.launch import bits_of, filling
from funcnn.kernels.cpu.movement.strided import copy_strided
from funcnn.kernels.implementation import Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.layouts import contiguous_steps, laid
from funcnn.kernels.plan_parts import Parts

Operands = tuple[Operand, ...]
NANOSECONDS = 0.1  # of one byte, both ways
BYTES_FOR_KERNEL = 1 << 19  # below, NumPy's copy costs less


class Region(NamedTuple):
    """Names elements of flat memory by their strides along some axes and by the first of them."""

    strides: tuple[int, ...]
    first: int = 0


def collapsed(sizes: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Returns (size, stride in the source, in the target) of as few axes as cover the same elements, outermost first."""
    axes: list[tuple[int, int, int]] = []
    for size, step, stride in zip(sizes, source, target, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == step * size and axes[-1][2] == stride * size:
            axes[-1] = (axes[-1][0] * size, step, stride)
        else:
            axes.append((size, step, stride))
    return axes or [(1, 1, 1)]


def copying(
    parts: Parts, x: Array, source: Region, out: Array, target: Region, sizes: tuple[int, ...], nanoseconds: float
) -> Launch:
    """Returns the launch that copies a region of x to a region of out, both as unsigned integers of their elements' size."""
    table = parts.constant(np.array(collapsed(sizes, source.strides, target.strides), np.int64).T.reshape(-1))
    return Launch(copy_strided, (x, source.first, out, target.first, table, Workers(nanoseconds)))


def laid_out(
    parts: Parts, x: Array, strides: tuple[int, ...], out: Array, sizes: tuple[int, ...], dtype: Any
) -> Launch:
    """Returns the launch that makes out contiguous from elements of a dtype that have these strides in x."""
    bits, moved = bits_of(np.dtype(dtype)), prod(sizes) * np.dtype(dtype).itemsize
    x, out = x._replace(dtype=bits), out._replace(dtype=bits)
    return copying(parts, x, Region(strides), out, Region(contiguous_steps(sizes)), sizes, moved * NANOSECONDS)


class Copies:
    """Gathers the launches of a plan that copies regions of its operands to regions of its output."""

    def __init__(self, out: tuple[int, ...], dtype: np.dtype):
        self.parts = Parts()
        self.launches: list[Launch] = []
        self.bits, self.itemsize, self.size = bits_of(dtype), dtype.itemsize, prod(out)
        self.bytes = 0

    def fill(self, number: np.ndarray) -> None:
        """Sets the whole output to a 0-d array of its dtype."""
        self.launches.append(filling(self.size, number))

    def copy(self, number: int, sizes: tuple[int, ...], source: Region, target: Region) -> None:
        """Copies a region of an input of these sizes; nothing where it is empty."""
        moved = prod(sizes) * self.itemsize
        if not moved:
            return
        x, out = Array(INPUT, number, dtype=self.bits), Array(OUTPUT, 0, dtype=self.bits)
        self.launches.append(copying(self.parts, x, source, out, target, sizes, moved * NANOSECONDS))
        self.bytes += 2 * moved

    def plan(self, inputs: tuple[Access, ...], holds: str | int = "anything") -> LaunchPlan:
        """Makes the plan; holds: what the output starts with."""
        output = Output(holds, () if isinstance(holds, str) else (holds,))
        cost = Cost(nanoseconds=self.bytes * NANOSECONDS / 2)
        return self.parts.plan(tuple(self.launches), inputs, (output,), cost=cost)


# ---- joined, reversed, framed -------------------------------------------------------------------------------------------
def _cat(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    dim, first = params["dim"], operands[0]
    out = (*first.shape[:dim], sum(x.shape[dim] for x in operands), *first.shape[dim + 1 :])
    copies, strides, at, inputs = Copies(out, first.dtype), contiguous_steps(out), 0, []
    for number, x in enumerate(operands):
        access, source = laid(x)
        copies.copy(number, x.shape, Region(source), Region(strides, at * strides[dim]))
        at += x.shape[dim]
        inputs.append(access)
    return copies.plan(tuple(inputs))


def _flip(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    (x,) = operands
    access, strides = laid(x)
    copies = Copies(x.shape, x.dtype)
    last = sum((x.shape[axis] - 1) * strides[axis] for axis in params["dims"])
    turned = tuple(-stride if axis in params["dims"] else stride for axis, stride in enumerate(strides))
    copies.copy(0, x.shape, Region(turned, last), Region(contiguous_steps(x.shape)))
    return copies.plan((access,))


def _pad(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    (x,), widths = operands, params["widths"]
    out = tuple(size + before + after for size, (before, after) in zip(x.shape, widths, strict=True))
    access, source = laid(x)
    copies, strides = Copies(out, x.dtype), contiguous_steps(out)
    if prod(out):
        copies.fill(np.full((), params["value"], x.dtype))
    begin = sum(before * stride for (before, _), stride in zip(widths, strides, strict=True))
    copies.copy(0, x.shape, Region(source), Region(strides, begin))
    return copies.plan((access,))


def _clone(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    (x,) = operands
    access, source = laid(x)
    copies = Copies(x.shape, x.dtype)
    copies.copy(0, x.shape, Region(source), Region(contiguous_steps(x.shape)))
    return copies.plan((access,))


# ---- slices and diagonals -----------------------------------------------------------------------------------------------
def _slice(shape: tuple[int, ...], starts: tuple, steps: tuple) -> Region:
    strides = contiguous_steps(shape)
    first = sum(start * stride for start, stride in zip(starts, strides, strict=True))
    return Region(tuple(step * stride for step, stride in zip(steps, strides, strict=True)), first)


def _slice_place(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    (x,) = operands
    access, source = laid(x)
    copies = Copies(params["shape"], x.dtype)
    copies.copy(0, x.shape, Region(source), _slice(params["shape"], params["starts"], params["steps"]))
    return copies.plan((access,), "zeros")


def _slice_put(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    base, new = operands
    access, source = laid(new)
    copies = Copies(base.shape, base.dtype)
    copies.copy(1, new.shape, Region(source), _slice(base.shape, params["starts"], params["steps"]))
    return copies.plan((Access(any=True), access), 0)


def _diagonal_put(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    (base, new), offset = operands, params["offset"]
    access, source = laid(new)
    *lead, down, across = contiguous_steps(base.shape)
    copies = Copies(base.shape, base.dtype)
    begin = max(-offset, 0) * down + max(offset, 0) * across
    copies.copy(1, new.shape, Region(source), Region((*lead, down + across), begin))
    return copies.plan((Access(any=True), access), 0)


def _is_large(operands: Operands, params: dict[str, Any]) -> bool:
    return sum(x.nbytes for x in operands) >= BYTES_FOR_KERNEL


def _made(plan: Any) -> Implementation:
    return Implementation("kernel", plan, _is_large)


CAT, FLIP, PAD, CLONE = map(_made, (_cat, _flip, _pad, _clone))
SLICE_PLACE, SLICE_PUT, DIAGONAL_PUT = map(_made, (_slice_place, _slice_put, _diagonal_put))
