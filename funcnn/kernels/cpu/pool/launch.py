"""What plans of pooling have in common, and those that go by the places of maxima."""

from __future__ import annotations

from math import prod
from typing import Any

from funcnn.kernels.cpu.indexing.moves import picked_rows, put_rows
from funcnn.kernels.implementation import ANY, Implementation, Operand
from funcnn.kernels.launch import LaunchPlan, Output

CHUNK_ELEMENTS = 1 << 14  # that one chunk reads or writes: some 10 us
CHUNK_TAPS = 1 << 18  # of windows that one chunk takes in vector registers: some 30 us
ELEMENT_NS = 0.25  # nanoseconds on one thread for an element that a kernel reads, or a tap in vector registers
SCALAR_NS, WINDOW_NS = 1.0, 10.0  # ... for an element that a kernel handles alone, and for a window of those


def images_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns (N, C, *S) as (N * C, D, H, W)."""
    n, c, *space = shape
    return (n * c, *(1,) * (3 - len(space)), *space)  # type: ignore[return-value]


def nothing(outs: int, ins: int = 1) -> LaunchPlan:
    """Returns the plan of empty outputs."""
    return LaunchPlan((), (ANY,) * ins, (Output(),) * outs)


def chunk_of(work: int) -> int:
    """Returns how many rows of ``work`` elements make a chunk."""
    return max(1, CHUNK_ELEMENTS // max(work, 1))


def rows_together(rows: int, taps: int) -> int:
    """Returns how many of ``rows`` rows of ``taps`` taps each make a chunk; there are 16 chunks or more where rows suffice."""
    return max(1, min(CHUNK_TAPS // max(taps, 1), rows // 16))


# ---- by places: images are rows, and pixels their places -----------------------------------------------------------------
def _scatter(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    dy, index = operands
    return put_rows(dy, index, 1, (prod(params["size"]), -1, 0), dy.shape[0] * dy.shape[1])


def _gather(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, index = operands
    return picked_rows(x, index, 1, (prod(x.shape[2:]), -1, 0), x.shape[0] * x.shape[1])


def _unpool(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, index = operands
    return put_rows(x, index, 1, (prod(params["size"]), 0, 0), x.shape[0] * x.shape[1], "set")


scatters = (Implementation("kernel", _scatter),)
gathers = (Implementation("kernel", _gather),)
unpools = (Implementation("kernel", _unpool),)
