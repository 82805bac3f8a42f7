"""An equation at its place in a runtime, and what computes it for operands of one layout: nothing is asked again at a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from funcnn.compiler.ir import Equation
from funcnn.core.context import ctx
from funcnn.core.device import CPU
from funcnn.core.evaluation import Planned, choose, planned
from funcnn.core.foreign import refuse_returned
from funcnn.core.in_place import Known, looked_up
from funcnn.core.primitive import evaluate, refused
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import LaunchPlan
from funcnn.kernels.once import Once, split
from funcnn.kernels.refusal import Refused

ARRAYS_FOR_ADDRESSES = 4  # arrays that an equation overwrites, from which it pays to know where they lie
Run = Callable[[list], list]  # from an equation's inputs to its outputs


class Site:
    """An equation at its place in a runtime.

    into: which inputs' memory its outputs take over. constant: of each input, whether it stays the same from call to call.
    keeper: what keeps what was made of these, if it was bound to such a thing.
    """

    __slots__ = ("backward", "constant", "into", "keeper", "known", "line", "params", "path", "prim")

    def __init__(self, eq: Equation, into: tuple | None = None, constant: tuple[bool, ...] = ()):
        self.into, self.constant = into, constant
        self.keeper: Keeper | None = None
        self.prim, self.params = eq.prim, eq.params
        self.path, self.backward, self.line = eq.path, eq.backward, eq.line
        self.known: tuple[list, Any] = ([], None)

    def planned(self, values: list) -> Planned:
        """The outputs and the implementation for these arrays, for who stands around an evaluation."""
        strides = [value.strides for value in values]
        before, made = self.known
        if made is None or strides != before or ctx.preferred is not None:
            made = planned(self.prim, values, self.params)
            self.known = strides, made
        return made

    def bound(self, values: list) -> Run:
        """What computes the equation, for values that lie in memory as these do."""
        prim, params = self.prim, self.params
        if self.into is not None:
            return lambda values: evaluate(prim, values, params, self, True)
        if prim.view is not None:
            run = _viewing(partial(prim.view, **params) if params else prim.view)
        else:
            made = planned(prim, values, params)
            memory = _making(made.outs)
            if made.host:
                run = _on_host(prim, params, made, memory)
            else:
                run = _launching(prim, params, self._runner(made, values), memory)
        return run if prim.check is None else _checking(prim, params, run)

    def _runner(self, made: Planned, values: list) -> Callable:
        """What makes the launches; those that depend on nothing that changes are made once, and what they wrote is kept."""
        if not any(self.constant):
            return made.run  # type: ignore[return-value]
        facts = [(value.shape, value.dtype, value.strides) for value in values]
        operands = tuple([Operand(*fact, same) for fact, same in zip(facts, self.constant, strict=True)])
        plan = choose(self.prim, operands, self.params, None)[1]
        if not isinstance(plan, LaunchPlan):
            return made.run  # type: ignore[return-value]
        outs = [Operand(shape, dtype, ()) for shape, dtype, *_ in made.outs]
        once = split(plan, operands)
        if once is None:
            return CPU.runner(plan, operands, tuple(outs))
        self.keeper = Keeper(once, operands, tuple(outs))
        return self.keeper


class RepeatedSite(Site):
    """The place of an equation whose outputs all come about in the memory of inputs, which mostly are the arrays of before."""

    __slots__ = ("same",)

    def __init__(self, eq: Equation, into: tuple | None):
        super().__init__(eq, into)
        self.same: Any = None

    def planned(self, values: list) -> Planned:
        """The outputs and the implementation for these arrays, and where these lie."""
        same = self.same
        if type(same) is not Known or ctx.preferred is not None or not same.holds(values):
            same = self.same = looked_up(self.prim, self.params, values)
        return same.planned(values)


def site_of(eq: Equation, into: tuple | None, constant: tuple[bool, ...]) -> Site:
    """The place of an equation, by whether all of its outputs come about in the memory of inputs, and how many there are."""
    whole = into is not None and len(into) == len(eq.outs) and None not in into
    return RepeatedSite(eq, into) if whole and len(eq.outs) >= ARRAYS_FOR_ADDRESSES else Site(eq, into, constant)


class Keeper:
    """What makes the launches of a plan of which a part runs once, and keeps what that part wrote."""

    def __init__(self, once: Once, operands: tuple, outs: tuple):
        self.memory = [(one.shape, one.dtype) for one in once.kept]
        self.first = CPU.runner(once.first, operands, once.kept)
        self.rest = CPU.runner(once.rest, (*operands, *once.kept), outs)
        self.kept: list | None = None

    def __call__(self, ins: list, outs: list) -> None:
        kept = self.kept
        if kept is None:
            kept = [empty(shape, dtype) for shape, dtype in self.memory]
            self.first(ins, kept)
            self.kept = kept
        self.rest(ins + kept, outs)


def _making(outs: list) -> Callable[[], list]:
    """What makes memory for outputs; from where, their sizes have decided."""
    makers = [partial(empty if large else fresh, shape, dtype) for shape, dtype, large in outs]
    return lambda: [make() for make in makers]


def _viewing(view: Callable) -> Run:
    return lambda values: [view(*values)]


def _on_host(prim: Any, params: dict, made: Planned, memory: Callable[[], list]) -> Run:
    call: Any = partial(made.run, **params) if params else made.run  # type: ignore[arg-type]
    name = prim.name if made.name == "host" else None

    def run(values: list) -> list:
        outs = memory()
        try:
            result = call(values, outs)
        except Refused as refusal:
            raise refused(prim, refusal, values, params) from None
        if result is not None and name is not None:
            refuse_returned(prim, result, outs)
        return outs

    return run


def _launching(prim: Any, params: dict, launches: Callable, memory: Callable[[], list]) -> Run:
    def run(values: list) -> list:
        outs = memory()
        try:
            launches(values, outs)
        except Refused as refusal:
            raise refused(prim, refusal, values, params) from None
        return outs

    return run


def _checking(prim: Any, params: dict, compute: Run) -> Run:
    def run(values: list) -> list:
        prim.check(values, **params)
        return compute(values)

    return run
