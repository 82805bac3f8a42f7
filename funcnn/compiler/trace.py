"""Tracing for ``jit``: a Stage turns the primitives that a function applies into a list of equations.

Boxes from outside (parameters, buffers, optimizer state, the random generator) are never touched while tracing. A read
lifts the box to an input; a write, or a new ``.grad``, is noted in an overlay and becomes an output. So a trace that
fails half-way leaves the program's state as it was, and other threads never see a tracer. Boxes that share memory, the
arguments among them, see one another's writes (``compiler.memory``).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from typing import Any

import numpy as np

from funcnn.compiler.interface import Input, Outside, Place, RunEagerly, StageVar, history_p, refuse_dtypes
from funcnn.compiler.ir import Constant, Equation, Var
from funcnn.compiler.memory import Memory, Spot
from funcnn.core import dtypes
from funcnn.core.aval import Missing, Tracer, is_concrete
from funcnn.core.context import ctx
from funcnn.core.device import HOST, common_device, device_of, stand_in, writeable
from funcnn.core.errors import ShapeError, TracerError, user_line
from funcnn.core.graph import Node
from funcnn.core.tensor import Cell, Tensor, is_stale, refresh, wrap
from funcnn.ops.base.structure import cast_p


class Stage:
    """One trace in progress. It stands in for the evaluator at the bottom of the interpreter stack."""

    name = "jit"
    depth = 0

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.count = 0  # of variables
        self.constants: list[Constant] = []
        self.inputs: list[Input] = []
        self.lifted: dict[Var, tuple[Spot, int | None]] = {}
        self.memory = Memory(self._equation, self._input, refuse_dtypes)
        self.outside: dict[int, Outside] = {}  # by the id of the box, as are all of these
        self.places: dict[int, Place] = {}
        self.real: dict[int, Tensor] = {}  # the box outside for which a box of the trace stands
        self.stands: dict[int, Tensor] = {}  # and the other way round
        self.cells: dict[int, list[Tensor]] = defaultdict(list)  # the boxes that have a cell in common outside
        self.recorded: set[int] = set()  # cells of boxes into which something with a history was written
        self.grads: dict[int, Tensor | None] = {}  # the current .grad of a box outside
        self.absent: list[Place] = []  # gradients that were None when first read
        self.written: dict[int, Tensor] = {}
        self.regraded: dict[int, Place] = {}
        self.guards: dict[Any, tuple[Callable, Any, Any]] = {}
        self.given = self.arguments = 0  # arguments, and those with the boxes that are looked up
        self.finders: list[Callable[[], list | None]] = []
        self.same: list[tuple[Place, Place]] = []  # two places where the trace found one box
        self.histories: list[tuple[Any, str, Any]] = []  # what boxes from outside knew of their histories
        self.noted: set[int] = set()
        # in C, which no interrupt breaks off
        self.give_back: Callable = partial(deque, starmap(setattr, self.histories), 0)
        self.held: list[Tensor] = []  # keeps ids from being reused

    # ---- variables ----------------------------------------------------------------------------------------------------
    def variable(self, shape: tuple, dtype: np.dtype, weak: bool = False, device: str = HOST) -> StageVar:
        """A new variable."""
        self.count += 1
        return StageVar(self, Var(self.count - 1, tuple(shape), dtype, weak, device), weak)

    def emit(self, prim: Any, ins: tuple, params: dict) -> list[StageVar]:
        """Write one equation down; its outputs' shapes come from the shape rule.

        A Python number takes the dtype of what it meets, by a cast; one that meets nothing is what eager code makes of it.
        """
        values = [self.read(t) for t in ins]
        if prim is not cast_p and values and all(v.weak and v.dtype.kind == "f" for v in values):
            values = [self._equation(cast_p, [v], {"dtype": dtypes.default_float()}) for v in values]
        return self._equations(prim, values, params)

    def exact(self, t: Tensor) -> Tensor:
        """A Python number as a tensor of just its dtype; any other tensor as it is."""
        value = t._v
        if not isinstance(value, StageVar) or not value.weak:
            return t
        return wrap(StageVar(self, value.var))

    def _equations(self, prim: Any, values: Sequence[StageVar], params: dict) -> list[StageVar]:
        device = common_device(prim.name, [v.device for v in values], params)
        outs = [self.variable(aval.shape, aval.dtype, False, device) for aval in prim.shape(*values, **params)]
        ins, made = tuple([v.var for v in values]), tuple([v.var for v in outs])
        self.equations.append(Equation(prim, ins, made, params, None, ctx.path, ctx.backward, user_line()))
        return outs

    def _equation(self, prim: Any, values: Sequence[StageVar], params: dict) -> StageVar:
        return self._equations(prim, values, params)[0]

    def _input(self, spot: Spot, count: int | None) -> StageVar:
        shape = spot.array.shape if count is None else (count,)
        var = self.variable(shape, spot.array.dtype, False, device_of(spot.array))
        self.inputs.append(Input(var.var, spot.place, count=count))
        self.lifted[var.var] = spot, count
        return var

    def constant(self, array: np.ndarray) -> StageVar:
        """Numbers made while tracing, embedded in the program."""
        var = self.variable(array.shape, array.dtype)
        self.constants.append(Constant(var.var, np.array(array, order="C")))
        return var

    def argument(self, t: Tensor, position: int, weak: bool, data: bool) -> Tensor:
        """A fresh box that stands for an argument; the same one for the same argument. data: it is no tensor."""
        self.given = self.arguments = position + 1
        if weak:  # a Python number
            var = self.variable(t._v.shape, t._v.dtype, weak)
            self.inputs.append(Input(var.var, Place(None, position)))
            return wrap(var)
        box = self._stand(t, Place(None, position))
        self.outside[id(box)].data = data
        if ctx.grad and t._node is not None:
            box._node = Node(history_p, {}, (), (box,))
        else:
            box._rg = t._rg and ctx.grad
        return box

    def _stand(self, t: Tensor, place: Place) -> Tensor:
        """The box that stands for ``t``, which is found at ``place``."""
        if id(t) in self.stands:
            self.same.append((place, self.places[id(self.stands[id(t)])]))
            return self.stands[id(t)]
        box = self.stands[id(t)] = wrap(None)
        self.real[id(box)] = t
        entry = self._enter(box, t._v, place)
        box._v = self.memory.value(entry.spot)
        self.held.append(t)
        return box

    def found(self, find: Callable[[], list | None]) -> None:
        """Look the boxes that ``find`` gives up again at each call: others may have come into their place.

        ``find`` gives as many each time, or None for a call that the trace does not fit.
        """
        self.finders.append(find)
        for box in find() or ():
            if id(box) in self.places:
                self.same.append((Place(None, self.arguments), self.places[id(box)]))
            else:
                self.places[id(box)] = Place(None, self.arguments)
                self.held.append(box)
            self.arguments += 1

    def number(self, key: Any, read: Callable[[], float]) -> Tensor:
        """A Python number that may differ at each call (a learning rate), as a weak 0-d tensor."""
        var = self.variable((), np.dtype(np.float64), weak=True)
        self.inputs.append(Input(var.var, number=read))
        return wrap(var)

    def guard(self, key: Any, read: Callable[[], Any], held: Any = None) -> None:
        """Note a Python-level fact that the trace depends on (held: what it knows by id); another one later traces anew."""
        if key not in self.guards:
            self.guards[key] = (read, read(), held)

    def known(self, t: Tensor) -> np.ndarray | None:
        """The numbers of a box that holds a constant of the program; None for any other box."""
        return next((c.array for c in self.constants if c.var is getattr(t._v, "var", None)), None)

    # ---- outside boxes ------------------------------------------------------------------------------------------------
    def read(self, t: Tensor) -> StageVar:
        """The variable for a box's value as of now, lifting an outside box to an input at its first read."""
        if is_stale(t):
            refresh(t)
        value = t._v
        entry = self.outside.get(id(t))
        if entry is None and is_concrete(value):
            entry = self.reached(t)
        if entry is not None:
            return self.memory.value(entry.spot)
        if isinstance(value, StageVar) and value.owner is self:
            return value
        if isinstance(value, Missing):
            raise TracerError(str(value.owner))
        raise TracerError(
            f"jit: a tensor of shape {tuple(value.shape)} traced by an earlier {value.owner.name} was kept and is read "
            "here; return it from the traced function instead of storing it"
        )

    def reached(self, t: Tensor) -> Outside:
        """The entry of a box that is reached from outside, with its place if that is known already."""
        entry = self.outside.get(id(t))
        if entry is not None:
            return entry
        return self._enter(t, t._v, self.places.get(id(t), Place(t)), t._rg)

    def _enter(self, box: Tensor, array: np.ndarray, place: Place, grad: bool | None = None) -> Outside:
        spot = self.memory.spot(array, place, box)
        cell = id(self._cell(box))
        self.cells[cell].append(box)
        if spot.region.recorded or cell in self.recorded:
            raise RunEagerly
        self.outside[id(box)] = entry = Outside(box, place, spot, grad)
        self.places[id(box)] = place
        self.held.append(box)
        return entry

    def write(self, t: Tensor, new: Tensor) -> None:
        """Give a box the value of another, as of now."""
        var = self.read(new)
        if id(t) not in self.outside and not is_concrete(t._v):
            t._v = var
            return
        entry = self.reached(t)
        region, cell = entry.spot.region, id(self._cell(t))
        if entry.spot.array.size and not writeable(entry.spot.array):
            raise ShapeError("in place: the memory is read-only (expanded, or read-only outside); use .clone() first")
        if ctx.grad and new._node is not None:
            region.recorded = True
            self.recorded.add(cell)
            if region.holders() > 1 or len(self.cells[cell]) > 1:
                raise RunEagerly  # histories of boxes that share memory: what eager code does is not worth a second copy
        if id(t) not in self.written:
            self._note(t)
            self.written[id(t)] = t
        if isinstance(t._v, StageVar):
            t._v = var
        seen = [box for spot in (entry.spot, *self.memory.write(entry.spot, var)) for box in spot.boxes]
        for box in {id(box): box for box in (*seen, *self.cells[cell])}.values():
            self._touch(box, t)

    def _cell(self, box: Tensor) -> Any:
        """What a box has in common with its base and its views outside; an object of its own for a box that has none."""
        real = self.real.get(id(box), box)
        return real if real._cell is None else real._cell

    def restructure(self, t: Tensor) -> None:
        """A box from outside may not change its shape in place within a program: the function runs eagerly."""
        if id(t) in self.outside or is_concrete(t._v):
            raise RunEagerly

    def _touch(self, box: Tensor, writer: Tensor) -> None:
        """Let the views of a box know that its memory was written, through another box."""
        if box is writer or (box._cell is not None and box._cell is writer._cell):
            return
        self._note(box)
        if box._cell is None:
            box._cell = Cell()
        box._cell.version += 1

    def _note(self, t: Tensor) -> None:
        """Remember what a box knows of its history, to give it back after the trace."""
        for thing, names in ((t, ("_node", "_slot", "_cell")), (t._cell, ("version",)), (t._view, ("version",))):
            if thing is not None and id(thing) not in self.noted:
                self.noted.add(id(thing))
                self.histories += [(thing, name, getattr(thing, name)) for name in names]

    def layout(self, t: Tensor) -> np.ndarray | None:
        """An array that lies in memory as an outside box does (from now on a condition of the step); None for others."""
        entry = self.outside.get(id(t))
        if entry is None:
            if not is_concrete(t._v):
                return None
            entry = self.reached(t)
        array = entry.spot.array
        entry.strides = array.strides
        return array if type(array) is np.ndarray else stand_in(array.shape, array.strides, array.dtype)

    def kept(self, t: Tensor) -> Place | None:
        """Where the box is found that leaves as itself: an argument, or a box from outside; None for any other box."""
        if id(t) not in self.outside and not is_concrete(t._v):
            return None
        entry = self.reached(t)
        return None if entry.data else entry.place

    def read_grad(self, t: Tensor) -> Tensor | None:
        """``t.grad`` as of this point of the trace."""
        if isinstance(t._v, Tracer) and id(t) not in self.outside:
            return t._grad
        owner = self.reached(t).place
        real = self.real.get(id(t), t)
        if id(real) not in self.grads:
            place = Place(owner.box, owner.arg, grad=True)
            held = real._grad
            if held is None:
                self.absent.append(place)
            self.grads[id(real)] = None if held is None else self._stand(held, place)
        return self.grads[id(real)]

    def write_grad(self, t: Tensor, value: Tensor | None) -> None:
        """``t.grad = value``."""
        if isinstance(t._v, Tracer) and id(t) not in self.outside:
            t._grad = value
            return
        owner = self.reached(t).place
        real = self.real.get(id(t), t)
        self.grads[id(real)] = value
        self.regraded[id(real)] = owner

    def close(self) -> None:
        """Let no box that stands for another be read beyond the trace."""
        for box in self.stands.values():
            box._v = self.variable(box._v.shape, box._v.dtype)
