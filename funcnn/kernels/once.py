"""What a plan makes of operands that stay the same, by itself: two plans in place of one, of which the first runs once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.implementation import ANY, Operand
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    SCRATCH,
    Access,
    Array,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Status,
    Table,
)


class Once(NamedTuple):
    """Two plans in place of one. ``first`` writes, from the inputs, what ``rest`` takes as more inputs, described by ``kept``."""

    first: LaunchPlan
    rest: LaunchPlan
    kept: tuple[Operand, ...]


def split(plan: LaunchPlan, operands: tuple[Operand, ...]) -> Once | None:
    """Splits a plan whose launches that run once read only operands that stay the same; None where there is nothing to split.

    What is kept is the scratch that such launches write and the others read.
    """
    once = [launch for launch in plan.launches if launch.once]
    others = [launch for launch in plan.launches if not launch.once]
    read = _numbers(once, INPUT)
    if not read or not all(operands[number].constant for number in read) or _of_one_call(once):
        return None
    kept = sorted(_numbers(once, SCRATCH) & _numbers(others, SCRATCH))
    if any(plan.scratch[number].each_worker for number in kept):
        return None
    own, left = (sorted(_numbers(group, SCRATCH) - {*kept}) for group in (once, others))
    first = LaunchPlan(
        _renamed(once, {**_places(kept, OUTPUT, 0), **_places(own, SCRATCH, 0)}),
        tuple([access if number in read else ANY for number, access in enumerate(plan.inputs)]),
        tuple([Output("zeros" if plan.scratch[number].zeros else "anything") for number in kept]),
        tuple([plan.scratch[number] for number in own]),
        plan.constants,
    )
    more = len(plan.inputs)
    rest = replace(
        plan,
        launches=_renamed(others, {**_places(kept, INPUT, more), **_places(left, SCRATCH, 0)}),
        inputs=(*plan.inputs, *[Access()] * len(kept)),
        scratch=tuple([plan.scratch[number] for number in left]),
        otherwise=_besides(plan.otherwise, len(kept)),
    )
    return Once(first, rest, tuple([_whole(plan.scratch[number]) for number in kept]))


def _besides(plan: LaunchPlan | None, count: int) -> LaunchPlan | None:
    """Returns the plan that stands in for another one, with so many more inputs, which it does not read."""
    if plan is None:
        return None
    return replace(plan, inputs=(*plan.inputs, *[ANY] * count), otherwise=_besides(plan.otherwise, count))


def _whole(scratch: Scratch) -> Operand:
    dtype = np.dtype(scratch.dtype)
    return Operand((scratch.size,), dtype, (dtype.itemsize,), constant=True)


def _places(numbers: list[int], kind: str, first: int) -> dict:
    """Returns what scratch of these numbers becomes: buffers of a kind, numbered from the first on."""
    return {(SCRATCH, number): (kind, place) for place, number in enumerate(numbers, first)}


def _numbers(launches: list[Launch], kind: str) -> set[int]:
    """Returns the numbers of the buffers of a kind that launches are given."""
    args = [arg for launch in launches for arg in launch.args]
    tables = [one for arg in args if isinstance(arg, Table) for row in arg.rows for one in row]
    arrays = [(arg.buffer, arg.number) for arg in args if isinstance(arg, Array)]
    return {number for buffer, number in (*arrays, *tables) if buffer == kind}


def _of_one_call(launches: list[Launch]) -> bool:
    """Whether launches write what belongs to one call: its outputs, or its status words."""
    return bool(_numbers(launches, OUTPUT)) or any(
        isinstance(arg, Status) for launch in launches for arg in launch.args
    )


def _renamed(launches: list[Launch], names: dict) -> tuple[Launch, ...]:
    """Returns the launches with other buffers in place of some."""

    def of(arg: Any) -> Any:
        if isinstance(arg, Table):
            return Table(tuple([tuple([names.get(one, one) for one in row]) for row in arg.rows]))
        if not isinstance(arg, Array):
            return arg
        buffer, number = names.get((arg.buffer, arg.number), (arg.buffer, arg.number))
        return arg._replace(buffer=buffer, number=number)

    return tuple([launch._replace(args=tuple(map(of, launch.args)), once=False) for launch in launches])
