"""Whether a program is well formed: what every pass must keep. Tests verify after each pass, users never pay for it."""

from __future__ import annotations

from collections.abc import Iterable

from funcnn.compiler.ir import Equation, Program, ProgramError, Var
from funcnn.compiler.sharing import shared
from funcnn.compiler.text import show
from funcnn.core.device import HOST, common_device


def verify(program: Program, where: str = "program") -> Program:
    """The program itself. Raises ``ProgramError`` for one that is not well formed, with the place and the remedy.

    Each variable is made once, before it is used, and has one type; each equation's shape rule gives the types of its
    outputs; what shares memory is what the view rules say; programs within equations are well formed, too.
    """
    known: dict[int, Var] = {}
    for var in (*program.inputs, *(constant.var for constant in program.constants)):
        _define(known, var, f"{where}, inputs and constants")
    for constant in program.constants:
        array = constant.array
        if (array.shape, array.dtype) != (constant.var.shape, constant.var.dtype):
            raise ProgramError(f"{where}: %{constant.var.number} is {_type(constant.var)}, but its numbers are "
                               f"{array.dtype.name}{list(array.shape)}")  # fmt: skip
    for var, strides in program.strides.items():
        if var not in program.inputs or len(strides) != var.ndim:
            raise ProgramError(f"{where}: strides {strides} for %{var.number}: expected an input of so many dimensions")
    for position, eq in enumerate(program.equations):
        _equation(eq, known, f"{where}, equation {position} ({eq.prim.name})")
    _use(known, program.outputs, f"{where}, results")
    _stores(program, known, where)
    _sharing(program, where)
    return program


def _type(var: Var) -> str:
    return f"{var.dtype.name}{list(var.shape)}"


def _define(known: dict[int, Var], var: Var, where: str) -> None:
    if var.number in known:
        raise ProgramError(f"{where}: %{var.number} is made a second time; give the second one a number of its own")
    known[var.number] = var


def _use(known: dict[int, Var], group: Iterable[Var], where: str) -> None:
    for var in group:
        if var.number not in known:
            raise ProgramError(
                f"{where}: %{var.number} is used before an equation makes it; keep what makes it, before"
            )
        if known[var.number] != var:
            raise ProgramError(
                f"{where}: %{var.number} is used as {_type(var)}, but was made as {_type(known[var.number])}"
            )


def _equation(eq: Equation, known: dict[int, Var], where: str) -> None:
    _use(known, eq.ins, where)
    made = [(tuple(aval.shape), aval.dtype) for aval in eq.prim.shape(*eq.ins, **eq.params)]
    types = [(var.shape, var.dtype) for var in eq.outs]
    if made != types:
        raise ProgramError(f"{where}: its shape rule gives {made}, but the program has {types}; make the outputs anew")
    device = common_device(where, [var.device for var in eq.ins], eq.params) if eq.outs else HOST
    for var in eq.outs:
        if var.device != device:
            raise ProgramError(f"{where}: %{var.number} is on {var.device!r}, but it is computed on {device!r}")
        _define(known, var, where)
    for inner in eq.programs:
        verify(inner, where)


def _stores(program: Program, known: dict[int, Var], where: str) -> None:
    _use(known, (store.var for store in program.stores), f"{where}, stores")
    for store in program.stores:
        if store.into is None:
            continue
        if store.into not in program.inputs:
            raise ProgramError(f"{where}, stores: %{store.into.number} is no input; what is written is a box outside")
        if (store.into.shape, store.into.dtype) != (store.var.shape, store.var.dtype):
            raise ProgramError(f"{where}, stores: %{store.var.number}, {_type(store.var)}, does not fit "
                               f"%{store.into.number}, {_type(store.into)}")  # fmt: skip


def _sharing(program: Program, where: str) -> None:
    for position, (eq, right) in enumerate(zip(program.equations, shared(program).equations, strict=True)):
        if eq.shares != right.shares:
            said, rule = (
                "no memory" if e.shares is None else f"the memory of %{e.ins[e.shares].number}" for e in (eq, right)
            )
            raise ProgramError(f"{where}, equation {position} ({eq.prim.name}): it shares {said}, but its view rule shares "
                               f"{rule}; a pass that changes layouts ends with sharing.shared(program)")  # fmt: skip


def verify_pass(before: Program, after: Program, name: str) -> Program:
    """``after``, well formed, with the inputs, results and effects of ``before`` in their order.

    Of two equal checks a pass may drop the second; a check may stand alone in place of what it checked for.
    """
    verify(after, name)
    if (before.inputs, len(before.outputs), len(before.stores)) != (
        after.inputs,
        len(after.outputs),
        len(after.stores),
    ):
        raise ProgramError(
            f"{name}: inputs, results or stores differ in number from those before:\n{show(after, False)}"
        )
    for one, two in zip((*before.outputs, *(s.var for s in before.stores)), after.leaving, strict=True):
        if (one.shape, one.dtype) != (two.shape, two.dtype):
            raise ProgramError(f"{name}: %{two.number}, {_type(two)}, leaves in place of {_type(one)}")
    wanted, kept = _effects(before), _effects(after)
    if list(dict.fromkeys(wanted)) != list(dict.fromkeys(kept)):
        raise ProgramError(f"{name}: the effects were {wanted} and are {kept}; they must stay, in their order")
    return after


def _effects(program: Program) -> list[str]:
    """The effects as text, those of programs within equations in their place."""
    found: list[str] = []
    for eq in program.equations:
        if eq.prim.check is not None or eq.prim.refuse is not None or eq.prim.effect:
            found.append(eq.prim.name.removesuffix("_check"))
        for inner in eq.programs:
            found += _effects(inner)
    return found
