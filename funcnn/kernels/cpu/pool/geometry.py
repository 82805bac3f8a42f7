"""Where the rows that pooling spreads by phase lie (``rows.py``), worked out once for a plan."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.pool.rows import TOGETHER
from funcnn.kernels.cpu.pool.windows import three


class Where(NamedTuple):
    """Windows of one size in three dimensions."""

    size: tuple
    stride: tuple
    padding: tuple
    dilation: tuple = (1, 1, 1)


def where_of(size: tuple, stride: tuple, padding: tuple, dilation: tuple = ()) -> Where:
    """The same windows in the three dimensions that kernels know."""
    return Where(three(size, 1), three(stride, 1), three(padding, 0), three(dilation, 1))


class Spread(NamedTuple):
    """A row spread by phase: numbers in front of each phase, how far apart phases are, and the slack behind a row."""

    margin: int
    apart: int
    slack: int


def slack_of(itemsize: int) -> int:
    """How many numbers beyond the end of a row may be read and written."""
    return TOGETHER * vector_bytes() // itemsize


def vectors(count: int, itemsize: int) -> int:
    """The numbers of whole vectors that hold at least so many."""
    lanes = vector_bytes() // itemsize
    return -(-count // lanes) * lanes


@lru_cache(256)
def spread_of(outputs: int, width: int, where: Where, itemsize: int) -> Spread:
    """Of rows of so many numbers under ``outputs`` windows: the margin is the padding, so that column 0 begins a vector."""
    size, step, padding, dilation = (part[2] for part in where)
    reached = max(-(-width // step), outputs + (size - 1) * dilation // step + 1)
    margin, slack = vectors(padding, itemsize), slack_of(itemsize)
    return Spread(margin, margin + vectors(reached, itemsize) + slack, slack)


def tap_columns(where: Where, row: Spread) -> list[int]:
    """Where in a spread row the taps of window 0 lie; those of window q are q numbers further."""
    columns = [j * where.dilation[2] - where.padding[2] for j in range(where.size[2])]
    return [column % where.stride[2] * row.apart + row.margin + column // where.stride[2] for column in columns]


def line_length(width: int, where: Where, row: Spread) -> int:
    """Numbers of a line that is spread in two goes, first as it is: for steps above 2."""
    return width + row.slack if where.stride[2] > 2 else 1
