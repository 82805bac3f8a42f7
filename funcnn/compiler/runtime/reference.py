"""The reference runtime: one equation after the other, in order. It is the oracle of every faster runtime."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from funcnn.compiler.ir import Equation, Program, Var, call_p
from funcnn.compiler.runtime.in_place import updates
from funcnn.compiler.runtime.site import Run, Site, site_of
from funcnn.core.context import ctx
from funcnn.core.device import HOST
from funcnn.core.errors import DeviceError
from funcnn.core.primitive import around, evaluate, quietly

_strides_of = attrgetter("strides")


class Step(NamedTuple):
    """An equation in a runtime, and the slots of its inputs, of its outputs, and of those whose last use it is.

    inner: what runs the program that it holds. sources: of which inputs that stay the same it may keep something.
    """

    site: Site
    inner: Replay | None
    sources: frozenset[int]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    last: tuple[int, ...]


class Replay:
    """A program, ready to run on arrays: values in numbered slots, which are emptied after their last use.

    lasting: inputs that stay the same from call to call, until ``forget`` says that one did not. kept_from: those, by their
    position, of which something is kept. bound: the layouts of the inputs of the last run, from which those of all values
    follow, and what runs each equation for these.
    """

    def __init__(self, program: Program, lasting: Iterable[Var] = ()):
        self.program, self.lasting = program, frozenset(lasting)
        self.constants = [constant.array for constant in program.constants]
        made = [*program.inputs, *(constant.var for constant in program.constants)]
        made += [out for eq in program.equations for out in eq.outs]
        self.elsewhere = next((var.device for var in made if var.device != HOST), None)
        slots = {var: slot for slot, var in enumerate(made)}
        self.empty = [None] * (len(made) - len(program.inputs) - len(self.constants))
        self.leaving = [slots[var] for var in program.leaving]
        self.copied, self.viewed = _copied(program)
        self.results = len(program.outputs)
        self.steps = _steps(program, slots, _sources(program, self.lasting))
        self.bound: tuple[Any, list[Run | None]] = None, []
        self.kept_from: frozenset[int] = frozenset()

    def forget(self) -> None:
        """Drop what was kept of inputs: one of them is not the same any more."""
        for step in self.steps:
            if step.site.keeper is not None:
                step.site.keeper.kept = None

    def run(self, arrays: list) -> list:
        """The outputs, each in memory of its own and in order, and then what is to be stored, in memory of its own."""
        if self.elsewhere is not None:
            raise DeviceError(f"jit: a program with values on {self.elsewhere!r} cannot be run here, only on {HOST!r}")
        slots = [*arrays, *self.constants, *self.empty]
        if around or ctx.preferred is not None:
            self._observed(slots)
        else:
            layout = [*map(_strides_of, arrays)]
            known, runs = self.bound
            if known != layout:
                runs = [None] * len(self.steps)
                self.bound = layout, runs
            quietly(self._replayed, slots, runs)
        leaving = [slots[slot] for slot in self.leaving]
        for position in self.copied:
            leaving[position] = leaving[position].copy()
        for position in self.viewed:
            flags = leaving[position].flags
            if not flags.writeable or (position < self.results and not flags.c_contiguous):
                leaving[position] = leaving[position].copy()  # as eager code lays out what it computes
        return leaving

    def _replayed(self, slots: list, runs: list[Run | None]) -> None:
        """Compute all values, by what runs the equations for this layout (None: not known yet)."""
        try:
            for place, (_, _, _, ins, outs, last) in enumerate(self.steps):
                values = [slots[i] for i in ins]
                made = (runs[place] or self._bind(place, values, runs))(values)
                if len(outs) == 1:
                    slots[outs[0]] = made[0]
                else:
                    for slot, value in zip(outs, made, strict=True):
                        slots[slot] = value
                for slot in last:
                    slots[slot] = None
        except Exception as error:
            _located(error, self.steps[place].site)
            raise

    def _bind(self, place: int, values: list, runs: list[Run | None]) -> Run:
        site, inner, sources = self.steps[place][:3]
        runs[place] = made = site.bound(values) if inner is None else inner.run
        if site.keeper is not None:
            self.kept_from |= sources
        return made

    def _observed(self, slots: list) -> None:
        """Compute all values one by one, for who stands around evaluations or prefers an implementation."""
        try:
            for site, inner, _, ins, outs, last in self.steps:
                values = [slots[i] for i in ins]
                made = evaluate(site.prim, values, site.params, site) if inner is None else inner.run(values)
                for slot, value in zip(outs, made, strict=True):
                    slots[slot] = value
                for slot in last:
                    slots[slot] = None
        except Exception as error:
            _located(error, site)
            raise


def _located(error: Exception, site: Site) -> None:
    if site.line and hasattr(error, "add_note"):  # from Python 3.11 on
        error.add_note(f"{site.prim.name} of a jitted function: {site.line}")


def _copied(program: Program) -> tuple[list[int], list[int]]:
    """Of the values that leave, the positions of those whose memory is an input's, a constant's, or leaves already; and of
    the other views."""
    owners = program.owners()
    taken = {*program.inputs, *(constant.var for constant in program.constants)}
    copied, viewed = [], []
    views = {out for eq in program.equations if eq.prim.view is not None for out in eq.outs}
    for position, var in enumerate(program.leaving):
        if owners[var] in taken:
            copied.append(position)
        elif var in views:
            viewed.append(position)
        taken.add(owners[var])
    return copied, viewed


Sources = (
    frozenset[int] | None
)  # positions of the inputs that a value is computed of; None: it may be another at each call


def _sources(program: Program, lasting: frozenset[Var]) -> dict[Var, Sources]:
    """What is computed of constants and of inputs that stay the same, alone, stays the same."""
    found: dict[Var, Sources] = {constant.var: frozenset() for constant in program.constants}
    found |= {var: frozenset([at]) for at, var in enumerate(program.inputs) if var in lasting}
    for eq in program.equations:
        of = [one for var in eq.ins if (one := found.get(var)) is not None]
        if len(of) == len(eq.ins) and not eq.prim.effect:
            found |= dict.fromkeys(eq.outs, frozenset().union(*of))
    return found


def _steps(program: Program, slots: dict[Var, int], sources: dict[Var, Sources]) -> list[Step]:
    used = {*program.leaving, *(constant.var for constant in program.constants)}
    steps = []
    equations, into = updates(program)
    for place, eq in reversed([*enumerate(equations)]):
        last = {var for var in (*eq.ins, *eq.outs) if var not in used}
        used |= last
        groups = [tuple([slots[var] for var in group]) for group in (eq.ins, eq.outs, last)]
        of = [sources.get(var) for var in eq.ins]
        site = site_of(eq, into.get(place), tuple([one is not None for one in of]))
        steps.append(Step(site, _inner(eq), frozenset().union(*[one for one in of if one]), *groups))
    return steps[::-1]


def _inner(eq: Equation) -> Replay | None:
    return Replay(eq.params["program"]) if eq.prim is call_p else None
