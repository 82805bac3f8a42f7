"""The passes in their order. A pass is a function that takes a program and gives one with the same results, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

from funcnn.compiler.ir import Program, within
from funcnn.compiler.passes.constants import constants
from funcnn.compiler.passes.cse import cse
from funcnn.compiler.passes.dead import dead
from funcnn.compiler.passes.epilogues import epilogues
from funcnn.compiler.passes.outputs import outputs

Pass = Callable[[Program], Program]
PASSES: tuple[Pass, ...] = (dead, constants, cse, dead, outputs, epilogues)

_after: Callable[[Program, Program, str], object] | None = None


def after_each(look: Callable[[Program, Program, str], object] | None) -> Callable | None:
    """Have ``look(before, after, name)`` see what each pass does (tests verify there), or None: nobody. Returns the old one."""
    global _after
    before, _after = _after, look
    return before


def optimized(program: Program, passes: tuple[Pass, ...] = PASSES) -> Program:
    """The program after all passes; the programs that its equations hold, too."""
    if _after is not None:
        _after(program, program, "trace")
    for each in passes:
        made = each(program)
        if _after is not None:
            _after(program, made, each.__name__)
        program = made
    return within(lambda inner: optimized(inner, passes), program)
