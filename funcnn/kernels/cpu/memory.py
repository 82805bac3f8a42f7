"""Recycled memory for the outputs of operations.

A large array fresh from the system costs a page fault for every 4 KiB when it is first written, often more than the
operation that fills it. So the memory of large arrays that nobody refers to any more is kept and handed out again, in
size classes at most 1/8 apart, up to a limit; beyond it memory goes back to the system. Small arrays come from NumPy,
which keeps small blocks itself.

An array from here is an ordinary ``ndarray``, aligned to a page, whose base is a ``Block``; views keep the block alive, and
its destructor puts the memory back.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.facts import CHECK

RECYCLED_BYTES = 1 << 16  # bytes; below, np.empty costs less than the bookkeeping
HUGE_PAGES_BYTES = 1 << 22  # bytes; from here on ask for huge pages
_ndarray = np.ndarray


class Pool:
    """Keeps free memory by size class, and drops the classes that were filled first when the limit is passed."""

    def __init__(self, limit: int):
        self.limit = limit
        self.free: dict[int, list[mmap.mmap]] = {}
        # Reentrant: a destructor may run in a thread that holds it. Taken by ``with``, whose ends no interrupt comes between.
        self.lock = threading.RLock()
        self.empty_counts()

    def empty_counts(self) -> None:
        """Sets all counts to zero."""
        self.cached = self.used = self.peak = self.hits = self.misses = 0

    def take(self, size: int) -> mmap.mmap:
        """Returns aligned memory of exactly ``size`` bytes, recycled if there is any."""
        with self.lock:
            self.used += size
            if self.used > self.peak:
                self.peak = self.used
            shelf = self.free.get(size)
            if shelf:
                self.hits += 1
                self.cached -= size
                return shelf.pop()
            self.misses += 1
        return _fresh(size)

    def give(self, raw: mmap.mmap) -> None:
        """Keeps memory for the next ``take``, or returns it to the system when the limit is reached."""
        size = len(raw)
        with self.lock:
            self.used -= size
            if self.cached + size > self.limit:
                self._drop(size)
            if size <= self.limit:
                self.cached += size
                shelf = self.free.get(size)
                if shelf is None:
                    self.free[size] = [raw]
                else:
                    shelf.append(raw)

    def _drop(self, size: int) -> None:
        """Makes room for ``size`` bytes, and drops the classes first that were filled first."""
        for kept, shelf in list(self.free.items()):
            while shelf and self.cached + size > self.limit:
                shelf.pop()
                self.cached -= kept
            if not shelf:
                del self.free[kept]

    def clear(self) -> None:
        """Returns everything that is cached to the system."""
        with self.lock:
            self.free.clear()
            self.cached = 0


def _fresh(size: int) -> mmap.mmap:
    """Takes memory from the system, in huge pages where it has them, for those cost fewer page faults and TLB misses."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    raw = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_PAGES_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            raw.madvise(mmap.MADV_HUGEPAGE)
    return raw


def _limit() -> int:
    """Returns a quarter of the machine's memory, at most 4 GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 4 << 30
    return min(total // 4, 4 << 30)


_pool = Pool(_limit())


class Block(np.ndarray):
    """Owns an array's memory as its base, and gives it back to the pool when the last view is gone."""

    def __del__(self) -> None:
        raw = self.base
        if type(raw) is mmap.mmap:
            _pool.give(raw)


def is_large(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether ``empty`` recycles memory for such an array; else ``fresh`` makes the same at less cost."""
    return prod(shape) * dtype.itemsize >= RECYCLED_BYTES


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Makes an uninitialised contiguous array, from recycled memory when it is large."""
    size = prod(shape) * dtype.itemsize
    if size < RECYCLED_BYTES:
        return np.empty(shape, dtype)
    step = 1 << (size.bit_length() - 4)
    rounded = (size + step - 1) & -step
    return Block(shape, dtype, _pool.take(rounded)).view(_ndarray)


fresh = np.empty  # for what is small (``is_large``), and for what only one call of a kernel needs
if CHECK:  # pragma: no cover, FUNCNN_CHECK=1 runs it
    from funcnn.kernels.cpu.build.check import fill

    _empty = empty

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Makes the same array, filled with NaN or with integers that are no valid index."""
        return fill(_empty(shape, dtype))

    def fresh(shape: Any, dtype: Any = np.float64) -> np.ndarray:  # type: ignore[no-redef]
        """Makes the same array, filled in the same way."""
        return fill(np.empty(shape, dtype))


def filled(shape: tuple[int, ...], dtype: np.dtype, value: Any) -> np.ndarray:
    """Makes a contiguous array in which every element is ``value``."""
    array = empty(shape, dtype)
    array.fill(value)
    return array


def copied(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Makes a contiguous copy in the given dtype."""
    copy = empty(array.shape, dtype)
    np.copyto(copy, array, casting="unsafe")
    return copy


def owns(array: np.ndarray) -> bool:
    """Whether the array owns all of its memory, from NumPy or recycled, and is no view of another array."""
    return array.base is None or type(array.base) is Block


def sole(array: np.ndarray) -> bool:
    """Whether no other array shares the memory: it owns the memory, or is the only view of an owner that has no other reference."""
    if array.base is None or type(array.base) is Block:  # as ``owns``
        return True
    whole = isinstance(array.base, np.ndarray) and owns(array.base) and array.base.nbytes == array.nbytes
    return whole and array.flags.c_contiguous and _holders(array) <= _ALONE


def _holders(view: np.ndarray) -> int:
    return sys.getrefcount(view.base)


_ALONE = _holders(np.empty(2)[:])


def memory_stats() -> dict[str, int]:
    """Counts bytes of large arrays (64 KiB and more) in use, their peak, bytes cached for reuse, the limit, and how often memory
    was recycled. It counts what funcnn allocates (results, tensors made of data, zeros and the like), not a user's arrays."""
    return {
        "used_bytes": _pool.used,
        "peak_bytes": _pool.peak,
        "cached_bytes": _pool.cached,
        "limit_bytes": _pool.limit,
        "hits": _pool.hits,
        "misses": _pool.misses,
    }


def reset_peak_memory_stats() -> None:
    """Sets the peak to what is in use now."""
    _pool.peak = _pool.used


def empty_cache() -> None:
    """Returns all cached memory to the system."""
    _pool.clear()
