"""Tables of addresses: how a kernel gets a list of arrays (``kernels.launch.Table``)."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any
from weakref import ref

import numpy as np

from funcnn.kernels.launch import Table

ADDRESSES = 0  # of the first axis of a table; 1: lengths


def address(array: np.ndarray, _byte: Any = ctypes.c_char) -> int:
    """Returns where a contiguous array's memory begins."""
    try:
        return ctypes.addressof(_byte.from_buffer(array))  # a quarter of the time of array.ctypes.data
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data


def with_lengths(table: Table, sizes: dict[tuple[str, int], int]) -> np.ndarray:
    """Makes a table of int64, of shape (2, rows, columns), that has the lengths of its buffers and no addresses yet."""
    found = [[sizes[one] for one in row] for row in table.rows]
    return np.array([np.zeros_like(found), found], np.int64)


class Addresses:
    """Makes the table of one argument; ``addresses(buffers)`` makes a new one, for threads may run one plan at a time."""

    __slots__ = ("blank", "places")

    def __init__(self, table: Table, shapes: dict[tuple[str, int], tuple[int, Any]]):
        named = {one for row in table.rows for one in row}
        self.places = [shapes[one][0] for row in table.rows for one in row]
        self.blank = with_lengths(table, {one: prod(shapes[one][1]) for one in named})

    def __call__(self, buffers: list) -> np.ndarray:
        table = self.blank.copy()
        table[ADDRESSES].flat = [address(buffers[place]) for place in self.places]
        return table

    def repeated(self, buffers: list, changing: set[int]) -> RepeatedAddresses:
        """Returns what makes the table again where only the buffers at the places ``changing`` may be others."""
        return RepeatedAddresses(self.places, self(buffers), buffers, changing)


class RepeatedAddresses:
    """Makes a table again and again of which most addresses stay. It is the caller who knows that these arrays are alive."""

    __slots__ = ("changing", "table")

    def __init__(self, places: list[int], table: np.ndarray, buffers: list, changing: set[int]):
        self.table = table
        found = table[ADDRESSES].ravel().tolist()
        self.changing = [
            (at, place, ref(buffers[place]), found[at]) for at, place in enumerate(places) if place in changing
        ]

    def __call__(self, buffers: list) -> np.ndarray:
        table = self.table.copy()
        flat = table.reshape(-1)  # the addresses come first
        for at, place, array, before in self.changing:
            now = buffers[place]
            flat[at] = before if array() is now else address(now)
        return table
