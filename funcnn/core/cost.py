"""What one application of a primitive costs, by the rules that it declares: part of its launch plan, and what a profiler reads.

A primitive declares its flops and, where they are not those of every input read once and every output written once, its
bytes (``Primitive.flops``, ``.bytes``; ``ops.base.costs`` has the rules and their conventions). A user's that declares nothing
is charged 1 flop for each element of its first output, when it handles floating-point numbers.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import Cost


class Sized(NamedTuple):
    """What a rule knows of an array; ``nbytes`` without what broadcasting repeats."""

    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int

    @property
    def size(self) -> int:
        """Counts the elements."""
        return prod(self.shape)


def flops_of(prim: Any, ins: list, outs: list, params: dict) -> float:
    """Returns the flops by the rule that the primitive declares, or what one without a rule is charged."""
    if prim.flops is not None:
        return float(prim.flops(ins, outs, params))
    return float(outs[0].size) if outs and any(a.dtype.kind == "f" for a in (*ins, *outs)) else 0.0


def bytes_of(prim: Any, ins: list, outs: list, params: dict) -> float:
    """Returns the bytes by the rule that the primitive declares, or those of all inputs and all outputs."""
    return float(sum(a.nbytes for a in (*ins, *outs)) if prim.bytes is None else prim.bytes(ins, outs, params))


def cost_of(prim: Any, operands: tuple[Operand, ...], outs: list, params: dict, nanoseconds: float) -> Cost:
    """Returns the cost of an application to operands, as far as rules tell: one that raises counts as none."""
    ins = [Sized(x.shape, x.dtype, x.without(x.repeated).nbytes) for x in operands]
    made = [Sized(shape, dtype, prod(shape) * dtype.itemsize) for shape, dtype, *_ in outs]
    found: list[float] = []
    for rule in (flops_of, bytes_of):
        try:
            found.append(rule(prim, ins, made, params))
        except Exception:  # a wrong rule of a user's: the profiler tells of it, and nothing else needs it
            found.append(0.0)
    return Cost(found[0], found[1], nanoseconds)
