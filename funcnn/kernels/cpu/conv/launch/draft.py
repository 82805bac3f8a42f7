"""A convolution's plan while it is made: each part of it is the argument of a launch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv.finite import give_way_unless_finite
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.implementation import CONTIGUOUS
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    Array,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Status,
    Workers,
)  # fmt: skip
from funcnn.kernels.plan_parts import Parts

FLOP_NS = 0.01  # a flop in a tile
FINITE_NS = 0.1  # nanoseconds an element that is looked at
FIRST, SECOND, RESULT = Array(INPUT, 0), Array(INPUT, 1), Array(OUTPUT, 0)


class Draft:
    """The launches of a plan for a problem, and their ``Parts``."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.launches: list[Launch] = []
        self.parts = Parts()
        self.otherwise: LaunchPlan | None = None

    def run(self, kernel: Any, *args: Any, once: bool = False) -> None:
        """Adds a launch after the others. once: it depends on weights alone."""
        self.launches.append(Launch(kernel, args, once=once))

    def room(self, size: int, dtype: str | None = None, each_worker: bool = False, zeros: bool = False) -> Array:
        """Returns scratch memory for so many elements, of the problem's dtype by itself."""
        return self.parts.room(dtype or self.problem.dtype.name, size, each_worker=each_worker, zeros=zeros)

    def constant(self, array: np.ndarray) -> Array:
        """Returns an array that the plan owns."""
        return self.parts.constant(array, None if array.ndim == 1 else array.shape)

    def bias(self, channels: int) -> Array:
        """Returns the third operand, or a zero for each channel."""
        return Array(INPUT, 2) if self.problem.bias else self.constant(np.zeros(channels, self.problem.dtype))

    def require_finite(self, array: Array, size: int, otherwise: Callable[[Problem], LaunchPlan | None]) -> None:
        """Where a number of ``size`` is infinite or NaN, the plan that ``otherwise`` makes writes all outputs."""
        self.run(give_way_unless_finite, array, Status(), Workers(FINITE_NS * size))
        self.otherwise = otherwise(self.problem)

    def plan(self) -> LaunchPlan:
        """Returns the plan of all launches so far."""
        p = self.problem
        return self.parts.plan(
            tuple(self.launches), (CONTIGUOUS,) * (2 + p.bias), (Output(),),
            otherwise=self.otherwise, cost=Cost(nanoseconds=FLOP_NS * p.flops),
        )  # fmt: skip
