"""Launch plans: how one application of a primitive is computed, as data that can be printed, compared, hashed and sent.

A plan is made from shapes, dtypes and layouts alone (``implementation.py``). It holds no array of the user's, no address and
no thread count, so one plan serves every call of its kind: the runtime of a device brings the memory, writes the arguments
and makes the launches in order (``cpu/launching.py``). Sizes and offsets count elements, not bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

INPUT, OUTPUT, SCRATCH, CONSTANT = "input", "output", "scratch", "constant"
STATUS_WORDS = 4  # code, operand, position, value
GIVE_WAY = -1  # the status code of a kernel whose results are not valid: other launches then write all outputs


# ---- arguments of a launch: any other value is a fixed number, bool or tuple of them -----------------------------------
class Array(NamedTuple):
    """Names elements of a buffer, which a kernel gets as a contiguous array.

    shape: None for the whole buffer in one dimension. offset: where it begins. step: how much further it begins at each
    repetition of the launch. dtype: read the same bytes as this one of equal size.
    """

    buffer: str
    number: int
    shape: tuple[int, ...] | None = None
    offset: int = 0
    step: int = 0
    dtype: str | None = None


class Workers(NamedTuple):
    """Stands for the number of threads, which is decided at each call from the nanoseconds that one thread would take."""

    nanoseconds: float


class Status(NamedTuple):
    """Stands for the status words of the evaluation (int64, zeros at the start); ``LaunchPlan.refusals`` explains the codes."""


class Count(NamedTuple):
    """Stands for the count word of the evaluation (int64): how much a kernel wrote of the outputs that have a ``front``."""


class Table(NamedTuple):
    """Stands for the addresses and lengths (2, rows, columns) of a list of operands; ``rows`` holds (buffer, index) pairs."""

    rows: tuple[tuple[tuple[str, int], ...], ...]


class Launch(NamedTuple):
    """Calls one kernel with its arguments.

    times: how often it runs, where a batch is a loop over launches. once: it depends on nothing that changes between calls,
    so a runtime may keep what it makes.
    """

    kernel: Any
    args: tuple[Any, ...]
    times: int = 1
    once: bool = False


# ---- buffers ------------------------------------------------------------------------------------------------------------
class Access(NamedTuple):
    """Says which layout an input must have: contiguous once ``order`` permutes its axes and ``repeated`` axes are left out.

    Where it has another layout, a copying launch comes first. any: only the address of its first element is read. dtype: what
    kernels compute in, where that is not what the input is stored in: it is converted first.
    """

    order: tuple[int, ...] | None = None
    repeated: tuple[int, ...] = ()
    any: bool = False
    dtype: str | None = None


class Output(NamedTuple):
    """Says what a plan expects in an output's memory: "anything", "zeros", or the number of the input that it is a copy of.

    shares: the inputs whose memory it may be. front: the axis of which the shape is a bound: the count word says how much of
    it there is, and the runtime hands out that front. dtype: what kernels compute in, where that is not what the output is
    stored in: it is converted afterwards.
    """

    holds: str | int = "anything"
    shares: tuple[int, ...] = ()
    front: int | None = None
    dtype: str | None = None


class Scratch(NamedTuple):
    """Asks for memory that one evaluation needs. each_worker: so much for each worker. zeros: whether it starts as zeros."""

    dtype: str
    size: int
    each_worker: bool = False
    zeros: bool = False


class Constant:
    """Holds an array that a plan owns, such as a table of offsets: read-only, compared and hashed by its contents."""

    __slots__ = ("_hash", "array")

    def __init__(self, array: Any):
        self.array = np.array(array, order="C")
        self.array.flags.writeable = False
        self._hash = hash((self.array.dtype.str, self.array.shape, self.array.tobytes()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return NotImplemented
        one, two = self.array, other.array
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple:
        return Constant, (self.array,)

    def __repr__(self) -> str:
        return f"Constant({self.array.dtype}{list(self.array.shape)})"


class Cost(NamedTuple):
    """Counts floating-point operations, bytes that must move, and nanoseconds on one thread.

    An implementation says the last; the evaluator adds what the primitive declares (``core.cost``).
    """

    flops: float = 0.0
    bytes: float = 0.0
    nanoseconds: float = 0.0


NO_COST = Cost()


@dataclass(frozen=True)
class LaunchPlan:
    """Says how one application of a primitive runs. ``inputs`` and ``outputs`` say what is expected of each operand.

    refusals: what the status codes 1, 2, ... mean; the primitive makes an exception of them. otherwise: the plan that writes
    all outputs when a kernel gives way.
    """

    launches: tuple[Launch, ...]
    inputs: tuple[Access, ...] = ()
    outputs: tuple[Output, ...] = ()
    scratch: tuple[Scratch, ...] = ()
    constants: tuple[Constant, ...] = ()
    refusals: tuple[str, ...] = ()
    otherwise: LaunchPlan | None = None
    cost: Cost = NO_COST


@dataclass(frozen=True)
class HostPlan:
    """Holds a Python function ``run(ins, outs, **params)`` on arrays, and the reason why there is no kernel in its place."""

    run: Callable = field(repr=False)
    reason: str = ""
