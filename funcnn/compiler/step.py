"""A compiled step: what ``jit`` keeps for one kind of arguments. Conditions, a program, and what becomes of its results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funcnn.compiler.interface import Conditions, Kept, Place
from funcnn.compiler.ir import Program, Store, Var
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
    """A new ``.grad`` box: where it goes, and the number of its recipe (None: no gradient)."""

    place: Place
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
    """A traced function, ready to run on the boxes of a call."""

    def __init__(self, stage: Stage, results: Results):
        super().__init__(stage, bool(results.stores or results.fresh))
        self.recipes, self.items, self.treedef = results.recipes, results.items, results.treedef
        self.stores = [kept for kept, _ in results.stores]
        self.fresh = results.fresh
        self.computed = [at for at, recipe in enumerate(self.recipes) if isinstance(recipe, Var)]
        self.placed = [at for at, recipe in enumerate(self.recipes) if isinstance(recipe, Place)]
        self.aliased = [at for at, recipe in enumerate(self.recipes) if isinstance(recipe, Aliased)]
        self.inputs = stage.inputs
        traced = _program(stage, [self.recipes[at] for at in self.computed], results.stores)
        self.runtime = Replay(optimized(traced))

    @property
    def program(self) -> Program:
        """What runs: what was traced, after all passes."""
        return self.runtime.program

    def __str__(self) -> str:
        return show(self.program, data=False, origins=False)

    def run(self, args: list, donated: list) -> Any:
        """Compute, then store what the function wrote; an error while computing stores nothing.

        donated: boxes that end with this call; a result that would be one of them is a new box on its memory.
        """
        arrays = self.runtime.run([entry.fill(args) for entry in self.inputs])
        made: list[Any] = [None] * len(self.recipes)
        for at, array in zip(self.computed, arrays, strict=False):
            made[at] = wrap(array)
        for at in self.placed:
            made[at] = self.recipes[at].find(args)
        for store, array in zip(self.stores, arrays[len(self.computed) :], strict=True):
            _put(store, array, args)
        if donated:
            ended = set(map(id, donated))
            for at in self.placed:
                if id(made[at]) in ended:
                    made[at] = wrap(made[at]._v)
        for at in self.aliased:
            made[at] = _aliased(self.recipes[at], made[self.recipes[at].base])
        for new in self.fresh:
            new.place.owner(args)._grad = None if new.recipe is None else made[new.recipe]
        return self.treedef.unflatten([made[item] if isinstance(item, int) else item.value for item in self.items])


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


def _put(store: Kept, array: np.ndarray, args: list) -> None:
    box: Tensor = store.place.find(args)  # type: ignore[assignment]
    if box._cell is None:
        box._cell = Cell()
    if array is box._v:
        pass  # written where it lies, by an operation that overwrites it
    elif box._cell.shared or store.into or array.strides != box._v.strides:
        np.copyto(box._v, array)
    else:
        box._v = array
    box._cell.version += 1


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
