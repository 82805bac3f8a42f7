"""How binary cross-entropy is launched: its loop after a look at the probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from funcnn.kernels.cpu.elementwise.launch import Loop, loop_plan
from funcnn.kernels.cpu.elementwise.look_launch import OTHERS, look
from funcnn.kernels.cpu.elementwise.looking import look_at_probabilities
from funcnn.kernels.cpu.softmax.binary import LEAST_LOGARITHM, binary_cross_entropy
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand, host
from funcnn.kernels.launch import LaunchPlan
from funcnn.kernels.refusal import refuse_where

NO_PROBABILITY = "no probability"
_LOOP = Loop(binary_cross_entropy, 2.0, "f", 60)


def _plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    made = loop_plan(_LOOP, operands, params)
    if made is None or not made.launches:
        return made
    first = look(look_at_probabilities, 0, operands[0])
    return replace(made, launches=(first, *made.launches), refusals=(NO_PROBABILITY,))


def _look(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    p = operands[0]
    if p.dtype == np.float16:
        return None
    launches = (look(look_at_probabilities, 0, p),) if p.size else ()
    return LaunchPlan(launches, (CONTIGUOUS, ANY), refusals=(NO_PROBABILITY,))


def _refuse(p: np.ndarray) -> None:
    refuse_where((p < 0) | (p > 1), 0, p, NO_PROBABILITY)


def _half(ins: list, outs: list) -> None:
    p, t = ins
    _refuse(p)
    np.multiply(t - 1, np.maximum(np.log1p(-p), LEAST_LOGARITHM), out=outs[0])
    outs[0] -= t * np.maximum(np.log(p), LEAST_LOGARITHM)


def _half_look(ins: list, outs: list) -> None:
    _refuse(ins[0])


binary_cross_entropy_ways = Implementation("kernel", _plan), host("half", _half, OTHERS)
binary_cross_entropy_looks = Implementation("kernel", _look), host("half", _half_look, OTHERS)
