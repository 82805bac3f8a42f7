"""Common subexpressions: of equations that compute the same from the same, the first one stands for all."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import Any

from funcnn.compiler.ir import Equation, Program, Var, substituted


def cse(program: Program) -> Program:
    """The program with each value computed once. Calls back into Python are not values; an equal check is made once."""
    known: dict[Var, Var] = {}
    first: dict[Any, tuple[Var, ...]] = {}
    kept = []
    for eq in program.equations:
        if known and not known.keys().isdisjoint(eq.ins):
            eq = replace(eq, ins=tuple([known.get(var, var) for var in eq.ins]))
        key = _key(eq)
        if key in first:
            known.update(zip(eq.outs, first[key], strict=True))
            continue
        if key is not None:
            first[key] = eq.outs
        kept.append(eq)
    return (
        program if len(kept) == len(program.equations) else substituted(replace(program, equations=tuple(kept)), known)
    )


def _key(eq: Equation) -> Any:
    """Equal for equations that compute the same; None for one that stands for itself."""
    if eq.prim.effect:
        return None
    key = (eq.prim, eq.ins, tuple(sorted(eq.setting().items(), key=itemgetter(0))))
    try:
        hash(key)
    except TypeError:  # a parameter of a user's that cannot be compared, or a program
        return None
    return key
