"""The reference runtime: one equation after the other, by the evaluator. It is the oracle of every faster runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.compiler.ir import Equation, Program, Var, call_p
from funcnn.compiler.runtime.in_place import updates
from funcnn.core.context import ctx
from funcnn.core.device import HOST
from funcnn.core.errors import DeviceError
from funcnn.core.evaluation import Planned, planned
from funcnn.core.in_place import Known, looked_up
from funcnn.core.primitive import evaluate


class Site:
    """An equation at its place in a runtime, with how it was planned for the layouts that it met last.

    All else that a plan depends on is the same at each run: types, parameters, and settings that steps are kept by.
    """

    __slots__ = ("backward", "into", "known", "line", "params", "path", "prim")

    def __init__(self, eq: Equation, into: tuple | None = None):
        self.into = into
        self.prim, self.params = eq.prim, eq.params
        self.path, self.backward, self.line = eq.path, eq.backward, eq.line
        self.known: tuple[list, Any] = ([], None)

    def planned(self, values: list) -> Planned:
        """The outputs and the implementation for these arrays."""
        strides = [value.strides for value in values]
        before, made = self.known
        if made is None or strides != before or ctx.preferred is not None:
            made = planned(self.prim, values, self.params)
            self.known = strides, made
        return made


class RepeatedSite(Site):
    """The place of an equation whose outputs all come about in the memory of inputs, which mostly are the arrays of before."""

    __slots__ = ("same",)

    def __init__(self, eq: Equation, into: tuple):
        super().__init__(eq, into)
        self.same: Any = None

    def planned(self, values: list) -> Planned:
        """The outputs and the implementation for these arrays, and where these lie."""
        same = self.same
        if type(same) is not Known or ctx.preferred is not None or not same.holds(values):
            same = self.same = looked_up(self.prim, self.params, values)
        return same.planned(values)


class Replay:
    """A program, ready to run on arrays: values in numbered slots, which are emptied after their last use."""

    def __init__(self, program: Program):
        self.program = program
        self.constants = [constant.array for constant in program.constants]
        made = [*program.inputs, *(constant.var for constant in program.constants)]
        made += [out for eq in program.equations for out in eq.outs]
        elsewhere = [var.device for var in made if var.device != HOST]
        if elsewhere:
            raise DeviceError(f"jit: a program with values on {elsewhere[0]!r} cannot be run here, only on {HOST!r}")
        slots = {var: slot for slot, var in enumerate(made)}
        self.empty = [None] * (len(made) - len(program.inputs) - len(self.constants))
        self.leaving = [slots[var] for var in program.leaving]
        self.copied = _copied(program)
        self.results = len(program.outputs)
        self.steps = _steps(program, slots)

    def run(self, arrays: list) -> list:
        """The outputs, each in memory of its own and in order, and then what is to be stored, in memory of its own."""
        slots = [*arrays, *self.constants, *self.empty]
        try:
            for site, prim, params, inner, ins, outs, last in self.steps:
                values = [slots[i] for i in ins]
                made = evaluate(prim, values, params, site) if inner is None else inner.run(values)
                if len(outs) == 1:
                    slots[outs[0]] = made[0]
                else:
                    for slot, value in zip(outs, made, strict=True):
                        slots[slot] = value
                for slot in last:
                    slots[slot] = None
        except Exception as error:
            if site.line and hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"{prim.name} of a jitted function: {site.line}")
            raise
        leaving = [_own(slots[slot], copied) for slot, copied in zip(self.leaving, self.copied, strict=True)]
        for position, array in enumerate(leaving[: self.results]):
            if not array.flags.c_contiguous:
                leaving[position] = array.copy()  # as eager code lays out what it computes
        return leaving


def _own(array: np.ndarray, copied: bool) -> np.ndarray:
    return array.copy() if copied or not array.flags.writeable else array


def _copied(program: Program) -> list[bool]:
    """For each value that leaves: whether its memory is an input's, a constant's, or leaves already."""
    owners = program.owners()
    taken = {*program.inputs, *(constant.var for constant in program.constants)}
    copied = []
    for var in program.leaving:
        copied.append(owners[var] in taken)
        taken.add(owners[var])
    return copied


def _steps(program: Program, slots: dict[Var, int]) -> list[tuple]:
    """The site of each equation, what runs it, and the slots of its inputs, of its outputs, and of those whose last use it is."""
    used = {*program.leaving, *(constant.var for constant in program.constants)}
    steps = []
    equations, into = updates(program)
    for place, eq in reversed([*enumerate(equations)]):
        last = {var for var in (*eq.ins, *eq.outs) if var not in used}
        used |= last
        groups = [tuple([slots[var] for var in group]) for group in (eq.ins, eq.outs, last)]
        steps.append((_site(eq, into.get(place)), eq.prim, eq.params, _inner(eq), *groups))
    return steps[::-1]


def _site(eq: Equation, into: tuple | None) -> Site:
    whole = into is not None and len(into) == len(eq.outs) and None not in into
    return RepeatedSite(eq, into) if whole else Site(eq, into)  # type: ignore[arg-type]


def _inner(eq: Equation) -> Any:
    return Replay(eq.params["program"]) if eq.prim is call_p else None
