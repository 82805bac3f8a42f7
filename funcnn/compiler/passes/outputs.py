"""Unused outputs: a primitive that can leave some of its outputs out (``Primitive.unused``) does so where nobody reads them."""

from __future__ import annotations

from dataclasses import replace

from funcnn.compiler.ir import Equation, Program, Var


def outputs(program: Program) -> Program:
    """The program whose equations make what is used, as far as their primitives can: a pool without its indices."""
    read = {var for eq in program.equations for var in eq.ins} | set(program.leaving)
    return replace(
        program,
        equations=tuple([eq if eq.prim.unused is None else _narrowed(eq, read) for eq in program.equations]),
    )


def _narrowed(eq: Equation, read: set[Var]) -> Equation:
    used = tuple([out in read for out in eq.outs])
    narrower = None if all(used) else eq.prim.unused(used, eq.params)  # type: ignore[misc]
    if narrower is None:
        return eq
    prim, params, *made = narrower
    outs = tuple([out for out, is_made in zip(eq.outs, made[0] if made else used, strict=True) if is_made])
    return replace(eq, prim=prim, params=params, outs=outs)
