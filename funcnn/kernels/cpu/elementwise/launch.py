"""Elementwise kernels as implementations of primitives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.elementwise import broadcast
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.kernels.cpu.threads.number import NANOSECONDS_FOR_THREADS
from funcnn.kernels.implementation import ANY, CONTIGUOUS, NUMPY, REAL, Implementation, Operand, host
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    SCRATCH,
    Access,
    Array,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Workers,
)  # fmt: skip

LEAST_RUN = 16  # elements at least that meet one number, or a whole vector, where shapes differ
ELEMENTS_FOR_SELECT, SELECT_NS = 1 << 13, 0.15  # elements from which a kernel chooses, nanoseconds an element
BLOCK_ELEMENTS = kernels.CHUNK_ELEMENTS  # one such block of equal elements stands for an array of them
RESULT = Array(OUTPUT, 0)


class Loop(NamedTuple):
    """An elementwise kernel: nanoseconds of an element on one thread, the NumPy kinds that it computes in, flops an element,
    and whether it gives bools, which lie in memory as bytes."""

    kernel: Any
    nanoseconds: float = 0.3
    kinds: str = "f"
    flops: float = 1.0
    bools: bool = False

    def computes(self, dtype: np.dtype) -> bool:
        """Whether the kernel takes elements of a dtype."""
        return dtype.kind in self.kinds and (dtype.kind != "f" or dtype.char in REAL)


def _bytes(dtype: np.dtype) -> str | None:
    return "uint8" if dtype.kind == "b" else None


class Arguments:
    """The arrays that an elementwise kernel reads, and what makes them: a lone number is first repeated over a block."""

    def __init__(self, operands: tuple[Operand, ...], size: int):
        self.size = size
        self.sharable: list[int] = []
        self.launches: list[Launch] = []
        self.scratch: list[Scratch] = []
        self.inputs: list[Access] = []
        self.arrays = [self._array(i, x) for i, x in enumerate(operands)]

    def _array(self, i: int, x: Operand) -> Array:
        several = tuple(axis for axis in range(x.ndim) if x.shape[axis] > 1)
        lone = x.repeated == several and self.size > 1
        if not lone:
            self.inputs.append(CONTIGUOUS)
            if x.contiguous:
                self.sharable.append(i)
            return Array(INPUT, i, dtype=_bytes(x.dtype))
        self.inputs.append(Access(repeated=several))
        self.scratch.append(Scratch(_bytes(x.dtype) or x.dtype.name, min(self.size, BLOCK_ELEMENTS)))
        block = Array(SCRATCH, len(self.scratch) - 1)
        self.launches.append(Launch(kernels.repeat_number, (Array(INPUT, i, dtype=_bytes(x.dtype)), block)))
        return block

    def plan(self, launch: Launch, cost: Cost) -> LaunchPlan:
        """Returns the plan that ends with a launch into the output, which may be an operand's own memory."""
        output = Output(shares=tuple(self.sharable))
        return LaunchPlan((*self.launches, launch), tuple(self.inputs), (output,), tuple(self.scratch), cost=cost)


