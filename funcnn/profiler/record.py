"""Recording: what stands around every evaluation and kernel call while a profile runs, and the events it leaves.

Any number of profiles may run, nested or not; each gets every event that begins and ends inside it, of every thread. While none
runs nothing stands around anything. Only shapes are kept, no arrays; costs are worked out when they are asked for.

While it runs an event is a plain tuple of numbers, texts and shapes, which Python's garbage collector leaves alone after a
first look; what it would walk at each of its rounds (primitives, parameters, kernels) is kept once, under a number. So the
millionth event costs what the first did.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from funcnn.core import primitive
from funcnn.core.context import Scope, ctx
from funcnn.kernels.cpu.build import compile as kernels
from funcnn.kernels.cpu.threads import number as pool
from funcnn.profiler import costs
from funcnn.profiler.limits import machine_limits


@dataclass(frozen=True)
class Event:
    """One operation or one kernel call."""

    kind: str  # "operation" or "kernel"
    name: str
    start: float  # seconds since the profile began
    seconds: float  # wall time; an operation's includes its kernels'
    flops: float  # see ``costs``; of a kernel those of its operation, if it is the longest of its kernels that compute
    bytes: float  # read and written; of a kernel all its array arguments, scratch included
    path: str  # of the module: "features.conv1"; of a backward operation, the module that it is the gradient of
    backward: bool
    parent: str  # the operation around this one, or ""
    shapes: tuple[tuple[int, ...], ...]  # of the inputs, or of a kernel's arrays
    dtype: np.dtype
    thread: int
    threads: int  # that kernels were allowed to use
    cold: bool  # a kernel was compiled or loaded in it
    kernels: int  # how many kernels an operation called

    @property
    def direction(self) -> str:
        """ "forward" or "backward"."""
        return "backward" if self.backward else "forward"

    @property
    def gflops(self) -> float:
        """GFLOP/s."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbs(self) -> float:
        """GB/s."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The seconds that the machine's limits allow at best: for the flops, and for the bytes."""
        limits = machine_limits()
        peak, bandwidth = limits.peak(self.dtype, self.threads), limits.bandwidth(self.bytes, self.threads)
        return self.flops / peak / 1e9, self.bytes / bandwidth / 1e9

    @property
    def limit(self) -> str:
        """Which limit of the roofline binds: "compute" or "memory"; "" for an operation that does neither."""
        compute, memory = self.bounds
        return "compute" if compute > memory else "memory" if memory else ""

    @property
    def percent(self) -> float:
        """How much of the binding limit was reached, in percent."""
        return 100 * max(self.bounds) / self.seconds if self.seconds else 0.0


class Raw(NamedTuple):
    """The places of a recorded event; the recorder makes plain tuples, since subclasses are never left alone."""

    subject: int  # of the record's ``subjects``
    number: int  # of the operation; 0: a kernel
    parent: int  # the number of the operation around it, or 0
    name: str
    around: str  # the parent's name
    begin: int
    end: int
    path: str
    backward: bool
    ins: tuple  # shape, dtype, bytes of the first, of the second, ...
    outs: tuple
    thread: int
    threads: int
    cold: bool
    bytes: float  # of a kernel


class Record:
    """The events of one profile, and what they are events of."""

    def __init__(self) -> None:
        self.raw: list[tuple] = []
        self.subjects: list[Any] = []  # (primitive, parameters), or a kernel
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, subject: Any) -> int:
        """The subject's number, the one it has if the key was met before."""
        try:
            found = self._numbers.setdefault(key, len(self.subjects))
        except TypeError:  # parameters that cannot be hashed
            found = len(self.subjects)
        if found == len(self.subjects):
            self.subjects.append(subject)
        return found

    def events(self, origin: int) -> list[Event]:
        """The public form, in the order in which they began; seconds count from ``origin`` (nanoseconds)."""
        raw = [Raw(*item) for item in list(self.raw)]
        kernels: dict[int, list[Raw]] = {}
        cold: set[int] = set()
        for item in raw:  # what is inside ends first, and stands first
            if not item.number:
                kernels.setdefault(item.parent, []).append(item)
            if item.cold or item.number in cold:
                cold.add(item.parent)
        costly = {item.number: self._costs(item) for item in raw if item.number}
        longest = {number: _longest(called) for number, called in kernels.items() if number in costly}
        made = []
        for item in sorted(raw, key=lambda item: item.begin):
            flops, moved = costly[item.number] if item.number else (0.0, item.bytes)
            if not item.number and longest.get(item.parent) is item:
                flops = costly[item.parent][0]
            called = len(kernels.get(item.number, ())) if item.number else 0
            made.append(
                _event(item, origin, flops, moved, item.cold or (item.number in cold and item.number > 0), called)
            )
        return made

    def _costs(self, item: Raw) -> tuple[float, float]:
        prim, params = self.subjects[item.subject]
        return costs.of(prim, costs.arrays(item.ins), costs.arrays(item.outs), params)


