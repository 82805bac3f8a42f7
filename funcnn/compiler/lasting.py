"""Inputs of a compiled step that stay the same from call to call: boxes from outside that it does not write, until another does.

Of these a runtime may keep what it made of them (packed weights). Whoever writes to a box by funcnn raises its version or
gives it another array, which is compared at each call, for the boxes of which something is kept. What an array outside sees
may be written by NumPy, which nobody notices, so nothing is kept of it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from funcnn.compiler.interface import Found
from funcnn.compiler.ir import Var
from funcnn.compiler.runtime.reference import Replay
from funcnn.core.tensor import Tensor

if TYPE_CHECKING:
    from funcnn.compiler.trace import Stage


class Lasting:
    """Of the inputs of a program those that stay the same, and what the boxes were of which the runtime keeps something.

    places: for each input where its box is among those that a call finds, or None.
    """

    def __init__(self, stage: Stage, places: list[int | None]):
        self.places = places
        self.inputs = [entry.var for entry in stage.inputs if _lasts(stage, entry.var)]
        self.seen: dict[int, tuple[weakref.ref, int]] = {}

    def note(self, runtime: Replay, found: Found) -> None:
        """Take down what the boxes are of which the runtime keeps something since this call."""
        if len(self.seen) < len(runtime.kept_from):
            for at in runtime.kept_from:
                place: int = self.places[at]  # type: ignore[assignment]
                self.seen[place] = weakref.ref(found.arrays[place]), _version(found.boxes[place])

    def renewed(self, runtime: Replay, found: Found) -> Replay:
        """The runtime, which forgets what it kept if one of these boxes was written; another one if NumPy may write to it."""
        for place, (array, version) in self.seen.items():
            box = found.boxes[place]
            if array() is not found.arrays[place] or _version(box) != version or _is_exposed(box):
                break
        else:
            return runtime
        self.seen = {}
        boxes = [(at, found.boxes[self.places[at]]) for at in runtime.kept_from]  # type: ignore[index]
        gone = {runtime.program.inputs[at] for at, box in boxes if _is_exposed(box)}
        if not gone:
            runtime.forget()
            return runtime
        self.inputs = [var for var in self.inputs if var not in gone]
        return Replay(runtime.program, self.inputs)


def _lasts(stage: Stage, var: Var) -> bool:
    """Whether an input is the whole of a box from outside, to whose memory nothing is written."""
    if var not in stage.lifted:
        return False
    spot, count = stage.lifted[var]
    outside = spot.place.box is not None and not spot.place.grad and count is None
    return outside and not spot.region.log and not any(map(_is_exposed, spot.boxes))


def _version(box: Tensor) -> int:
    return 0 if box._cell is None else box._cell.version


def _is_exposed(box: Tensor) -> bool:
    return box._cell is not None and box._cell.exposed
