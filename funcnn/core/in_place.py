"""Operations that overwrite inputs: where their outputs come about, and what is known of arrays that stay the same."""

from __future__ import annotations

from operator import is_, itemgetter
from typing import Any
from weakref import ref

from funcnn.core.context import ctx
from funcnn.core.evaluation import Planned, planned
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.launch import LaunchPlan

_now = ref.__call__


class InPlace:
    """What stands for the equation of a program where eager code lets an operation overwrite some of its inputs."""

    __slots__ = ("backward", "into", "line", "params", "path", "prim")

    def __init__(self, prim: Any, params: dict[str, Any], into: tuple[int, ...]):
        self.prim, self.params, self.into = prim, params, into
        self.path, self.backward, self.line = ctx.path, ctx.backward, ""

    def planned(self, values: list) -> Planned:
        """Plans as the function ``planned`` does."""
        return planned(self.prim, values, self.params)


def taken_over(made: Planned, values: list, into: tuple) -> list:
    """Returns memory for the outputs: that of the inputs ``into`` (None: new memory) where it is contiguous and writeable."""
    if made.fit:
        return [values[at] for at in into]
    outs = []
    for at, (shape, dtype, _) in enumerate(made.outs):
        value = values[into[at]] if at < len(into) and into[at] is not None else None
        fits = value is not None and value.flags.c_contiguous and value.flags.writeable
        outs.append(value if fits else empty(shape, dtype))
    return outs


class Known(InPlace):
    """The same for arrays that are overwritten again and again: what was planned for them and, in tables, their addresses.

    arrays: weak references to them, for a caller may put others in their place. others: of each other input its place and
    its shape, strides and dtype.
    """

    __slots__ = ("arrays", "made", "others", "pick")

    def __init__(self, prim: Any, params: dict[str, Any], into: tuple[int, ...], values: list, made: Planned):
        super().__init__(prim, params, into)
        self.pick = itemgetter(*self.into, self.into[0])  # at least two, which makes a tuple
        self.arrays = [*map(ref, self.pick(values))]
        changing = [at for at in range(len(values)) if at not in self.into]
        self.others = [(at, (values[at].shape, values[at].strides, values[at].dtype)) for at in changing]
        run = made.run.repeated(values, [values[at] for at in self.into], changing)  # type: ignore[union-attr]
        self.made = made._replace(run=run, fit=True)

    def holds(self, values: list) -> bool:
        """Whether the overwritten inputs are the arrays of before, and the others are of the same kind."""
        if not all(map(is_, map(_now, self.arrays), self.pick(values))):
            return False
        for at, described in self.others:
            value = values[at]
            if (value.shape, value.strides, value.dtype) != described:
                return False
        return True

    def planned(self, values: list) -> Planned:
        """Returns what was planned, for values of which it ``holds``."""
        return self.made


def looked_up(prim: Any, params: dict[str, Any], values: list) -> InPlace:
    """Plans for these arrays; what is known of them if all that are overwritten are contiguous and writeable."""
    made = planned(prim, values, params)
    into = prim.overwritten(params)
    flags = [values[at].flags for at in into]
    fit = len(into) == len(made.outs) and all(known.c_contiguous and known.writeable for known in flags)
    if fit and isinstance(made.plan, LaunchPlan) and ctx.preferred is None:
        return Known(prim, params, into, values, made)
    return InPlace(prim, params, into)
