"""The memory that a traced program works on: what outside boxes share, at trace time and at each call.

Eager code writes into memory, and every box on that memory sees it. A trace has variables instead, so here each place in
memory that an outside box covers (a ``Spot``) has its variable, and spots that overlap lie in one ``Region``, which knows
what was written to it. A spot that another write touched is read out of the whole region: one more input, the numbers
between the region's ends, into which the writes are put in order. Most spots are alone and cost nothing.

``relation`` says which arrays share memory and how; a step that stores anything holds for calls with the same relation.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from funcnn.core.aval import Aval
from funcnn.core.device import device_of, devices
from funcnn.core.errors import DeviceError
from funcnn.core.primitive import Primitive
from funcnn.kernels.cpu.memory import Block

_ndarray = np.ndarray
_of_host = {np.ndarray}
ADDRESS_BITS = 64  # of a device's addresses
WORK = 10_000  # steps that an exact answer to "do these overlap?" may take; beyond, they are taken to


# ---- memory as values -------------------------------------------------------------------------------------------------
def _lying(whole: np.ndarray, offset: int, shape: tuple, steps: tuple) -> np.ndarray:
    item = whole.itemsize
    return _ndarray(shape, whole.dtype, whole, offset * item, tuple([step * item for step in steps]))


def _put(ins: list, outs: list, offset: int, shape: tuple, steps: tuple) -> None:
    np.copyto(outs[0], ins[0])
    _lying(outs[0], offset, shape, steps)[...] = ins[1]


memory_view_p = Primitive(
    "memory_view",
    lambda whole, offset, shape, steps: (Aval(shape, whole.dtype),),
    view=_lying,
)
memory_put_p = Primitive("memory_put", lambda whole, new, offset, shape, steps: (whole,), cpu=_put)


def stretch(array: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` numbers in memory from the first one of ``array`` on, in one dimension."""
    if array.size == count and array.flags.forc:
        return array.T.reshape(-1) if array.flags.f_contiguous else array.reshape(-1)
    if any(step < 0 for step in array.strides):
        array = array[tuple([slice(None, None, -1 if step < 0 else 1) for step in array.strides])]
    return as_strided(array, (count,), (array.itemsize,))


# ---- what arrays share ------------------------------------------------------------------------------------------------
def extent(array: np.ndarray, _byte: Any = ctypes.c_char) -> tuple[int, int]:
    """The addresses of an array's first byte and of the one after its last; those of each device are numbers of their own."""
    if type(array) is not _ndarray:
        return _elsewhere(array)
    if array.flags.forc and array.flags.writeable:
        first = ctypes.addressof(_byte.from_buffer(array if array.flags.c_contiguous else array.T))
        return first, first + array.nbytes
    first = last = array.__array_interface__["data"][0]
    for size, step in zip(array.shape, array.strides, strict=True):
        if step < 0:
            first += (size - 1) * step
        else:
            last += (size - 1) * step
    return first, last + array.itemsize


def _elsewhere(value: Any) -> tuple[int, int]:
    name = device_of(value)
    find = devices[name].extent
    if find is None:
        raise DeviceError(f"jit: device {name!r} does not say where its memory lies (Device.extent), so that nobody knows which "
                          "tensors share it; call the function without jit")  # fmt: skip
    first, last = find(value)
    apart = [*devices].index(name) << ADDRESS_BITS
    return apart + first, apart + last


def mingled(arrays: list[np.ndarray]) -> list[int]:
    """The positions of the arrays that may share memory with another, for they have no owner of their own. Fast."""
    if not _of_host.issuperset(map(type, arrays)):
        return [*range(len(arrays))]
    owners = [*map(id, [a if (base := a.base) is None else _owner(base) for a in arrays])]
    different = set(owners)
    if _unknown in different:
        return [*range(len(arrays))]
    if len(different) == len(owners):
        return []
    counts = Counter(owners)
    return [i for i, owner in enumerate(owners) if counts[owner] > 1]


def _owner(base: Any) -> Any:
    """The array to whom the memory belongs that an array with this base lies in; None where that cannot be seen."""
    if type(base) is _ndarray and base.base is not None:
        base = base.base
        return base if type(base) is Block else None
    return base if type(base) is Block or type(base) is _ndarray else None


_unknown = id(None)


def relation(places: list[int], boxes: list, arrays: list[np.ndarray]) -> tuple:
    """Which of the arrays lie in the same stretch of memory, and how: for each such stretch, for each array in it, its
    place, that of the first entry with the same box, its distance from the beginning, and its strides.
    """
    spans = sorted((*extent(a), i) for i, a in enumerate(arrays) if a.size)
    found: list[tuple] = []
    cluster: list[tuple] = []
    start = end = 0
    for first, last, i in [*spans, (1 << 80, 1 << 80, -1)]:
        if first >= end:
            if len(cluster) > 1:
                found.append(tuple(cluster))
            cluster, start = [], first
        if i >= 0:
            same = next(j for j, box in enumerate(boxes) if box is boxes[i])
            cluster.append((places[i], places[same], first - start, arrays[i].strides))
        end = max(end, last) if cluster else last
    return tuple(found)


