"""When a plan holds: what the boxes and the Python-level facts of a call must have in common with those that were traced."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np

from funcnn.compiler.interface import Outside, Place
from funcnn.compiler.memory import mingled, relation
from funcnn.compiler.trace import Stage
from funcnn.core.tensor import Tensor

_ndarray = np.ndarray


class Bound(NamedTuple):
    """A box that the trace met, and what it must be like: itself, or by its place where that is None."""

    box: Tensor | None
    place: Place
    shape: tuple
    dtype: np.dtype
    grad: bool | None
    strides: tuple | None

    @classmethod
    def of(cls, met: Outside) -> Bound:
        """What a trace depends on in a box that it met."""
        array, place = met.spot.array, met.place
        return cls(None if place.grad else place.box, place, array.shape, array.dtype, met.grad, met.strides)


class Conditions:
    """What was true while tracing, as far as the trace depends on it."""

    def __init__(self, stage: Stage, stores: bool):
        met = sorted(stage.outside.values(), key=lambda entry: entry.place.arg >= stage.given)
        bound = [Bound.of(m) for m in met]
        self.given = [b for b in bound if b.place.arg < stage.given]
        self.later = bound[len(self.given) :]
        self.absent, self.guards = stage.absent, list(stage.guards.values())
        self.finders, self.same = stage.finders, stage.same
        self.related = stores or any(len(m.spot.boxes) > 1 for m in met)  # else it is all one who shares memory
        self.known: tuple[list[int], list] = ([], [])  # places, and weakly boxes and arrays, that were related so last
        self.relation: tuple = ()
        if self.related:
            boxes, arrays = [stage.real.get(id(m.box), m.box) for m in met], [m.spot.array for m in met]
            places = mingled(arrays)
            self.relation = relation(places, [boxes[i] for i in places], [arrays[i] for i in places])

    def fits(self, args: list) -> list | None:
        """The boxes to run on, when they and the Python-level facts are still those that were traced; else None.

        What is looked up comes last, for looking may make it (an optimizer's first slots).
        """
        arrays: list[np.ndarray] = []
        if not _fit(self.given, args, arrays):
            return None
        if self.absent and any(place.find(args) is not None for place in self.absent):
            return None
        if self.guards and not all(read() == seen for read, seen in self.guards):
            return None
        boxes = self.found(args) if self.finders else args
        if boxes is None or (self.same and not all(one.find(boxes) is two.find(boxes) for one, two in self.same)):
            return None
        if self.later and not _fit(self.later, boxes, arrays):
            return None
        return boxes if not self.related or self._as_related(boxes, mingled(arrays)) else None

    def _as_related(self, args: list, places: list[int]) -> bool:
        """Whether boxes that may share memory, the others aside, do so as they did."""
        if not places:
            return not self.relation
        first = len(self.given)
        bound = [self.given[i] if i < first else self.later[i - first] for i in places]
        boxes: list[Any] = [b.place.find(args) for b in bound]
        arrays = [box._v for box in boxes]
        known, held = self.known
        if known == places and all(
            box() is b and array() is a for (box, array), b, a in zip(held, boxes, arrays, strict=True)
        ):
            return True
        if relation(places, boxes, arrays) != self.relation:
            return False
        self.known = places, [(weakref.ref(b), weakref.ref(a)) for b, a in zip(boxes, arrays, strict=True)]
        return True

    def found(self, args: list) -> list | None:
        """The arguments, and after them what is looked up; None where something is missing."""
        boxes = [*args]
        for find in self.finders:
            more = find()
            if more is None:
                return None
            boxes += more
        return boxes


class Eager(Conditions):
    """Stands for a plan where the trace found that only eager code can do what the function does."""


def _fit(bound: list[Bound], args: list, arrays: list[np.ndarray]) -> bool:
    """Whether the boxes of a call, whose arrays are put into ``arrays``, are as they were."""
    for held, place, shape, dtype, grad, strides in bound:
        box: Any = place.find(args) if held is None else held
        if box is None:
            return False
        value = box._v
        if type(value) is not _ndarray or value.shape != shape or value.dtype != dtype:
            return False
        if grad is not None and box._rg is not grad:
            return False
        if strides is not None and value.strides != strides:
            return False
        arrays.append(value)
    return True
