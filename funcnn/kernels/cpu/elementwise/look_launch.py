"""How numbers are looked at before they are used: plans that refuse the first bad one, and give the others on as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.elementwise.looking import look_at_weights
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, Array, Cost, Launch, LaunchPlan, Output, Status, Workers
from funcnn.kernels.refusal import refuse_where

LOOK_NS = 0.3  # nanoseconds for a number that is looked at
READ = "fdil"  # the dtypes that kernels look at
OTHERS = "half precision and narrow integers are looked at by NumPy: no kernel reads them"
SAME = (Output(0, shares=(0,)),)


def look(kernel: Any, operand: int, x: Operand, *params: Any) -> Launch:
    """The launch that refuses the first bad element of an operand."""
    return Launch(kernel, (Array(INPUT, operand), params, operand, Status(), Workers(LOOK_NS * x.size)))


def _plan(
    make: Callable, meaning: str, outputs: tuple[Output, ...], operands: tuple[Operand, ...], params: dict[str, Any]
) -> LaunchPlan | None:
    (x,) = operands
    if x.dtype.char not in READ:
        return None
    cost = Cost(nanoseconds=LOOK_NS * x.size)
    return LaunchPlan((make(x, params),), (CONTIGUOUS,), outputs, refusals=(meaning,), cost=cost)


def _ways(
    make: Callable, meaning: str, refuse: Callable
) -> tuple[tuple[Implementation, ...], tuple[Implementation, ...]]:
    def run(ins: list, outs: list, **params: Any) -> None:
        refuse(ins[0], **params)
        for out in outs:
            np.copyto(out, ins[0])

    rest = host("numpy", run, OTHERS)
    same, nothing = (Implementation("kernel", partial(_plan, make, meaning, outs)) for outs in (SAME, ()))
    return (same, rest), (nothing, rest)


def same_numbers(
    kernel: Any, meaning: str, bad: Callable, names: tuple[str, ...] = ()
) -> tuple[tuple[Implementation, ...], tuple[Implementation, ...]]:
    """The implementations of the identity on numbers of which none is bad, and of looking alone.

    kernel: made by ``looking.look``; its parameters are those of the primitive by these names. bad: the same of an array.
    """

    def make(x: Operand, params: dict[str, Any]) -> Launch:
        return look(kernel, 0, x, *[params[name] for name in names])

    return _ways(make, meaning, lambda x, **params: refuse_where(np.asarray(bad(x, **params)), 0, x, meaning))


def same_weights(meaning: str, good: Callable) -> tuple[tuple[Implementation, ...], tuple[Implementation, ...]]:
    """As ``same_numbers``, for rows of weights to draw by; the words of a row tell which, not what is in it."""

    def make(x: Operand, params: dict[str, Any]) -> Launch:
        return Launch(look_at_weights, (Array(INPUT, 0), prod(x.shape[:-1]), x.shape[-1], Status()))

    def refuse(x: np.ndarray) -> None:
        right = np.asarray(good(x))
        refuse_where(~right, 0, right, meaning)

    return _ways(make, meaning, refuse)