def _longest(called: list[Raw]) -> Raw:
    """The kernel that an operation's flops are charged to: the longest that computes."""
    computing = [k for k in called if not k.name.startswith(costs.MOVERS)]
    return max(computing or called, key=lambda k: k.end - k.begin)


def _event(item: Raw, origin: int, flops: float, moved: float, cold: bool, called: int) -> Event:
    dtypes = [*item.outs[1::3], *item.ins[1::3]]
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    return Event(
        "operation" if item.number else "kernel",
        item.name,
        (item.begin - origin) / 1e9,
        (item.end - item.begin) / 1e9,
        flops,
        moved,
        item.path,
        item.backward,
        item.around,
        item.ins[::3],
        (floats or dtypes or [np.dtype(np.float32)])[0],
        item.thread,
        item.threads,
        cold,
        called,
    )


class _Current(threading.local):
    """The operation that a thread is in: its number (0: none), name, path and direction."""

    operation: tuple[int, str, str, bool] | None = None


_current = _Current()
_count = count(1)
sinks: dict[Record, None] = {}  # where the running profiles gather their events


def stop(sink: Record) -> list[partial]:
    """What ends the recording into a sink, in calls of C functions; ``profile`` says how it begins."""
    return [
        partial(sinks.pop, sink, None), partial(Scope.wanted.discard, sink),
        partial(primitive.around.pop, sink, None), partial(kernels.around.pop, sink, None),
    ]  # fmt: skip


def around_evaluate(prim: Any, values: list, params: dict, where: Any) -> list:
    """Evaluate, and note it."""
    place = ctx if where is None else where
    path, backward = place.path, place.backward
    outer = _current.operation
    number, gathering, begin = next(_count), [*sinks], perf_counter_ns()
    _current.operation = (number, prim.name, path, backward)  # nothing between it and try: no interrupt leaves it there
    try:
        outs = primitive.evaluate(prim, values, params, where, True)
    finally:
        _current.operation = outer
    end = perf_counter_ns()
    parent, around = (0, "") if outer is None else outer[:2]
    rest = (
        number, parent, prim.name, around, begin, end, path, backward, costs.facts(values), costs.facts(outs),
        threading.get_native_id(), pool.get_num_threads(), False, 0.0,
    )  # fmt: skip
    key = (prim, tuple(params.items()))
    for sink in gathering:
        sink.raw.append((sink.number(key, (prim, params)), *rest))
    return outs


def around_kernel(kernel: Any, args: tuple) -> Any:
    """Call a kernel, or what else stands around it, and note it."""
    outer = _current.operation
    parent, around, path, backward = (0, "", ctx.path, ctx.backward) if outer is None else outer
    gathering, inner = [*sinks], None
    for other in [*kernels.around.values()]:
        if other is not around_kernel:
            inner = other
    known = len(getattr(kernel.compiled, "overloads", ()))
    begin = perf_counter_ns()
    result = kernel.compiled(*args) if inner is None else inner(kernel, args)
    end = perf_counter_ns()
    cold = len(getattr(kernel.compiled, "overloads", ())) != known
    moved = costs.of_kernel(kernel, args)
    rest = (
        0, parent, kernel.__name__, around, begin, end, path, backward,
        costs.facts([a for a in args if isinstance(a, np.ndarray)]), (), threading.get_native_id(), pool.get_num_threads(), cold,
        moved,
    )  # fmt: skip
    for sink in gathering:
        sink.raw.append((sink.number(kernel, kernel), *rest))
    return result
