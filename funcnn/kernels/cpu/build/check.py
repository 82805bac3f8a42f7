"""``FUNCNN_CHECK=1``: every kernel works on copies of its arrays, between bands that show what went outside.

Copied are inputs, outputs and scratch; arrays that share memory share their copy. The bands hold NaN, or a number that no
index may be, so what is read outside spoils the results or ends the process, and what is written there is found when the
kernel returns. What it wrote inside is copied back. Before, each array is compared with what the kernel declares that it
touches (``facts.py``). Tables of addresses are taken for arrays: the memory behind them is copied, and the kernel gets a
table of the copies. Fresh memory is filled with NaN, too (``memory.py``), and scratch that kernels make themselves lies
between bands as well (``scratch.py``). It costs some microseconds an array and is meant for tests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.facts import evaluated, given_by_name

BAND_BYTES = 4096  # bytes before and behind
LINE_BYTES = 64  # copies lie as their originals do within a line of the cache
_QUIET = {2: 0x7E5A, 4: 0x7FC5A5A5, 8: 0x7FF85A5A5A5A5A5A}  # NaN whose other bits are known
_NOWHERE = {1: 0xAA, 2: 0x2AAA, 4: 0x2AAAAAAA, 8: 0x2AAAAAAAAAAAAAAA}  # an index there is no memory for


class CheckError(RuntimeError):
    """Reports that a kernel touched, or would have touched, memory outside its arrays."""


def filler(dtype: np.dtype) -> bytes:
    """Returns the bytes of one element of a band: NaN, or an integer that is no valid index."""
    if dtype.kind == "f":
        return _QUIET[dtype.itemsize].to_bytes(dtype.itemsize, "little")
    return _NOWHERE.get(dtype.itemsize, 0xAA).to_bytes(dtype.itemsize, "little")


def fill(array: np.ndarray) -> np.ndarray:
    """Fills new memory so that an element that was never written shows; bools are True."""
    if array.dtype.kind == "b":
        array[...] = True
    elif array.size:
        array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize)[...] = np.frombuffer(filler(array.dtype), np.uint8)
    return array


def around(kernel: Any, args: tuple) -> Any:
    """Calls a kernel on arrays between bands."""
    return run(kernel, kernel.compiled, args)


def run(kernel: Any, call: Callable, args: tuple) -> Any:
    """Calls a kernel on copies. Raises ``CheckError``."""
    named = given_by_name(kernel, args)
    pieces: list[Piece] = []
    _compare(kernel, named)
    for name, value in named.items():
        _gather(name, value, pieces)
        if name in kernel.facts.tables:
            pieces += _behind(kernel, name, named)
    groups = _grouped(pieces)
    for group in groups:
        group.copy()
    copies = {id(piece.array): piece.moved for piece in pieces if piece.array is not None}
    for piece in pieces:
        if piece.place is not None:
            copies[id(named[piece.place[0]])][(0, *piece.place[1:])] = piece.moved
    for group in groups:
        group.before = group.inside().copy()
    try:
        result = call(*[_replaced(value, copies) for value in named.values()])
    except RuntimeError as error:
        raise CheckError(f"kernel {kernel.__name__}: {error}") from error
    finally:
        for group in groups:
            group.restore()
    for group in groups:
        group.verify(kernel.__name__)
    return result


# ---- declarations -------------------------------------------------------------------------------------------------------
def _compare(kernel: Any, named: dict[str, Any]) -> None:
    for name, rule in kernel.facts.touches.items():
        array, touched = named[name], int(evaluated(rule, named))
        if array.size < touched:
            raise CheckError(
                f"kernel {kernel.__name__} touches {touched} numbers of its argument {name}, which has {array.size}, "
                f"{array.dtype}{array.shape}; the other arguments are {_told(named)}"
            )


def _told(named: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v.dtype}{v.shape}" if isinstance(v, np.ndarray) else f"{k}={v}" for k, v in named.items())


# ---- memory -------------------------------------------------------------------------------------------------------------
class Piece:
    """Describes the memory of one array, or behind one address of a table."""

    def __init__(self, name: str, array: np.ndarray | None, start: int, size: int, dtype: np.dtype, place: Any = None):
        self.name, self.array, self.place = name, array, place  # place: in a table
        self.start, self.end, self.dtype = start, start + size, dtype
        self.moved: Any = None  # the copy of the array, or its address


class Group:
    """Joins pieces that share memory, from the first byte to the last."""

    def __init__(self, piece: Piece):
        self.pieces, self.start, self.end = [piece], piece.start, piece.end
        self.before = np.zeros(0, np.uint8)  # what the copy held before the call

    def copy(self) -> None:
        """Makes the copy between its bands, and each piece in it."""
        self.size = self.end - self.start
        self.room = np.empty(self.size + 2 * BAND_BYTES + 2 * LINE_BYTES, np.uint8)
        base = self.room.ctypes.data
        self.first = BAND_BYTES + (self.start - base - BAND_BYTES) % LINE_BYTES
        self.inside()[...] = _memory(self.start, self.size)
        low, high = min(self.pieces, key=lambda p: p.start), max(self.pieces, key=lambda p: p.end)
        self.low = np.frombuffer(filler(low.dtype) * (BAND_BYTES // low.dtype.itemsize), np.uint8)
        self.high = np.frombuffer(filler(high.dtype) * (BAND_BYTES // high.dtype.itemsize), np.uint8)
        self.bands()[0][...], self.bands()[1][...] = self.low, self.high
        for piece in self.pieces:
            offset = self.first + piece.start - self.start
            piece.moved = base + offset
            if (a := piece.array) is not None:
                origin = offset + a.__array_interface__["data"][0] - piece.start if a.size else self.first
                piece.moved = np.ndarray(a.shape, a.dtype, self.room, origin, a.strides)
                piece.moved.flags.writeable = a.flags.writeable

    def inside(self) -> np.ndarray:
        """Returns the bytes of the copy."""
        return self.room[self.first : self.first + self.size]

    def bands(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bytes before and behind the copy."""
        end = self.first + self.size
        return self.room[self.first - self.low.size : self.first], self.room[end : end + self.high.size]

    def restore(self) -> None:
        """Copies back only the bytes that changed, for another thread may write the others."""
        changed = self.inside() != self.before
        if changed.any():
            _memory(self.start, self.size)[changed] = self.inside()[changed]

    def verify(self, kernel: str) -> None:
        """Raises ``CheckError`` where a band changed."""
        for band, wanted, before in zip(self.bands(), (self.low, self.high), (True, False), strict=True):
            spoiled = np.flatnonzero(band != wanted)
            if spoiled.size:
                piece = min(self.pieces, key=lambda p: p.start) if before else max(self.pieces, key=lambda p: p.end)
                far = band.size - spoiled[-1] if before else spoiled[0] + 1
                raise CheckError(
                    f"kernel {kernel} wrote {spoiled.size} bytes {'before' if before else 'behind'} its argument "
                    f"{piece.name} of {(piece.end - piece.start) // piece.dtype.itemsize} numbers ({piece.dtype}), the nearest "
                    f"{far} bytes away"
                )


