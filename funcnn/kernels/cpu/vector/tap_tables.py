"""Tables of which elements make an output, as ``kernels.cpu.vector.table_taps`` reads them: tap-major, rows of whole vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funcnn.kernels.cpu.vector.table_taps import ABSENT, PITCH_MULTIPLE
from funcnn.kernels.launch import Constant

# Outputs that a group of planes has at least, so that few lanes of its vectors are idle.
GROUP_OUTPUTS = 4 * PITCH_MULTIPLE


def widths(index: np.ndarray) -> tuple[int, int]:
    """Returns taps and pitch of a table."""
    return index.shape[0], -(-index.shape[1] // PITCH_MULTIPLE) * PITCH_MULTIPLE


def padded(rows: np.ndarray) -> np.ndarray:
    """Returns rows filled up to whole vectors with zeros, flat; indices are then 32-bit."""
    taps, pitch = widths(rows)
    out = np.zeros((taps, pitch), np.int32 if rows.dtype.kind == "i" else rows.dtype)
    out[:, : rows.shape[1]] = rows
    return out.reshape(-1)


class PlaneTable(NamedTuple):
    """What ``kernels.cpu.pool.plane`` wants to know: a group of planes, then one plane, in each array."""

    indices: Constant
    corners: Constant
    sizes: tuple  # (taps, pixels, outputs, group, pitch, pitch of one plane)

    def each(self, numbers: np.ndarray) -> np.ndarray:
        """Returns a number for each output of a plane, or a row (taps, outputs) of them, in the order of the table."""
        rows, group = np.atleast_2d(numbers), self.sizes[3]
        return np.concatenate([padded(np.tile(rows, group)), padded(rows)])


def listed(ranges: list[np.ndarray], sizes: tuple, dilation: tuple = (1, 1, 1)) -> np.ndarray:
    """(taps, outputs): the places, row by row, that each output's ranges along the axes span; -1 beyond them.

    ranges: for each axis (outputs, 2), start and end of what is ``dilation`` apart; beyond the axis's size there is nothing.
    """
    places, there = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for span, size, apart in zip(ranges, sizes, dilation[-len(sizes) :], strict=True):
        steps = np.arange(max(1, int((span[:, 1] - span[:, 0]).max(initial=0))))[:, None]
        along = span[:, 0] + apart * steps
        inside = (steps < span[:, 1] - span[:, 0]) & (along >= 0) & (along < size)
        taps, outputs = len(places) * len(steps), places.shape[1] * len(span)
        places = (places[:, None, :, None] * size + along[None, :, None]).reshape(taps, outputs)
        there = (there[:, None, :, None] & inside[None, :, None]).reshape(taps, outputs)
    return np.where(there, places, -1)


def plane_table(places: np.ndarray, pixels: int, repeat: bool) -> PlaneTable:
    """Returns the table of ``listed`` places in planes of so many pixels; with ``repeat`` a missing tap is the one before it."""
    if repeat:  # which changes no maximum, and no place
        rows = np.maximum.accumulate(np.where(places < 0, -1, np.arange(len(places))[:, None]))
        first = (places >= 0).argmax(0)
        places = np.take_along_axis(places, np.where(rows < 0, first, rows), 0)
    outputs = places.shape[1]
    group = max(1, -(-GROUP_OUTPUTS // outputs))
    shift = np.repeat(np.arange(group) * pixels, outputs)
    tiled = np.tile(places, group)
    many = np.where(tiled < 0, ABSENT, tiled + shift)
    one = np.where(places < 0, ABSENT, places)
    bases = np.concatenate([padded(shift[None]), np.zeros(widths(one)[1], np.int32)])
    sizes = (len(places), pixels, outputs, group, widths(many)[1], widths(one)[1])
    return PlaneTable(Constant(np.concatenate([padded(many), padded(one)])), Constant(bases), sizes)


def table_bytes(taps: int, outputs: int) -> int:
    """Returns how large the indices of a group are."""
    return 4 * taps * outputs * max(1, -(-GROUP_OUTPUTS // outputs))
