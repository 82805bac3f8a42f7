"""When a plan holds: what the boxes and the Python-level facts of a call must have in common with those that were traced."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funcnn.core.tensor import Tensor
from funcnn.transforms.memory import apart, relation
from funcnn.transforms.places import Outside, Place
from funcnn.transforms.staging import Stage

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
        boxes = [stage.real.get(id(m.box), m.box) for m in met]
        self.relation = relation(boxes, [m.spot.array for m in met]) if self.related else ()

    def fits(self, args: list) -> list | None:
        """The boxes to run on, when they and the Python-level facts are still those that were traced; else None.

        What is looked up comes last, for looking may make it (an optimizer's first slots).
        """
        arrays: list[np.ndarray] = []
        if not _fit(self.given, args, arrays) or any(place.find(args) is not None for place in self.absent):
            return None
        if not all(read() == seen for read, seen in self.guards):
            return None
        boxes = self.found(args) if self.finders else args
        if boxes is None or not all(boxes[position] is place.find(boxes) for position, place in self.same):
            return None
        if not _fit(self.later, boxes, arrays):
            return None
        if not self.related or (apart(arrays) and not self.relation):
            return boxes
        met = [b.place.find(boxes) for b in (*self.given, *self.later)]
        return boxes if relation(met, arrays) == self.relation else None

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
