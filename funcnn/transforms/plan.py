"""What ``jit`` runs: the equations that matter, in order, over numbered slots that are emptied after their last use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.core.primitive import Primitive, evaluate
from funcnn.core.tensor import Cell, Tensor, wrap
from funcnn.core.tree import TreeDef
from funcnn.transforms.staging import Equation, Input, Place, Stage


@dataclass(frozen=True)
class Store:
    """After a run: put slot ``index`` (None: nothing) at a place. ``fresh``: as a new ``.grad`` box."""

    place: Place
    index: int | None
    fresh: bool = False


class Plan:
    """A traced function, ready to run on arrays."""

    def __init__(self, stage: Stage, outputs: list, treedef: TreeDef, stores: list[Store]):
        self.outputs, self.treedef, self.stores = outputs, treedef, stores
        self.inputs: list[Input] = stage.inputs
        self.absent, self.guards = stage.absent, list(stage.guards.values())
        self.finders, self.same = stage.finders, stage.same
        bound = [entry for entry in self.inputs if entry.place is not None]
        self.given = [entry for entry in bound if entry.place.arg < stage.given]  # type: ignore[union-attr]
        self.later = [entry for entry in bound if entry.place.arg >= stage.given]  # type: ignore[union-attr]
        self.constants, self.size = stage.constants, len(stage.avals)
        leaving = [index for index in outputs if isinstance(index, int)]
        leaving += [store.index for store in stores if store.index is not None]
        self.equations = _needed(stage.equations, leaving)
        self.copied = self._shared(leaving)
        self.steps = self._steps(set(leaving))

    def _shared(self, leaving: list[int]) -> list[bool]:
        """For each value that leaves: whether its memory is an input's, a constant's, or leaves already."""
        root = {entry.index: -1 - entry.index for entry in self.inputs}
        root.update({index: -1 - index for index in self.constants})
        for eq in self.equations:
            if eq.prim.view is not None:
                root[eq.outs[0]] = root.get(eq.ins[0], eq.ins[0])
        taken: set[int] = set()
        copied = []
        for index in leaving:
            owner = root.get(index, index)
            copied.append(owner < 0 or owner in taken)
            taken.add(owner)
        return copied

    def _steps(self, leaving: set[int]) -> list[tuple[Equation, tuple[int, ...]]]:
        """Each equation with the slots whose last use it is."""
        seen = set(leaving) | set(self.constants)
        steps = []
        for eq in reversed(self.equations):
            last = tuple({i for i in (*eq.ins, *eq.outs) if i not in seen})
            seen.update(last)
            steps.append((eq, last))
        return steps[::-1]

    def fits(self, args: list) -> list | None:
        """The boxes to run on, when they and the Python-level facts are still those that were traced; else None.

        What is looked up comes last, for looking may make it (an optimizer's first slots).
        """
        if not _fit(self.given, args) or any(place.find(args) is not None for place in self.absent):
            return None
        if not all(read() == seen for read, seen in self.guards):
            return None
        if not self.finders:
            return args
        boxes = self.found(args)
        if boxes is None or not all(boxes[position] is place.find(boxes) for position, place in self.same):
            return None
        return boxes if _fit(self.later, boxes) else None

    def found(self, args: list) -> list | None:
        """The arguments, and after them what is looked up; None where something is missing."""
        boxes = [*args]
        for find in self.finders:
            more = find()
            if more is None:
                return None
            boxes += more
        return boxes

    def run(self, args: list) -> Any:
        """Compute, then store what the function wrote; an error while computing stores nothing."""
        slots: list[Any] = [None] * self.size
        for entry in self.inputs:
            box = None if entry.place is None else entry.place.find(args)
            slots[entry.index] = np.asarray(entry.number(), np.float64) if box is None else box._v  # type: ignore[misc]
        for index, array in self.constants.items():
            slots[index] = array
        for eq, last in self.steps:
            outs = evaluate(eq.prim, [slots[i] for i in eq.ins], eq.params, eq)
            for index, out in zip(eq.outs, outs, strict=True):
                slots[index] = out
            for index in last:
                slots[index] = None
        return self._finish(slots, args)

    def _finish(self, slots: list, args: list) -> Any:
        leaving = [index for index in self.outputs if isinstance(index, int)]
        leaving += [store.index for store in self.stores if store.index is not None]
        arrays = iter(
            [
                slots[index].copy() if copied or not slots[index].flags.writeable else slots[index]
                for index, copied in zip(leaving, self.copied, strict=True)
            ]
        )
        results = [wrap(next(arrays)) if isinstance(item, int) else item.value for item in self.outputs]
        for store in self.stores:
            _put(store, None if store.index is None else next(arrays), args)
        return self.treedef.unflatten(results)

    def __str__(self) -> str:
        lines = [f"inputs {', '.join(f'v{entry.index}:{_show(entry.aval)}' for entry in self.inputs)}"]
        for eq in self.equations:
            outs, ins = (", ".join(f"v{i}" for i in group) for group in (eq.outs, eq.ins))
            params = ", ".join(f"{key}={value}" for key, value in eq.params.items())
            made = f"{outs} = " if outs else ""
            lines.append(f"  {made}{eq.prim.name}({ins}){f' [{params}]' if params else ''}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Static:
    """An output that is not a tensor."""

    value: Any


def _show(aval: Any) -> str:
    return f"{aval.dtype}{list(aval.shape)}"


def _needed(equations: list[Equation], leaving: list[int]) -> list[Equation]:
    """The equations that something leaving depends on; of the others the checks, whose errors are effects."""
    wanted = set(leaving)
    kept = []
    for eq in reversed(equations):
        if not any(index in wanted for index in eq.outs):
            if eq.prim.check is None:
                continue
            eq = replace(eq, prim=_check_of(eq.prim), outs=())
        kept.append(eq)
        wanted.update(eq.ins)
    return kept[::-1]


@lru_cache
def _check_of(prim: Primitive) -> Primitive:
    """A primitive that checks its inputs as ``prim`` does and computes nothing."""
    return Primitive(
        f"{prim.name}_check",
        lambda *ins, **params: (),
        cpu=lambda ins, outs, **params: None,
        multiple=True,
        check=prim.check,
    )


def _fit(entries: list[Input], args: list) -> bool:
    """Whether the boxes that stand at these places have the shapes and dtypes that were traced."""
    for entry in entries:
        place, aval = entry.place, entry.aval
        box = place.find(args)  # type: ignore[union-attr]
        if not isinstance(box, Tensor) or not isinstance(box._v, np.ndarray):
            return False
        if box._v.shape != aval.shape or box._v.dtype != aval.dtype:
            return False
        if place.box is not None and not place.grad and box._rg != entry.wants_grad:  # type: ignore[union-attr]
            return False
    return True


def _put(store: Store, array: np.ndarray | None, args: list) -> None:
    owner = store.place.owner(args)
    if store.place.grad and (array is None or store.fresh or owner._grad is None):
        owner._grad = None if array is None else wrap(array)
        return
    box: Tensor = owner._grad if store.place.grad else owner  # type: ignore[assignment]
    assert array is not None
    if box._cell is None:
        box._cell = Cell()
    if box._cell.shared:
        np.copyto(box._v, array)
    else:
        box._v = array
    box._cell.version += 1