def loop_plan(loop: Loop, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    """Returns the plan ``out = f(*operands, *params)`` by an elementwise kernel, of operands of one shape and of lone numbers.

    None for other shapes, and for dtypes that the kernel does not compute in.
    """
    like = max(operands, key=lambda x: x.ndim)
    if not loop.computes(like.dtype) or any(x.shape != like.shape and x.ndim for x in operands):
        return None
    size = like.size
    if not size:
        return LaunchPlan((), (ANY,) * len(operands), (Output(),))
    work = size * loop.nanoseconds
    out = Array(OUTPUT, 0, dtype="uint8") if loop.bools or like.dtype.kind == "b" else RESULT
    cost = Cost(nanoseconds=work)
    if len(operands) == 1:  # its kernel reads as many elements as it writes
        x = Array(INPUT, 0, dtype=_bytes(like.dtype))
        launch = Launch(loop.kernel, (x, out, tuple(params.values()), Workers(work)))
        shares = () if loop.bools else (0,)
        return LaunchPlan((launch,), (CONTIGUOUS,), (Output(shares=shares),), cost=cost)
    arguments = Arguments(operands, size)
    if loop.bools:
        arguments.sharable.clear()
    launch = Launch(loop.kernel, (*arguments.arrays, out, tuple(params.values()), Workers(work)))
    return arguments.plan(launch, cost)


def in_single(plan: Callable) -> Callable:
    """Returns the plan of half-precision operands: they are stored in 16 bits and computed in float32."""

    def planned(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
        if operands[0].dtype != np.float16:
            return plan(operands, params)
        wide = np.dtype(np.float32)
        made = plan(tuple(Operand(x.shape, wide, tuple(2 * step for step in x.strides)) for x in operands), params)
        if made is None:
            return None
        inputs = tuple(access if access.any else access._replace(dtype="float32") for access in made.inputs)
        outputs = tuple(output._replace(shares=(), dtype="float32") for output in made.outputs)
        return replace(made, inputs=inputs, outputs=outputs)

    return planned


def looped(loop: Loop) -> tuple[Implementation, ...]:
    """Returns the implementation by an elementwise kernel alone."""
    return (Implementation("kernel", in_single(partial(loop_plan, loop))),)


def with_kernel(loop: Loop, plain: Callable, least: float | None = None) -> tuple[Implementation, ...]:
    """Implementations: the kernel for large inputs (by default where a second thread helps), NumPy for the others."""
    few = NANOSECONDS_FOR_THREADS / loop.nanoseconds if least is None else least
    return Implementation("kernel", partial(loop_plan, loop), partial(_many, few)), host("numpy", plain, NUMPY)


def _many(least: float, operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    """Whether a kernel pays: with at least so many elements, none of which must first be copied beside another's."""
    laid = len(operands) == 1 or all(x.contiguous or not any(x.strides) for x in operands)
    return laid and max(x.size for x in operands) >= least


# ---- arrays of different shapes ---------------------------------------------------------------------------------------
@lru_cache(4096)
def along(shape: tuple[int, ...], vector: tuple[int, ...]) -> int:
    """Returns how many elements of an array meet each of a vector that lies along some neighbouring axes of it; 0: not so."""
    spread = (1,) * (len(shape) - len(vector)) + vector
    axes = [axis for axis, size in enumerate(spread) if size > 1]
    if not axes or len(vector) > len(shape) or spread[axes[0] : axes[-1] + 1] != shape[axes[0] : axes[-1] + 1]:
        return 0
    inner = prod(shape[axes[-1] + 1 :])
    return inner if max(inner, prod(vector)) >= LEAST_RUN and (inner == 1 or inner >= LEAST_RUN) else 0


def _strip_plan(
    loop: Loop, strip: Any, commutes: bool, operands: tuple[Operand, ...], params: dict[str, Any]
) -> LaunchPlan | None:
    """Returns the plan for a contiguous array and a vector along its axes, or, where the function commutes, the two exchanged."""
    first, second = (1, 0) if commutes and along(operands[1].shape, operands[0].shape) else (0, 1)
    x, y = operands[first], operands[second]
    inner = along(x.shape, y.shape)
    if not inner or not x.contiguous or x.dtype.char not in REAL:
        return None
    work = x.size * loop.nanoseconds
    launch = Launch(strip, (Array(INPUT, first), Array(INPUT, second), RESULT, inner, Workers(work)))
    cost = Cost(nanoseconds=work)
    return LaunchPlan((launch,), (CONTIGUOUS, CONTIGUOUS), (Output(shares=(first,)),), cost=cost)


def pairwise(loop: Loop, plain: Callable, least: float | None = None) -> tuple[Implementation, ...]:
    """Returns what ``with_kernel`` does, for a function of two inputs: for some there is one for an array and a vector along its axes, too."""
    ways, strip = with_kernel(loop, plain, least), getattr(broadcast, loop.kernel.__name__ + "_strip", None)
    if strip is None:
        return ways
    by_strips = partial(_strip_plan, loop, strip, loop.kernel.__name__ in ("add", "mul"))
    return ways[0], Implementation("strips", by_strips, ways[0].pays), ways[1]


def _select_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    mask, *rest = operands
    if any(x.ndim and x.shape != mask.shape for x in rest) or rest[0].dtype.char not in REAL or not mask.size:
        return None
    if mask.repeated:
        return None
    arguments = Arguments(operands, mask.size)
    work = mask.size * SELECT_NS
    condition = Array(INPUT, 0, dtype="uint8")
    launch = Launch(broadcast.select, (condition, *arguments.arrays[1:], RESULT, Workers(work)))
    return arguments.plan(launch, Cost(nanoseconds=work))


selects = Implementation(
    "kernel", _select_plan, partial(_many, ELEMENTS_FOR_SELECT)
)  # of ``where``, for a mask of the output's shape
