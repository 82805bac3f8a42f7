"""Constants: what depends on no input is computed once, here, where it is small enough to be kept with the program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from funcnn.compiler.ir import Constant, Equation, Program, Var
from funcnn.core.device import HOST
from funcnn.core.primitive import evaluate

SMALL_ELEMENTS = 256  # an equation costs more than to keep so few numbers; more would be memory that nobody gets back


def constants(program: Program) -> Program:
    """The program with such equations as constants: literals, and what is computed of constants alone."""
    known: dict[Var, np.ndarray] = {constant.var: constant.array for constant in program.constants}
    made: list[Constant] = []
    kept = []
    for eq in program.equations:
        if not _is_constant(eq, known):
            kept.append(eq)
            continue
        try:
            arrays = evaluate(eq.prim, [known[i] for i in eq.ins], eq.params)
        except Exception:  # it is raised where the program comes to it
            kept.append(eq)
            continue
        known.update(zip(eq.outs, arrays, strict=True))
        made += map(Constant, eq.outs, arrays)
    return replace(program, equations=tuple(kept), constants=(*program.constants, *made)) if made else program


def _is_constant(eq: Equation, known: dict[Var, np.ndarray]) -> bool:
    """A view is none: it costs nothing, and its layout is one that new memory does not have."""
    if not known.keys() >= {*eq.ins} or eq.prim.view is not None or eq.effects or eq.programs:
        return False
    if any(var.device != HOST for var in eq.outs):
        return False
    return sum(var.size for var in eq.outs) <= SMALL_ELEMENTS
