"""The table of numbers of a gather or scatter (``geometry.py``), made from the shapes and layouts of its operands."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from funcnn.kernels.cpu.indexing.scatter import THERE
from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import Constant
from funcnn.kernels.layouts import contiguous_steps

CHUNK_BYTES = 1 << 15  # that a chunk of a gather writes
RANGE_BYTES = 1 << 18  # of x that a chunk of a scatter starts and puts into: a part of the second-level cache
LEAST_LOOP = (
    8  # places: fewer of them are no loop worth having, where there is another; of a line's elements, no vector
)
INDEX_NS, PUT_NS, BYTE_NS = 0.5, 1.0, 0.1  # an index read again, an element put, a byte of x started
PARTS, RANGES = 32, 8  # at most, of lines and of places; each range reads all indices


class Lane(NamedTuple):
    """An axis that x and y share, or that of places: its size, and how far apart neighbours lie in x, the index and y."""

    size: int
    x: int
    picks: int
    y: int


class Chunks(NamedTuple):
    """How many rows, places and elements of a line make a chunk."""

    rows: int
    places: int
    line: int


def merged(lanes: list[Lane]) -> list[Lane]:
    """The axes, as few as go through the same elements in the same order."""
    found: list[Lane] = []
    for lane in lanes:
        if lane.size == 1:
            continue
        if found and all(a == b * lane.size for a, b in zip(found[-1][1:], lane[1:], strict=True)):
            lane = Lane(found.pop().size * lane.size, *lane[1:])
        found.append(lane)
    return found


class Problem(NamedTuple):
    """A gather or scatter: rows, places and lines (``geometry.py``)."""

    rows: list[Lane]
    place: Lane
    line: Lane
    limits: tuple[int, int, int]  # LENGTH, LEAST, WRAP
    operand: int
    seen: list[
        tuple[int, int]
    ]  # the index as an operand: size, and step in elements of it, of the axes that are not repeated

    @property
    def outer(self) -> int:
        """Counts the rows."""
        return prod(lane.size for lane in self.rows)

    @property
    def moved(self) -> int:
        """Counts the elements of y."""
        return self.outer * self.place.size * self.line.size

    @property
    def by_line(self) -> bool:
        """Whether a line has one index."""
        return self.line.size > 1 and self.line.picks == 0

    def table(self, chunks: Chunks, start: int = THERE) -> Constant:
        """The numbers, in the order of the names of ``geometry.py``."""
        place, line = self.place, self.line
        head = [self.outer, place.size, line.size, *self.limits, self.operand,
                place.x, line.x, place.picks, line.picks, place.y, line.y, *chunks, start, len(self.rows), len(self.seen)]  # fmt: skip
        return Constant(np.array([*head, *sum(self.rows, ()), *sum(self.seen, ())], np.int64))

    def pieces(self, chunks: Chunks, places: int) -> int:
        """Counts the chunks of so many places."""
        return -(-self.outer // chunks.rows) * -(-places // chunks.places) * -(-self.line.size // chunks.line)

    def gather_chunks(self, itemsize: int) -> Chunks:
        """Chunks of a gather, which write so many bytes of y each."""
        most, place, line = CHUNK_BYTES // itemsize, self.place.size, self.line.size
        if place * line <= most:
            return Chunks(most // (place * line), place, line)
        return Chunks(1, max(1, most // line), min(line, most))

    def scatter_chunks(self, itemsize: int) -> Chunks:
        """Chunks of a scatter: rows of x, or ranges of places or parts of lines where there are few rows."""
        length, place, line, rows = self.limits[0], self.place.size, self.line.size, self.outer
        size = max(1, (length * itemsize + place * (itemsize + 8)) * line)
        together = max(1, min(RANGE_BYTES // size, -(-rows // PARTS)))
        if rows > 2 * together or line < LEAST_LOOP:
            return Chunks(together, max(1, length), line)
        wanted = -(-size // RANGE_BYTES) + 1
        if not self.by_line:
            return Chunks(together, max(1, length), max(LEAST_LOOP, -(-line // min(wanted, PARTS))))
        gain = place * line * PUT_NS + length * line * itemsize * BYTE_NS
        ranges = max(1, min(wanted, RANGES, int(gain / (INDEX_NS * max(place, 1)))))
        return Chunks(together, max(1, -(-length // ranges)), line)


def problem(
    lanes: list[Lane], dim: int, place: Lane, limits: tuple[int, int, int], operand: int, index: Operand
) -> Problem:
    """The problem of an axis of places in front of lane ``dim``, in the order of y's axes; none may be empty.

    index: what the kernel reads as operand ``operand``, by its axes.
    """
    before, after = merged(lanes[:dim]), merged(lanes[dim:])
    line = Lane(1, 1, 0, 1)
    if after:
        line = after.pop()
    elif before and place.size < min(LEAST_LOOP, before[-1].size):
        line = before.pop()
    kept = [axis for axis in range(index.ndim) if axis not in index.repeated]
    steps = contiguous_steps(index.shape)
    seen = [(index.shape[axis], steps[axis]) for axis in kept]
    return Problem([*before, *after], place, line, limits, operand, seen)


def empty_problem(limits: tuple[int, int, int], operand: int, index: Operand) -> Problem:
    """What checks an index of which nothing is moved."""
    return problem([], 0, Lane(1, 0, 0, 0), limits, operand, index)


def bytes_of(dtype: np.dtype) -> str | None:
    """The dtype as which elements are moved: one of the same size, the same for all dtypes of a size; None: their own."""
    name = {1: "uint8", 2: "uint16", 4: "float32", 8: "float64"}[dtype.itemsize]
    return None if dtype.name == name else name
