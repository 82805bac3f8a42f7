"""Recording: what stands around every evaluation and kernel call while a profile runs, and the events it leaves.

Any number of profiles may run, nested or not; each gets every event that begins and ends inside it, of every thread. While none
runs nothing stands around anything. Only shapes are kept, no arrays; costs are worked out when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from funcnn.core import primitive
from funcnn.core.context import Scope, ctx
from funcnn.kernels.cpu import compile as kernels
from funcnn.kernels.cpu import threads as pool
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


class Raw:
    """An event as it happens: cheap to make, costs not yet known."""

    __slots__ = (
        "backward", "begin", "bytes", "cold", "end", "flops", "ins", "kernel", "kernels", "name", "outs", "params", "parent",
        "path", "thread", "threads", "view",
    )  # fmt: skip

    def __init__(self, name: str, kernel: Any, path: str, backward: bool, parent: Raw | None):
        self.name, self.kernel, self.path, self.backward, self.parent = name, kernel, path, backward, parent
        self.ins: list = []
        self.outs: list = []
        self.params: dict = {}
        self.kernels: list[Raw] = []
        self.bytes, self.flops, self.view, self.cold = 0.0, 0.0, False, False
        self.thread, self.threads = threading.get_native_id(), pool.get_num_threads()
        self.begin = self.end = 0

    def settle(self) -> None:
        """Work the costs of an operation out, and those of its kernels."""
        if not self.view:
            self.flops = costs.flops(self.name, self.ins, self.outs, self.params)
            self.bytes = costs.moved(self.name, self.ins, self.outs, self.params)
        if self.kernels:
            computing = [k for k in self.kernels if not k.name.startswith(costs.MOVERS)]
            max(computing or self.kernels, key=lambda k: k.end - k.begin).flops = self.flops

    def event(self, origin: int) -> Event:
        """The public form."""
        floats = [a.dtype for a in (*self.outs, *self.ins) if a.dtype.kind == "f"]
        return Event(
            "operation" if self.kernel is None else "kernel",
            self.name,
            (self.begin - origin) / 1e9,
            (self.end - self.begin) / 1e9,
            self.flops,
            self.bytes,
            self.path,
            self.backward,
            "" if self.parent is None else self.parent.name,
            tuple([a.shape for a in self.ins]),
            floats[0] if floats else np.dtype(np.float32),
            self.thread,
            self.threads,
            self.cold,
        )


class _Current(threading.local):
    """The operation that a thread is in."""

    operation: Raw | None = None


_current = _Current()
_lock = threading.Lock()
_sinks: list[list[Raw]] = []  # where the running profiles gather their events
_before: tuple[Callable | None, Callable | None] = (None, None)  # what stood around before the first of them


def add_sink(sink: list[Raw]) -> None:
    """Record into one more list; the first one puts the recorder around evaluations and kernel calls."""
    global _before, _sinks
    with _lock:
        if not _sinks:
            _before = (primitive.evaluate_around(_around_evaluate), kernels.call_around(_around_kernel))
            Scope.wanted.add("profile")
        _sinks = [*_sinks, sink]


def remove_sink(sink: list[Raw]) -> None:
    """Record into it no longer; after the last one everything is as it was."""
    global _sinks
    with _lock:
        _sinks = [other for other in _sinks if other is not sink]
        if not _sinks:
            primitive.evaluate_around(_before[0])
            kernels.call_around(_before[1])
            Scope.wanted.discard("profile")


def _around_evaluate(prim: Any, values: list, params: dict, where: Any) -> list:
    place = ctx if where is None else where
    outer = _current.operation
    raw = Raw(prim.name, None, place.path, place.backward, outer)
    sinks, inner = _sinks, _before[0]
    _current.operation = raw
    raw.begin = perf_counter_ns()
    try:
        if inner is None:
            outs = primitive.evaluate(prim, values, params, where, True)
        else:
            outs = inner(prim, values, params, where)
    finally:
        raw.end = perf_counter_ns()
        _current.operation = outer
    raw.ins, raw.outs, raw.params = [costs.seen(v) for v in values], [costs.seen(v) for v in outs], params
    raw.view = prim.view is not None
    if outer is not None:
        outer.cold |= raw.cold
    for sink in sinks:
        sink.append(raw)
    return outs


def _around_kernel(kernel: Any, args: tuple) -> Any:
    outer = _current.operation
    path, backward = (ctx.path, ctx.backward) if outer is None else (outer.path, outer.backward)
    raw = Raw(kernel.__name__, kernel, path, backward, outer)
    sinks, inner = _sinks, _before[1]
    known = len(getattr(kernel.compiled, "overloads", ()))
    raw.begin = perf_counter_ns()
    try:
        result = kernel.compiled(*args) if inner is None else inner(kernel, args)
    finally:
        raw.end = perf_counter_ns()
    raw.cold = len(getattr(kernel.compiled, "overloads", ())) != known
    raw.ins = [costs.seen(a) for a in args if isinstance(a, np.ndarray)]
    rule = costs.KERNELS.get(raw.name)
    raw.bytes, raw.flops = (costs.kernel_bytes(args), 0.0) if rule is None else rule(args)
    if outer is not None:
        outer.kernels.append(raw)
        outer.cold |= raw.cold
    for sink in sinks:
        sink.append(raw)
    return result
