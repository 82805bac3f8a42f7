"""Which values lie in the memory of others: the view rules, applied to the layouts that a program knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from funcnn.compiler.ir import Equation, Program, Var
from funcnn.kernels.layouts import contiguous_steps


def in_order(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of new memory, in bytes: the last dimension runs fastest."""
    return tuple(itemsize * step for step in contiguous_steps(shape))


def _stand_in(var: Var, strides: tuple[int, ...]) -> np.ndarray:
    """An array with the type and the layout of a variable, only for looking at it: its memory is never touched."""
    spans = [(size - 1) * step for size, step in zip(var.shape, strides, strict=True)] if var.size else []
    start = -sum(span for span in spans if span < 0)
    memory = np.empty(start + sum(span for span in spans if span > 0) + var.dtype.itemsize, np.uint8)
    return np.ndarray(var.shape, var.dtype, memory, start, strides)


def _viewed(eq: Equation, strides: tuple[int, ...]) -> tuple[int | None, tuple[int, ...]]:
    """What an equation with a view rule shares (0: its input's memory) where that has this layout; its output's layout."""
    base, out = _stand_in(eq.ins[0], strides), eq.outs[0]
    made = eq.prim.view(base, **eq.params)  # type: ignore[misc]
    if made.size and not np.may_share_memory(made, base):
        return None, in_order(out.shape, out.dtype.itemsize)
    return 0, made.strides


def shared(program: Program) -> Program:
    """The program with ``Equation.shares`` as its layouts say. A view of an unknown layout counts as sharing."""
    layouts: dict[Var, tuple[int, ...] | None] = {var: program.strides.get(var) for var in program.inputs}
    layouts |= {constant.var: constant.array.strides for constant in program.constants}
    equations = tuple(_with_sharing(program.equations, layouts))
    return replace(program, equations=equations)


def _with_sharing(equations: Iterable[Equation], layouts: dict[Var, tuple[int, ...] | None]) -> Iterable[Equation]:
    for eq in equations:
        shares = None
        if eq.prim.view is None:
            layouts.update((out, in_order(out.shape, out.dtype.itemsize)) for out in eq.outs)
        else:
            strides = layouts[eq.ins[0]]
            shares, layouts[eq.outs[0]] = (0, None) if strides is None else _viewed(eq, strides)
        yield eq if eq.shares == shares else replace(eq, shares=shares)
