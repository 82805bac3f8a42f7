"""The base of transformations that are interpreters: tape and batching give a primitive a new meaning on their tracers."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.aval import Tracer, is_concrete
from funcnn.core.context import ctx, running
from funcnn.core.device import HOST, device_of
from funcnn.core.primitive import layout
from funcnn.core.tensor import Tensor, inheriting, refresh, wrap


class BoxTracer(Tracer):
    """A tracer around a box of the next interpreter out.

    node: the recorded operation that made it; leaf: whether it is an input that is differentiated;
    known: whether the numbers inside are those that the function sees.
    """

    __slots__ = ("value",)
    node: Any = None
    leaf = False
    known = False
    boxed = True

    def __init__(self, owner: Interpreter, value: Tensor, shape: tuple[int, ...]):
        self.owner, self.shape, self.dtype, self.value = owner, shape, value._v.dtype, value

    @property
    def device(self) -> str:  # type: ignore[override]
        """Returns what the value inside has."""
        return device_of(self.value._v)

    def layout(self) -> np.ndarray:
        """Returns what the value inside has."""
        return layout(self.value)

    def replaced(self, new: Tensor) -> Any:
        """Returns the value of ``new``, of no deeper interpreter, with the history of this one: what a write that is not recorded
        makes of it."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is replaced")

    def grafted(self, old: Tensor) -> Any:
        """This value with the history of ``old``, which is of an interpreter further out."""
        raise NotImplementedError(f"{type(self).__name__} must say what becomes of another history")

    def bare(self) -> Any:
        """Returns the value without any history."""
        return without_history(self.value)

    def copied(self) -> BoxTracer:
        """Returns the same for another box, which is no leaf."""
        return self


def without_history(t: Tensor) -> Any:
    """Returns the value of a box as nothing around it differentiates it."""
    return t._v.bare() if isinstance(t._v, BoxTracer) else t._v


def with_history(old: Tensor, new: Tensor) -> Tensor:
    """Returns a box with the value of ``new`` and the history of ``old``."""
    box = wrap(inheriting(old, new))
    box._node, box._slot, box._born = old._node, old._slot, new._born
    return box


class Interpreter:
    """One transformation in progress. ``outer`` is the one it runs inside; its own tracers carry it as owner."""

    name = "a transformation"
    randomness = "same"  # what a generator's draw is inside: refused ("error"), or made by ``draws``

    def __init__(self) -> None:
        self.outer = ctx.top
        self.outer_grad = ctx.grad
        self.depth = 1 if self.outer is None else self.outer.depth + 1

    def owns(self, t: Tensor) -> bool:
        """Whether the box holds a tracer of this interpreter."""
        return isinstance(t._v, Tracer) and t._v.owner is self

    def lower(self, ins: tuple) -> tuple[list[Tensor], list[bool]]:
        """Returns the boxes one level out, and which of the inputs were this interpreter's."""
        lowered, owned = [], []
        for t in ins:
            if t._view is not None:
                refresh(t)
            value = t._v
            own = isinstance(value, Tracer) and value.owner is self
            owned.append(own)
            lowered.append(value.value if own else t)  # type: ignore[attr-defined]  # its own is a BoxTracer
        return lowered, owned

    def box(self, value: Any) -> Tensor:
        """Returns a fresh box, marked as made inside this interpreter."""
        box = wrap(value)
        box._born = self.depth
        return box

    def passed(self, result: Any) -> Any:
        """Results that do not depend on this interpreter's tracers, marked as made inside it."""
        for box in result if isinstance(result, (list, tuple)) else (result,):
            box._born = self.depth
        return result

    def outside(self) -> running:
        """Binds to the next interpreter out."""
        return running(self.outer, self.outer_grad and ctx.grad)

    def draws(self, key: Any) -> Any:
        """Returns a generator's next key, as it is seen inside."""
        return key

    def bind(self, prim: Any, ins: tuple, params: dict) -> Any:
        """Applies ``prim`` as it is meant here."""
        raise NotImplementedError(f"{type(self).__name__} must say what a primitive means")


def numbers(t: Tensor) -> np.ndarray | None:
    """Returns the elements of a tensor where they are known: not under ``jit`` or ``vmap``, but under ``grad``, which computes
    as it goes. For results that carry no gradient."""
    while isinstance(t._v, BoxTracer) and t._v.known:
        t = t._v.value
    return t._v if ctx.stage is None and is_concrete(t._v) and device_of(t._v) == HOST else None
