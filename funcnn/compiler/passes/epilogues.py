"""Epilogues: what is done to a result that nobody else reads is done where it is made (``Primitive.absorbs``)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from funcnn.compiler.ir import Equation, Program, Var


def epilogues(program: Program) -> Program:
    """The program whose equations take in the only one that reads them, as far as their primitives can: a linear layer's ReLU."""
    reads = Counter([var for eq in program.equations for var in eq.ins] + list(program.leaving))
    ends = {eq.outs[0]: eq for eq in program.equations if eq.prim.absorbs is not None and reads[eq.outs[0]] == 1}
    if not ends:
        return program
    made: dict[Var, Equation] = {}  # by the variable that is gone
    equations = tuple([_absorbed(eq, ends, made) for eq in program.equations])
    return replace(program, equations=tuple([eq for eq in equations if made.keys().isdisjoint(eq.outs)]))


def _absorbed(eq: Equation, ends: dict[Var, Equation], made: dict[Var, Equation]) -> Equation:
    first = ends.get(eq.ins[0]) if len(eq.ins) == 1 and eq.shares is None else None
    found = None if first is None or eq.params else first.prim.absorbs(eq.prim, first.params)  # type: ignore[misc]
    if first is None or found is None:
        return eq
    prim, params = found
    made[eq.ins[0]] = eq
    return replace(first, prim=prim, params=params, outs=eq.outs)
