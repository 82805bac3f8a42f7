"""The layout of the rows that pooling splits by phase (``rows.py``), worked out once for a plan."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.pool.rows import GROUP_VECTORS
from funcnn.kernels.cpu.pool.windows import three


class Window(NamedTuple):
    """Windows of one size in three dimensions."""

    size: tuple
    stride: tuple
    padding: tuple
    dilation: tuple = (1, 1, 1)


def window_of(size: tuple, stride: tuple, padding: tuple, dilation: tuple = ()) -> Window:
    """Returns the same windows in the three dimensions that kernels know."""
    return Window(three(size, 1), three(stride, 1), three(padding, 0), three(dilation, 1))


class Phases(NamedTuple):
    """A row split by phase: elements in front of each phase, how far apart phases are, and the slack behind a row."""

    margin: int
    apart: int
    slack: int


def slack_of(itemsize: int) -> int:
    """Returns how many elements beyond the end of a row may be read and written."""
    return GROUP_VECTORS * vector_bytes() // itemsize


def vectors(count: int, itemsize: int) -> int:
    """Returns the elements of whole vectors that hold at least so many."""
    lanes = vector_bytes() // itemsize
    return -(-count // lanes) * lanes


@lru_cache(256)
def phases_of(outputs: int, width: int, window: Window, itemsize: int) -> Phases:
    """Returns the phases of rows of so many elements under ``outputs`` windows: the margin is the padding, so that column 0 begins a vector."""
    size, step, padding, dilation = (part[2] for part in window)
    reached = max(-(-width // step), outputs + (size - 1) * dilation // step + 1)
    margin, slack = vectors(padding, itemsize), slack_of(itemsize)
    return Phases(margin, margin + vectors(reached, itemsize) + slack, slack)


def tap_columns(window: Window, row: Phases) -> list[int]:
    """Returns the offsets in a row by phase of the taps of window 0; those of window q are q elements further."""
    columns = [j * window.dilation[2] - window.padding[2] for j in range(window.size[2])]
    return [column % window.stride[2] * row.apart + row.margin + column // window.stride[2] for column in columns]


def line_length(width: int, window: Window, row: Phases) -> int:
    """Returns the elements of a line that is split in two goes, first as it is: for steps above 2."""
    return width + row.slack if window.stride[2] > 2 else 1
