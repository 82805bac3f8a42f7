"""What ``jit`` runs: the equations that matter, in order, over numbered slots that are emptied after their last use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.compiler.conditions import Conditions
from funcnn.compiler.interface import Input, Place
from funcnn.compiler.ir import Equation
from funcnn.compiler.trace import Stage
from funcnn.core.context import ctx
from funcnn.core.primitive import Primitive, evaluate
from funcnn.core.tensor import Cell, Tensor, wrap
from funcnn.core.tree import TreeDef
from funcnn.ops.movement import detach

SMALL = 256  # elements; an equation costs more than to keep so few numbers


@dataclass(frozen=True)
class Store:
    """After a run: put slot ``index`` (None: nothing) at a place; for a new ``.grad`` box the number of its recipe.

    into: in the memory that is there, for other boxes share it.
    """

    place: Place
    index: int | None
    fresh: bool = False
    into: bool = False


@dataclass(frozen=True)
class Aliased:
    """A recipe for a result: the view that ``prim`` makes of the result of another recipe, or its detached alias."""

    base: int
    prim: Any
    params: dict
    detached: bool


class Plan(Conditions):
    """A traced function, ready to run on arrays.

    recipes: for each box that leaves, where it comes from: a slot's number, the place of a box outside, or ``Aliased``.
    outputs: for each result its recipe's number, or a ``Static``.
    """

    def __init__(self, stage: Stage, outputs: list, treedef: TreeDef, stores: list[Store], recipes: list):
        super().__init__(stage, bool(stores))
        self.outputs, self.treedef, self.stores, self.recipes = outputs, treedef, stores, recipes
        self.inputs: list[Input] = stage.inputs
        self.size = len(stage.avals)
        self.computed = [at for at, recipe in enumerate(recipes) if isinstance(recipe, int)]
        self.placed = [at for at, recipe in enumerate(recipes) if isinstance(recipe, Place)]
        self.aliased = [at for at, recipe in enumerate(recipes) if isinstance(recipe, Aliased)]
        self.kept = [store for store in stores if not store.fresh]
        self.fresh = [store for store in stores if store.fresh]
        leaving = [*(recipes[at] for at in self.computed), *(store.index for store in self.kept)]
        self.leaving = leaving
        self.equations, self.constants = _literals(_needed(stage.equations, leaving), stage.constants, leaving)
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

    def run(self, args: list, donated: list) -> Any:
        """Compute, then store what the function wrote; an error while computing stores nothing.

        donated: boxes that end with this call; a result that would be one of them is a new box on its memory.
        """
        slots: list[Any] = [None] * self.size
        for entry in self.inputs:
            slots[entry.index] = entry.fill(args)
        for index, array in self.constants.items():
            slots[index] = array
        for eq, last in self.steps:
            outs = evaluate(eq.prim, [slots[i] for i in eq.ins], eq.params, eq)
            for index, out in zip(eq.outs, outs, strict=True):
                slots[index] = out
            for index in last:
                slots[index] = None
        return self._finish(slots, args, donated)

    def _finish(self, slots: list, args: list, donated: list) -> Any:
        arrays = [_own(slots[index], copied) for index, copied in zip(self.leaving, self.copied, strict=True)]
        made: list[Any] = [None] * len(self.recipes)
        for at, array in zip(self.computed, arrays, strict=False):
            made[at] = wrap(
                array if array.flags.c_contiguous else array.copy()
            )  # as eager code lays out what it computes
        for at in self.placed:
            made[at] = self.recipes[at].find(args)
        for store, array in zip(self.kept, arrays[len(self.computed) :], strict=True):
            _put(store, array, args)
        if donated:
            ended = set(map(id, donated))
            for at in self.placed:
                if id(made[at]) in ended:
                    made[at] = wrap(made[at]._v)
        for at in self.aliased:
            made[at] = _aliased(self.recipes[at], made[self.recipes[at].base])
        for store in self.fresh:
            store.place.owner(args)._grad = None if store.index is None else made[store.index]
        return self.treedef.unflatten([made[item] if isinstance(item, int) else item.value for item in self.outputs])

    def __str__(self) -> str:
        lines = [f"inputs {', '.join(f'v{entry.index}:{_show(entry.aval)}' for entry in self.inputs)}"]
        for eq in self.equations:
            outs, ins = (", ".join(f"v{i}" for i in group) for group in (eq.outs, eq.ins))
            params = ", ".join(f"{key}={value}" for key, value in eq.params.items())
            made = f"{outs} = " if outs else ""
            lines.append(f"  {made}{eq.prim.name}({ins}){f' [{params}]' if params else ''}")
        return "\n".join(lines)


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


def _literals(equations: list[Equation], constants: dict, leaving: list[int]) -> tuple[list[Equation], dict]:
    """The equations and constants of a program: small arrays that no input changes are made once, and what nothing reads
    is dropped."""
    rest: list[Equation] = []
    made: dict[int, Any] = {}
    for eq in equations:
        if not eq.ins and sum(aval.size for aval in eq.prim.shape(**eq.params)) <= SMALL:
            made.update(zip(eq.outs, evaluate(eq.prim, [], eq.params, eq), strict=True))
        else:
            rest.append(eq)
    read = {index for eq in rest for index in eq.ins} | set(leaving)
    return rest, {index: array for index, array in {**constants, **made}.items() if index in read}


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


def _own(array: np.ndarray, copied: bool) -> np.ndarray:
    return array.copy() if copied or not array.flags.writeable else array


def _aliased(recipe: Aliased, base: Tensor) -> Tensor:
    """The view or alias, made anew of the box at hand."""
    before, ctx.grad = ctx.grad, False  # a result that carries gradients never comes from a plan
    try:
        return detach(base) if recipe.detached else recipe.prim(base, **recipe.params)
    finally:
        ctx.grad = before


def _put(store: Store, array: np.ndarray, args: list) -> None:
    box: Tensor = store.place.find(args)  # type: ignore[assignment]
    if box._cell is None:
        box._cell = Cell()
    if box._cell.shared or store.into or array.strides != box._v.strides:
        np.copyto(box._v, array)
    else:
        box._v = array
    box._cell.version += 1
