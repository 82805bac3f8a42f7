"""What plans of pooling have in common, and those that go by the places of maxima."""

from __future__ import annotations

from math import prod
from typing import Any

from funcnn.kernels.cpu.pool import places as kernels
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Status, Workers

CHUNK_ELEMENTS = 1 << 14  # that one chunk reads or writes: some 10 us
TAPS = 1 << 18  # taps of windows that one chunk takes in vector registers: some 30 us
NUMBER_NS = 0.25  # nanoseconds on one thread for a number that a kernel reads, or a tap in vector registers
SCALAR_NS, WINDOW_NS = 1.0, 10.0  # ... for a number that a kernel handles alone, and for a window of those


def images_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(N, C, *S) as (N * C, D, H, W)."""
    n, c, *space = shape
    return (n * c, *(1,) * (3 - len(space)), *space)  # type: ignore[return-value]


def nothing(outs: int, ins: int = 1) -> LaunchPlan:
    """The plan of empty outputs."""
    return LaunchPlan((), (ANY,) * ins, (Output(),) * outs)


def chunk_of(work: int) -> int:
    """How many rows of ``work`` numbers make a chunk."""
    return max(1, CHUNK_ELEMENTS // max(work, 1))


def rows_together(rows: int, taps: int) -> int:
    """How many of ``rows`` rows of ``taps`` taps each make a chunk; there are 16 chunks or more where rows suffice."""
    return max(1, min(TAPS // max(taps, 1), rows // 16))


# ---- by places --------------------------------------------------------------------------------------------------------
def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0] * shape[1], prod(shape[2:])


def _by_image(kernel: Any, operands: tuple[Operand, ...], out: tuple[int, ...], **more: Any) -> LaunchPlan:
    """A kernel that takes (images, numbers), the places, and gives (images, numbers)."""
    source, index = operands
    if not prod(out):
        return nothing(1, 2)
    work = SCALAR_NS * index.size + NUMBER_NS * prod(out)
    rows, places, target = _rows(source.shape), _rows(index.shape), _rows(out)
    args = (
        Array(INPUT, 0, rows), Array(INPUT, 1, places), Array(OUTPUT, 0, target), *more.pop("extra", ()),
        chunk_of(places[1] + target[1]), Workers(work),
    )  # fmt: skip
    moved = source.nbytes + index.nbytes + prod(out) * source.itemsize
    cost = Cost(index.size, moved, work)
    return LaunchPlan((Launch(kernel, args),), (CONTIGUOUS, CONTIGUOUS), (Output(),), cost=cost, **more)


def _scatter(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    return _by_image(kernels.pool_scatter, operands, (*operands[0].shape[:2], *params["size"]))


def _gather(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    return _by_image(kernels.pool_gather, operands, operands[1].shape)


OUTSIDE = "an index outside the output"


def _unpool(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    out = (*operands[0].shape[:2], *params["size"])
    return _by_image(kernels.max_unpool, operands, out, extra=(Status(),), refusals=(OUTSIDE,))


scatters = (Implementation("kernel", _scatter),)
gathers = (Implementation("kernel", _gather),)
unpools = (Implementation("kernel", _unpool),)