def _memory(start: int, size: int) -> np.ndarray:
    memory: Any = (ctypes.c_char * size).from_address(start)
    return np.frombuffer(memory, np.uint8) if size else np.empty(0, np.uint8)


def _gather(name: str, value: Any, pieces: list[Piece]) -> None:
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            _gather(f"{name}[{i}]", part, pieces)
    elif isinstance(value, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(value) if value.size else (value.ctypes.data,) * 2
        pieces.append(Piece(name, value, low, high - low, value.dtype))


def _behind(kernel: Any, name: str, named: dict[str, Any]) -> list[Piece]:
    """Lists the memory behind the addresses ``table[0]``, and compares the lengths ``table[1]`` with what is touched."""
    pieces = []
    (places, lengths), rows = named[name], evaluated(kernel.facts.tables[name], named)
    for r, row in enumerate(rows):
        for i, touched in enumerate(row.touched):
            if lengths[r, i] < touched:
                raise CheckError(
                    f"kernel {kernel.__name__} touches {touched} numbers behind {name}[{r}, {i}], of which there are "
                    f"{lengths[r, i]} ({np.dtype(row.dtype)})"
                )
            dtype = np.dtype(row.dtype)
            size = int(lengths[r, i]) * dtype.itemsize
            pieces.append(Piece(f"{name}[{r}, {i}]", None, int(places[r, i]), size, dtype, (name, r, i)))
    return pieces


def _grouped(pieces: list[Piece]) -> list[Group]:
    groups: list[Group] = []
    for piece in sorted(pieces, key=lambda p: (p.start, p.end)):
        last = groups[-1] if groups else None
        if last is not None and piece.start < last.end and piece.end > piece.start:
            last.pieces.append(piece)
            last.end = max(last.end, piece.end)
        else:
            groups.append(Group(piece))
    return groups


def _replaced(value: Any, copies: dict[int, np.ndarray]) -> Any:
    if isinstance(value, tuple):
        parts = [_replaced(part, copies) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return copies.get(id(value), value) if isinstance(value, np.ndarray) else value
