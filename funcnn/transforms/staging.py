"""Tracing for ``jit``: a Stage turns the primitives that a function applies into a list of equations.

Boxes from outside (parameters, buffers, optimizer state, the random generator) are never touched while tracing. A read
lifts the box to an input; a write, or a new ``.grad``, is noted in an overlay and becomes an output. So a trace that
fails half-way leaves the program's state as it was, and other threads never see a tracer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from funcnn.core.aval import Aval, Missing, Tracer
from funcnn.core.context import ctx
from funcnn.core.errors import TracerError
from funcnn.core.graph import Node
from funcnn.core.tensor import Tensor, wrap


class StageVar(Tracer):
    """A variable of the program being traced. ``weak``: it stands for a Python number."""

    __slots__ = ("index", "weak")

    def __init__(self, owner: Stage, index: int, shape: tuple, dtype: np.dtype, weak: bool = False):
        super().__init__(owner, tuple(shape), dtype)
        self.index, self.weak = index, weak


@dataclass(frozen=True)
class Equation:
    """``outs = prim(ins, **params)`` over variable indices, and for profilers where it was traced."""

    prim: Any
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    params: dict
    path: str
    backward: bool


@dataclass(frozen=True)
class Place:
    """Where a box is found at call time: itself (``box``) or argument number ``arg``; with ``grad``, its ``.grad``.

    After the arguments come the boxes that are looked up at each call (``Stage.found``).
    """

    box: Tensor | None
    arg: int = -1
    grad: bool = False

    def owner(self, args: list) -> Tensor:
        """The box, or the one that holds the gradient."""
        return args[self.arg] if self.box is None else self.box

    def find(self, args: list) -> Tensor | None:
        """The box as of now; None for an absent gradient."""
        owner = self.owner(args)
        return owner._grad if self.grad else owner


@dataclass(frozen=True)
class Input:
    """A variable to fill before a run: from a place, or from a function that reads a Python number."""

    index: int
    aval: Aval
    place: Place | None = None
    number: Callable[[], float] | None = None
    wants_grad: bool = False


class Stage:
    """One trace in progress. It stands in for the evaluator at the bottom of the interpreter stack."""

    name = "jit"
    depth = 0

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.avals: list[Aval] = []
        self.constants: dict[int, np.ndarray] = {}
        self.inputs: list[Input] = []
        self.values: dict[int, StageVar] = {}  # id(outside box) -> its current value
        self.grads: dict[int, Tensor | None] = {}  # id(outside box) -> its current .grad
        self.absent: list[Place] = []  # gradients that were None when first read
        self.places: dict[int, Place] = {}
        self.written: dict[int, Place] = {}
        self.regraded: dict[int, Place] = {}
        self.guards: dict[Any, tuple[Callable, Any]] = {}
        self.given = self.arguments = 0  # arguments, and those with the boxes that are looked up
        self.finders: list[Callable[[], list | None]] = []
        self.same: list[tuple[int, Place]] = []  # found boxes that the trace knew already, and where it knew them
        self.histories: list[tuple[Tensor, Node | None, int]] = []
        self.held: list[Tensor] = []  # keeps ids from being reused

    # ---- variables ----------------------------------------------------------------------------------------------------
    def variable(self, shape: tuple, dtype: np.dtype, weak: bool = False) -> StageVar:
        """A new variable."""
        self.avals.append(Aval(tuple(shape), dtype))
        return StageVar(self, len(self.avals) - 1, shape, dtype, weak)

    def emit(self, prim: Any, ins: tuple, params: dict) -> list[StageVar]:
        """Write one equation down; its outputs' shapes come from the shape rule."""
        values = [self.read(t) for t in ins]
        outs = [self.variable(aval.shape, aval.dtype) for aval in prim.shape(*values, **params)]
        indices = tuple(v.index for v in values)
        results = tuple(v.index for v in outs)
        self.equations.append(Equation(prim, indices, results, params, ctx.path, ctx.backward))
        return outs

    def constant(self, array: np.ndarray) -> StageVar:
        """Numbers made while tracing, embedded in the program."""
        var = self.variable(array.shape, array.dtype)
        self.constants[var.index] = np.array(array)
        return var

    def argument(self, t: Tensor, position: int, weak: bool) -> Tensor:
        """A fresh box that stands for an argument."""
        var = self.variable(t._v.shape, t._v.dtype, weak)
        box = wrap(var)
        box._rg = t.requires_grad and ctx.grad
        place = Place(None, position)
        self._remember(box, place)
        self.inputs.append(Input(var.index, self.avals[var.index], place))
        self.given = self.arguments = position + 1
        return box

    def found(self, find: Callable[[], list | None]) -> None:
        """Look the boxes that ``find`` gives up again at each call: others may have come into their place.

        ``find`` gives as many each time, or None for a call that the trace does not fit.
        """
        self.finders.append(find)
        for box in find() or ():
            if id(box) in self.places:
                self.same.append((self.arguments, self.places[id(box)]))
            else:
                self._remember(box, Place(None, self.arguments))
            self.arguments += 1

    def number(self, key: Any, read: Callable[[], float]) -> Tensor:
        """A Python number that may differ at each call (a learning rate), as a weak 0-d tensor."""
        var = self.variable((), np.dtype(np.float64), weak=True)
        self.inputs.append(Input(var.index, self.avals[var.index], number=read))
        return wrap(var)

    def guard(self, key: Any, read: Callable[[], Any]) -> None:
        """Note a Python-level fact that the trace depends on; a later call with another value traces anew."""
        if key not in self.guards:
            self.guards[key] = (read, read())

    # ---- outside boxes ------------------------------------------------------------------------------------------------
    def read(self, t: Tensor) -> StageVar:
        """The variable for a box's value, lifting an outside box to an input at its first read."""
        value = t._v
        if isinstance(value, StageVar) and value.owner is self:
            return value
        if isinstance(value, np.ndarray):
            held = self.values.get(id(t))
            return held if held is not None else self._lift(t)
        if isinstance(value, Missing):
            raise TracerError(str(value.owner))
        raise TracerError(
            f"jit: a tensor of shape {tuple(value.shape)} traced by an earlier {value.owner.name} was kept and is read "
            "here; return it from the traced function instead of storing it"
        )

    def _lift(self, t: Tensor) -> StageVar:
        var = self.variable(t._v.shape, t._v.dtype)
        place = self._remember(t, Place(t))
        self.inputs.append(Input(var.index, self.avals[var.index], place, wants_grad=t._rg))
        self.values[id(t)] = var
        return var

    def _remember(self, t: Tensor, place: Place) -> Place:
        if id(t) not in self.places:
            self.places[id(t)] = place
            self.held.append(t)
        return self.places[id(t)]

    def write(self, t: Tensor, new: Tensor) -> None:
        """An outside box gets a new value."""
        var = self.read(new)
        place = self._remember(t, Place(t))
        if id(t) not in self.written:
            self.histories.append((t, t._node, t._slot))
        self.values[id(t)] = var
        self.written[id(t)] = place

    def refreshed(self, t: Tensor, var: StageVar) -> None:
        """An outside view follows a write to its base; nothing is to be stored, for it shares the memory."""
        self._remember(t, Place(t))
        self.values[id(t)] = var

    def read_grad(self, t: Tensor) -> Tensor | None:
        """``t.grad`` as of this point of the trace."""
        if isinstance(t._v, Tracer) and id(t) not in self.places:
            return t._grad
        if id(t) not in self.grads:
            owner = self._remember(t, Place(t))
            place = Place(owner.box, owner.arg, grad=True)
            held = t._grad
            if held is None:
                self.absent.append(place)
                self.grads[id(t)] = None
            else:
                var = self.variable(held._v.shape, held._v.dtype)
                self.inputs.append(Input(var.index, self.avals[var.index], place))
                self.grads[id(t)] = wrap(var)
        return self.grads[id(t)]

    def write_grad(self, t: Tensor, value: Tensor | None) -> None:
        """``t.grad = value``."""
        if isinstance(t._v, Tracer) and id(t) not in self.places:
            t._grad = value
            return
        owner = self._remember(t, Place(t))
        self.grads[id(t)] = value
        self.regraded[id(t)] = Place(owner.box, owner.arg, grad=True)

    def restore(self) -> None:
        """Give outside boxes that were written back the history they had."""
        for t, node, slot in self.histories:
            t._node, t._slot = node, slot


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
