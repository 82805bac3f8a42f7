"""Where a trace finds the boxes that it works on, at trace time and at each call; and what cannot be traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from funcnn.compiler.memory import Spot, stretch
from funcnn.core.aval import Aval
from funcnn.core.errors import TracerError
from funcnn.core.graph import Node
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor


@dataclass(frozen=True)
class Place:
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

    index: int
    aval: Aval
    place: Place | None = None
    number: Callable[[], float] | None = None
    count: int | None = None

    def fill(self, args: list) -> np.ndarray:
        """The array for this call."""
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
