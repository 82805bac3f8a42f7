"""A compiled step: what ``jit`` keeps for one kind of arguments. Conditions, a program, and what becomes of its results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funcnn.compiler.interface import Conditions, Found, Input, Kept, Place
from funcnn.compiler.ir import Program, Store, Var
from funcnn.compiler.lasting import Lasting
from funcnn.compiler.passes.pipeline import optimized
from funcnn.compiler.runtime.reference import Replay
from funcnn.compiler.sharing import shared
from funcnn.compiler.text import show
from funcnn.compiler.trace import Stage
from funcnn.core.context import ctx
from funcnn.core.tensor import Cell, Tensor, wrap
from funcnn.core.tree import TreeDef
from funcnn.ops.movement.views import detach


class Aliased(NamedTuple):
    """A recipe for a result: the view that ``prim`` makes of the result of another recipe, or its detached alias."""

    base: int
    prim: Any
    params: dict
    detached: bool


class Fresh(NamedTuple):
    """A new ``.grad`` box: where the box is whose gradient it is, and the number of its recipe (None: no gradient)."""

    owner: Place
    recipe: int | None


class Results(NamedTuple):
    """What leaves a traced function.

    recipes: for each box that leaves, where it comes from: a variable, the place of a box outside, or ``Aliased``.
    items: for each leaf of the result its recipe's number, or a ``Static``; treedef: how the result is made of them.
    stores: what is written to boxes outside, each with its variable. fresh: new gradients.
    """

    recipes: list
    items: list
    treedef: TreeDef
    stores: list[tuple[Kept, Var]]
    fresh: list[Fresh]


class CompiledStep(Conditions):
    """A traced function, ready to run on what a call found: where each box is among that was looked up when it was compiled."""

    def __init__(self, stage: Stage, results: Results):
        super().__init__(stage, bool(results.stores or results.fresh))
        self.items, self.treedef, recipes = results.items, results.treedef, results.recipes
        self.recipes = len(recipes)
        self.computed = [at for at, recipe in enumerate(recipes) if isinstance(recipe, Var)]
        self.placed = [(at, self.places[recipe]) for at, recipe in enumerate(recipes) if isinstance(recipe, Place)]
        self.aliased = [(at, recipe) for at, recipe in enumerate(recipes) if isinstance(recipe, Aliased)]
        self.stores = [(self.places[kept.place], kept.into) for kept, _ in results.stores]
        self.fresh = [(self.places[new.owner], new.recipe) for new in results.fresh]
        self.inputs = [self._place(entry) for entry in stage.inputs]
        self.other_inputs = [(at, e) for at, e in enumerate(stage.inputs) if self.inputs[at] is None]
        traced = _program(stage, [recipes[at] for at in self.computed], results.stores)
        self.lasting = Lasting(stage, self.inputs)
        self.runtime = Replay(optimized(traced), self.lasting.inputs)

    def _place(self, entry: Input) -> int | None:
        """Where an input is among the boxes of a call, if it is the array of one."""
        return None if entry.place is None or entry.count is not None else self.places.get(entry.place)

    @property
    def program(self) -> Program:
        """What runs: what was traced, after all passes."""
        return self.runtime.program

    def __str__(self) -> str:
        return show(self.program, data=False, origins=False)

    def values(self, found: Found) -> list:
        """The arrays of the program's inputs."""
        values: list[Any] = [None if at is None else found.arrays[at] for at in self.inputs]
        for at, entry in self.other_inputs:
            values[at] = entry.fill(found.args)
        return values

    def run(self, found: Found, donated: list) -> Any:
        """Compute, then store what the function wrote; an error while computing stores nothing.

        donated: boxes that end with this call; a result that would be one of them is a new box on its memory.
        """
        self.runtime = self.lasting.renewed(self.runtime, found)
        arrays = self.runtime.run(self.values(found))
        self.lasting.note(self.runtime, found)
        made: list[Any] = [None] * self.recipes
        for at, array in zip(self.computed, arrays, strict=False):
            made[at] = wrap(array)
        for at, place in self.placed:
            made[at] = found.boxes[place]
        self._store(found.boxes, arrays[len(self.computed) :])
        if donated:
            ended = set(map(id, donated))
            for at, _ in self.placed:
                if id(made[at]) in ended:
                    made[at] = wrap(made[at]._v)
        for at, recipe in self.aliased:
            made[at] = _aliased(recipe, made[recipe.base])
        for place, new in self.fresh:
            found.boxes[place]._grad = None if new is None else made[new]
        return self.treedef.unflatten([made[item] if isinstance(item, int) else item.value for item in self.items])

    def _store(self, boxes: list[Tensor], arrays: list[np.ndarray]) -> None:
        """Give boxes their new values: in the memory that is there, where others see it, else in that of the values."""
        for (place, into), array in zip(self.stores, arrays, strict=True):
            box = boxes[place]
            cell = box._cell
            if cell is None:
                cell = box._cell = Cell()
            if array is box._v:
                pass  # written where it lies, by an operation that overwrites it
            elif cell.shared or into or array.strides != box._v.strides:
                np.copyto(box._v, array)
            else:
                box._v = array
            cell.version += 1


def _program(stage: Stage, outputs: list[Var], stores: list[tuple[Kept, Var]]) -> Program:
    """What was traced, as a program with these results."""
    met, strides, read = stage.outside.values(), {}, {}
    asked = {id(entry.spot): entry.strides for entry in met if entry.strides is not None}
    for var, (spot, count) in stage.lifted.items():
        known = asked.get(id(spot)) if count is None else (var.dtype.itemsize,)
        if known is not None:
            strides[var] = known
        if count is None:
            read[id(spot)] = var
    into = {entry.place: read.get(id(entry.spot)) for entry in met}
    inputs, equations = tuple([entry.var for entry in stage.inputs]), tuple(stage.equations)
    written = tuple([Store(var, into[kept.place]) for kept, var in stores])
    return shared(Program(inputs, tuple(stage.constants), equations, tuple(outputs), written, strides))


def _aliased(recipe: Aliased, base: Tensor) -> Tensor:
    """The view or alias, made anew of the box at hand."""
    before, ctx.grad = ctx.grad, False  # a result that carries gradients never comes from a program
    try:
        return detach(base) if recipe.detached else recipe.prim(base, **recipe.params)
    finally:
        ctx.grad = before


class Leaving:
    """The recipes of the boxes that leave a trace: what they are, or of what they are a view."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.recipes: list = []
        self.known: dict[int, int] = {}
        self.held: list[Tensor] = []  # keeps ids from being reused

    def recipe(self, box: Tensor) -> int:
        """The number of a box's recipe, the same for the same box."""
        if id(box) not in self.known:
            made = self._made(box)
            self.held.append(box)
            self.recipes.append(made)
            self.known[id(box)] = len(self.recipes) - 1
        return self.known[id(box)]

    def _made(self, box: Tensor) -> Any:
        place = self.stage.kept(box)
        if place is not None:
            return place
        view = box._view
        source = None if view is None else view.source()
        if view is None or source is None:
            return self.stage.read(box).var
        return Aliased(self.recipe(source), view.prim, view.params, view.detached)
