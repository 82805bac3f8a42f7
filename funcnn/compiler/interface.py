"""The surroundings of a program: where its inputs are found, where what it writes goes, and when it holds.

A trace finds boxes: arguments, tensors from outside, gradients, what is looked up at each call. Each has a ``Place``. What
the trace depends on in them, and in Python-level facts, is compared at each call (``Conditions``).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from funcnn.compiler.ir import Var
from funcnn.compiler.memory import Spot, mingled, relation, stretch
from funcnn.core.aval import Tracer
from funcnn.core.errors import TracerError
from funcnn.core.graph import Node
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor

if TYPE_CHECKING:
    from funcnn.compiler.trace import Stage


class StageVar(Tracer):
    """A variable of the program being traced. ``weak``: it stands for a Python number."""

    __slots__ = ("var", "weak")

    def __init__(self, owner: Any, var: Var, weak: bool = False):
        super().__init__(owner, var.shape, var.dtype)
        self.var, self.weak = var, weak

    @property
    def device(self) -> str:  # type: ignore[override]
        """That of the variable."""
        return self.var.device


class Place(NamedTuple):
    """Where a box is found at call time: itself (``box``) or argument number ``arg``; with ``grad``, its ``.grad``.

    After the arguments come the boxes that are looked up at each call (``Stage.found``).
    """

    box: Tensor | None
    arg: int = -1
    grad: bool = False

    def __str__(self) -> str:
        name = f"argument {self.arg}" if self.box is None else f"a tensor of shape {tuple(self.box.shape)} from outside"
        return f"the gradient of {name}" if self.grad else name

    def owner(self, args: list) -> Tensor:
        """The box, or the one that holds the gradient."""
        return args[self.arg] if self.box is None else self.box

    def find(self, args: list) -> Tensor | None:
        """The box as of now; None for an absent gradient."""
        owner = self.owner(args)
        return owner._grad if self.grad else owner


@dataclass(frozen=True)
class Input:
    """A variable to fill before a run: from a place, or from a function that reads a Python number.

    count: of so many numbers in memory, from the first of the box at the place on.
    """

    var: Var
    place: Place | None = None
    number: Callable[[], float] | None = None
    count: int | None = None

    def fill(self, args: list) -> np.ndarray:
        """The array for this call, of what is more than the array of a box."""
        if self.place is None:
            return np.asarray(self.number(), np.float64)  # type: ignore[misc]
        array = self.place.find(args)._v  # type: ignore[union-attr]
        return array if self.count is None else stretch(array, self.count)


@dataclass
class Outside:
    """A box from outside, or one that stands for it in the trace, and what a later call is compared with.

    grad: whether it wants a gradient (None: not compared). strides: of its memory, once the trace asked for them.
    data: it is a box around an array that the user passed, and leaves as a tensor of its own.
    """

    box: Tensor
    place: Place
    spot: Spot
    grad: bool | None = None
    strides: tuple | None = None
    data: bool = False


class Kept(NamedTuple):
    """After a run: put what the program stores at a place. into: in the memory that is there, for other boxes share it."""

    place: Place
    into: bool


class RunEagerly(BaseException):
    """A trace found that only eager code can do what the function does."""


def refuse_dtypes(one: Spot, other: Spot) -> None:
    """Raise for two boxes on the same memory that no single array can stand for."""
    one, other = sorted((one, other), key=lambda spot: str(spot.place))
    raise TracerError(
        f"jit: {one.place} and {other.place} share memory, and one of them is written in place, but they read it as "
        f"{one.array.dtype} and {other.array.dtype}, or out of step; pass a .clone() of one of them"
    )


def _run_eagerly(*_: Any, **__: Any) -> tuple:
    raise RunEagerly


history_p = Primitive(  # made an argument that is no leaf; going back through it leads out of what is traced
    "history", lambda *avals: avals, cpu=lambda ins, outs: None, vjp=_run_eagerly, keeps=""
)


def is_live(t: Tensor) -> bool:
    """Whether gradients could still flow from ``t`` to a leaf: some path has no freed node."""
    if t._node is None:
        return False
    seen: set[Node] = set()
    stack: list = [t._node]
    while stack:
        node = stack.pop()
        if node in seen or (node.prim.keeps and node.ins is None):
            continue
        seen.add(node)
        for edge in node.edges:
            if isinstance(edge, tuple):
                stack.append(edge[0])
            elif edge is not None:
                return True
    return False


# ---- when a program holds -----------------------------------------------------------------------------------------------
_value_of, _type_of = attrgetter("_v"), attrgetter("shape", "dtype")


class Found(NamedTuple):
    """What a call runs on. args: its arguments, and after them what is looked up; boxes: those that the trace met, each found
    once, in the order of ``Conditions.places``; arrays: what they hold."""

    args: list
    boxes: list[Any]
    arrays: list[np.ndarray]


class Group:
    """Boxes that a trace met, and what they must be like at a call: types, and of some the layout or whether they are trained."""

    def __init__(self, met: list[Outside]):
        self.places = [m.place for m in met]
        self.held = [place.box for place in self.places]
        self.given = [(at, place.arg) for at, place in enumerate(self.places) if place.box is None]
        self.grads = [at for at, place in enumerate(self.places) if place.grad]
        self.kinds, self.types = [type(m.spot.array) for m in met], [_type_of(m.spot.array) for m in met]
        self.wants = [(at, m.grad) for at, m in enumerate(met) if m.grad is not None]
        self.strides = [(at, m.strides) for at, m in enumerate(met) if m.strides is not None]

    def find(self, args: list) -> list:
        """The boxes as of now; None for an absent gradient."""
        boxes: list[Any] = self.held.copy()
        for at, arg in self.given:
            boxes[at] = args[arg]
        for at in self.grads:
            boxes[at] = boxes[at]._grad
        return boxes

    def fits(self, boxes: list) -> list | None:
        """The arrays of the boxes, when they are what was traced; else None."""
        for at in self.grads:
            if boxes[at] is None:
                return None
        arrays = [*map(_value_of, boxes)]
        if [*map(type, arrays)] != self.kinds or [*map(_type_of, arrays)] != self.types:
            return None
        for at, wants in self.wants:
            if boxes[at]._rg is not wants:
                return None
        for at, strides in self.strides:
            if arrays[at].strides != strides:
                return None
        return arrays


class Conditions:
    """What was true while tracing, as far as the trace depends on it.

    Of the boxes that the trace met come first those that are there before a call (``given``), then those that are looked up.
    """

    def __init__(self, stage: Stage, stores: bool):
        met = sorted(stage.outside.values(), key=lambda entry: entry.place.arg >= stage.given)
        first = sum(entry.place.arg < stage.given for entry in met)
        self.given, self.later = Group(met[:first]), Group(met[first:])
        self.places = {place: at for at, place in enumerate([*self.given.places, *self.later.places])}
        self.absent, self.guards = stage.absent, list(stage.guards.values())
        self.finders, self.same = stage.finders, stage.same
        self.related = stores or any(len(m.spot.boxes) > 1 for m in met)  # else it is all one who shares memory
        self.known: tuple[list[int], list] = ([], [])  # places, and weakly boxes and arrays, that were related so last
        self.relation: tuple = ()
        if self.related:
            boxes, arrays = [stage.real.get(id(m.box), m.box) for m in met], [m.spot.array for m in met]
            places = mingled(arrays)
            self.relation = relation(places, [boxes[i] for i in places], [arrays[i] for i in places])

    def fits(self, args: list) -> Found | None:
        """What the call runs on, when it and the Python-level facts are still what was traced; else None.

        What is looked up comes last, for looking may make it (an optimizer's first slots).
        """
        boxes = self.given.find(args)
        arrays = self.given.fits(boxes)
        if arrays is None or (self.absent and any(place.find(args) is not None for place in self.absent)):
            return None
        for read, seen, _ in self.guards:
            if read() != seen:
                return None
        if self.finders:
            more = self._looked_up(args)
            if more is None:
                return None
            args = more
        if self.same and not all(one.find(args) is two.find(args) for one, two in self.same):
            return None
        if self.later.places:
            others = self.later.find(args)
            held = self.later.fits(others)
            if held is None:
                return None
            boxes, arrays = boxes + others, arrays + held
        if self.related and not self._as_related(boxes, arrays, mingled(arrays)):
            return None
        return Found(args, boxes, arrays)

    def found(self, args: list) -> Found:
        """What the call runs on that was traced just now."""
        args = self._looked_up(args) or args
        boxes = self.given.find(args) + self.later.find(args)
        return Found(args, boxes, [*map(_value_of, boxes)])

    def _as_related(self, boxes: list, arrays: list, places: list[int]) -> bool:
        """Whether boxes that may share memory, the others aside, do so as they did."""
        if not places:
            return not self.relation
        boxes, arrays = [boxes[i] for i in places], [arrays[i] for i in places]
        known, held = self.known
        if known == places and all(
            box() is b and array() is a for (box, array), b, a in zip(held, boxes, arrays, strict=True)
        ):
            return True
        if relation(places, boxes, arrays) != self.relation:
            return False
        self.known = places, [(weakref.ref(b), weakref.ref(a)) for b, a in zip(boxes, arrays, strict=True)]
        return True

    def _looked_up(self, args: list) -> list | None:
        """The arguments, and after them what is looked up; None where something is missing."""
        boxes = [*args]
        for find in self.finders:
            more = find()
            if more is None:
                return None
            boxes += more
        return boxes


class Eager(Conditions):
    """Stands for a compiled step where the trace found that only eager code can do what the function does."""
