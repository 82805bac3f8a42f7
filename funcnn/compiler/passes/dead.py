"""Dead code: equations whose outputs nobody needs, and constants that nobody reads. What has an effect stays."""

from __future__ import annotations

from dataclasses import replace

from funcnn.compiler.ir import Equation, Program, check_of


def dead(program: Program) -> Program:
    """The program without them; of an equation that may raise, its check is kept, or it is where its kernel checks."""
    wanted = set(program.leaving)
    kept = []
    for eq in reversed(program.equations):
        if wanted.isdisjoint(eq.outs):
            if not eq.effects:
                continue
            eq = _effect_of(eq)
        kept.append(eq)
        wanted.update(eq.ins)
    return replace(
        program,
        equations=tuple(kept[::-1]),
        constants=tuple([constant for constant in program.constants if constant.var in wanted]),
    )


def _effect_of(eq: Equation) -> Equation:
    """An equation that does what this one does besides computing its outputs."""
    prim, params = eq.prim, eq.params
    if not eq.outs or prim.effect:
        return eq
    if prim.check is not None or prim.looks:
        return replace(eq, prim=check_of(prim), outs=(), shares=None)
    narrower = None if prim.unused is None else prim.unused((False,) * len(eq.outs), params)
    return eq if narrower is None else replace(eq, prim=narrower[0], params=narrower[1], outs=())
