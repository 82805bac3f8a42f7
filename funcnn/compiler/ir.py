"""What a traced function is written in: typed variables, equations over them, and programs of equations.

A program is a value: a pass takes one and gives another, nothing is changed in place. The order of the equations is the
order of what they do besides computing (``Equation.effects``); what is written to boxes comes after all of them, in the
order of ``Program.stores``, so a program that fails has written nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.core.aval import Shaped
from funcnn.core.errors import FuncnnError
from funcnn.core.primitive import Primitive


class ProgramError(FuncnnError):
    """A program that is not well formed: by a wrong pass, or in a text that was read."""


class _Numbered(NamedTuple):
    number: int
    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool = False
    device: str = "cpu"


class Var(_Numbered, Shaped):
    """A variable: its number in its program, the type of its value and where that is. weak: it was a Python number."""

    __slots__ = ()


def exact(value: Any) -> Any:
    """What stands for a parameter in comparisons: it differs where values differ at all, as 1, 1.0, True and -0.0 do."""
    if isinstance(value, tuple):
        return (type(value).__name__ if hasattr(value, "_fields") else "tuple", *map(exact, value))
    if isinstance(value, list):
        return ("list", *map(exact, value))
    return ("float", value.hex()) if isinstance(value, float) else (type(value), value)


@dataclass(frozen=True, eq=False)
class Equation:
    """``outs = prim(ins, **params)``.

    shares: the position of the input in whose memory the output lies; None: the outputs have memory of their own.
    path, backward, line: the module that ran, whether a tape was walked back, and ``file:line`` of the user's code.
    """

    prim: Primitive
    ins: tuple[Var, ...]
    outs: tuple[Var, ...]
    params: dict[str, Any] = field(default_factory=dict)
    shares: int | None = None
    path: str = ""
    backward: bool = False
    line: str = ""

    def __eq__(self, other: object) -> bool:
        """Whether both compute the same, wherever they come from."""
        if not isinstance(other, Equation) or self.prim is not other.prim or self.shares != other.shares:
            return False
        return (self.ins, self.outs) == (other.ins, other.outs) and self.setting() == other.setting()

    def setting(self) -> dict[str, Any]:
        """The parameters, to compare them."""
        return {name: exact(value) for name, value in self.params.items()}

    @property
    def programs(self) -> list[Program]:
        """The programs that the equation holds."""
        return [value for value in self.params.values() if isinstance(value, Program)]

    @property
    def effects(self) -> tuple[str, ...]:
        """What running it does besides computing its outputs, in order: "check" (it may raise), or "python"."""
        raises = self.prim.check is not None or self.prim.refuse is not None
        own = ("check",) * raises + ("python",) * self.prim.effect
        return (*own, *(effect for inner in self.programs for eq in inner.equations for effect in eq.effects))


@dataclass(frozen=True, eq=False)
class Constant:
    """A variable whose numbers are part of the program; equal to one with the same bits."""

    var: Var
    array: np.ndarray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.var == other.var and self.array.tobytes() == other.array.tobytes()


class Store(NamedTuple):
    """After the last equation the numbers of ``var`` go to the box that the input ``into`` was read from.

    into: None for a box that the program does not read.
    """

    var: Var
    into: Var | None


@dataclass(frozen=True)
class Program:
    """Equations over inputs and constants. What leaves is ``outputs``, each in memory of its own, and ``stores``.

    strides: those of the inputs whose layout is known, in bytes. A program serves all layouts of its other inputs.
    """

    inputs: tuple[Var, ...]
    constants: tuple[Constant, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Var, ...]
    stores: tuple[Store, ...] = ()
    strides: dict[Var, tuple[int, ...]] = field(default_factory=dict)

    @property
    def leaving(self) -> tuple[Var, ...]:
        """The outputs, and what is stored."""
        return (*self.outputs, *(store.var for store in self.stores))

    @property
    def effects(self) -> list[Equation]:
        """The equations that do something besides computing, in their order."""
        return [eq for eq in self.equations if eq.effects]

    def owners(self) -> dict[Var, Var]:
        """For each variable the one whose memory it lies in: itself, unless it was made as a view."""
        owners = {var: var for var in (*self.inputs, *(constant.var for constant in self.constants))}
        for eq in self.equations:
            for out in eq.outs:
                owners[out] = out if eq.shares is None else owners[eq.ins[eq.shares]]
        return owners


def substituted(program: Program, known: dict[Var, Var]) -> Program:
    """The program where other variables (``known``) stand for some."""

    def of(group: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple([known.get(var, var) for var in group])

    return replace(
        program,
        equations=tuple([
            eq if known.keys().isdisjoint(eq.ins) else replace(eq, ins=of(eq.ins)) for eq in program.equations
        ]),
        outputs=of(program.outputs),
        stores=tuple([Store(known.get(store.var, store.var), store.into) for store in program.stores]),
    )  # fmt: skip


# ---- a check by itself, and a call: the equation that holds a program ---
@lru_cache
def check_of(prim: Primitive) -> Primitive:
    """A primitive that checks its inputs as ``prim`` does and computes nothing."""
    return Primitive(
        f"{prim.name}_check",
        lambda *ins, **params: (),
        cpu=prim.looks or (lambda ins, outs, **params: None),
        multiple=True,
        check=prim.check,
        refuse=prim.refuse,
    )


def _call_shape(*avals: Any, program: Program) -> tuple:
    got, wanted = [(a.shape, a.dtype) for a in avals], [(v.shape, v.dtype) for v in program.inputs]
    if got != wanted:
        raise ProgramError(f"call: the program takes {wanted}, got {got}")
    return program.outputs


def _call_unused(used: tuple[bool, ...], params: dict) -> tuple[Primitive, dict]:
    program = params["program"]
    wanted = tuple([out for out, is_used in zip(program.outputs, used, strict=True) if is_used])
    return call_p, {"program": replace(program, outputs=wanted)}


def _not_by_itself(ins: list, outs: list, program: Program) -> None:
    raise ProgramError("call: a program that an equation holds is run by a runtime")


call_p = Primitive("call", _call_shape, cpu=_not_by_itself, multiple=True, unused=_call_unused)


def within(each: Callable[[Program], Program], program: Program) -> Program:
    """The program with ``each`` applied to the programs that its equations hold."""
    if not any(eq.programs for eq in program.equations):
        return program
    return replace(
        program,
        equations=tuple(
            replace(eq, params={k: each(v) if isinstance(v, Program) else v for k, v in eq.params.items()})
            for eq in program.equations
        ),
    )