# ---- at trace time ----------------------------------------------------------------------------------------------------
class Spot:
    """One place in memory, as one or more outside boxes cover it, and the variable of the numbers there.

    var: None before the first read. stale: a write to an overlapping spot came after ``var``.
    """

    __slots__ = ("array", "boxes", "first", "last", "name", "place", "region", "stale", "var")

    def __init__(self, array: np.ndarray, place: Any, first: int, last: int):
        self.array, self.place, self.first, self.last = array, place, first, last
        self.boxes: list = []
        self.var: Any = None
        self.stale = False
        self.region: Region

    def overlaps(self, other: Spot) -> bool:
        """Whether the two have a number in common."""
        if self.first >= other.last or other.first >= self.last:
            return False
        if type(self.array) is not _ndarray:
            return True
        try:
            return np.shares_memory(self.array, other.array, max_work=WORK)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return True


class Region:
    """A stretch of memory without gaps between its spots' ends, and what the trace has written to it, in order."""

    __slots__ = ("first", "last", "log", "recorded", "root", "spots", "upto")

    def __init__(self, spot: Spot):
        self.first, self.last = spot.first, spot.last
        self.spots = [spot]
        self.log: list[tuple[Spot, Any]] = []
        self.recorded = False  # something with a history was written
        self.root: Any = None  # the variable of the whole, with the first ``upto`` writes in it
        self.upto = 0

    def absorb(self, other: Region) -> None:
        """Become one with a region that a new spot connects to this one."""
        self.spots += other.spots
        self.log += other.log  # they had nothing in common, so their order does not matter
        self.recorded |= other.recorded
        for spot in other.spots:
            spot.region = self
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.root, self.upto = None, 0

    def holders(self) -> int:
        """How many boxes there are on this memory."""
        return sum(len(spot.boxes) for spot in self.spots)


class Memory:
    """All regions of one trace. ``emit(prim, variables, params)`` writes an equation down, ``lift(spot, count)`` makes an
    input: of the spot's numbers, or with a count of so many numbers from its beginning on.
    """

    def __init__(self, emit: Callable, lift: Callable, refuse: Callable):
        self.emit, self.lift, self.refuse = emit, lift, refuse
        self.spots: dict[Any, Spot] = {}
        self.regions: list[Region] = []  # by address; they have nothing in common
        self.starts: list[int] = []

    def spot(self, array: np.ndarray, place: Any, box: Any) -> Spot:
        """The spot of an array, on which ``box`` lies."""
        first, last = extent(array) if array.size else (0, 0)
        key = (first, array.shape, array.strides, array.dtype) if array.size else id(array)
        spot = self.spots.get(key)
        if spot is None:
            spot = self.spots[key] = Spot(array, place, first, last)
            self._settle(spot)
        spot.boxes.append(box)
        return spot

    def _settle(self, spot: Spot) -> None:
        """Find a new spot its region; regions that it touches become one."""
        region = spot.region = Region(spot)
        if not spot.array.size:
            return
        at = bisect_left(self.starts, spot.first)
        if at and self.regions[at - 1].last > spot.first:
            at -= 1
        until = at
        while until < len(self.regions) and self.regions[until].first < spot.last:
            region.absorb(self.regions[until])
            until += 1
        self.regions[at:until] = [region]
        self.starts[at:until] = [region.first]
        spot.stale = any(spot.overlaps(other) for other, _ in region.log)

    def value(self, spot: Spot) -> Any:
        """The variable of the numbers at a spot, as of now."""
        if spot.stale:
            spot.var = self.emit(memory_view_p, (self._whole(spot.region),), self._where(spot))
            spot.stale = False
        elif spot.var is None:
            spot.var = self.lift(spot, None)
        return spot.var

    def write(self, spot: Spot, var: Any) -> list[Spot]:
        """Note new numbers at a spot; the other spots that this changes."""
        region = spot.region
        spot.var, spot.stale = var, False
        if len(region.spots) == 1:
            region.log = [(spot, var)]
            return []
        region.log[region.upto :] = [entry for entry in region.log[region.upto :] if entry[0] is not spot]
        region.log.append((spot, var))
        touched = [other for other in region.spots if other is not spot and other.overlaps(spot)]
        for other in touched:
            other.stale = True
        return touched

    def _whole(self, region: Region) -> Any:
        if region.root is None:
            lowest = min(region.spots, key=lambda spot: spot.first)
            for spot in region.spots:
                steps = (spot.first - region.first, *spot.array.strides)
                if spot.array.dtype != lowest.array.dtype or any(step % lowest.array.dtype.itemsize for step in steps):
                    self.refuse(lowest, spot)
            region.root = self.lift(lowest, (region.last - region.first) // lowest.array.dtype.itemsize)
        for spot, var in region.log[region.upto :]:
            region.root = self.emit(memory_put_p, (region.root, var), self._where(spot))
        region.upto = len(region.log)
        return region.root

    def _where(self, spot: Spot) -> dict:
        array, item = spot.array, spot.array.dtype.itemsize
        here = array.__array_interface__["data"][0] if type(array) is _ndarray else spot.first
        start = here - spot.region.first
        return {"offset": start // item, "shape": array.shape, "steps": tuple([s // item for s in array.strides])}
