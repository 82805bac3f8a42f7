"""``profile``: the context that records, and what can be made of its record."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from funcnn.core import primitive
from funcnn.core.context import Scope
from funcnn.kernels.cpu.build import compile as kernels
from funcnn.kernels.interrupts import Leaving, in_c
from funcnn.profiler import report, roofline, trace
from funcnn.profiler.record import Event, Record, around_evaluate, around_kernel, sinks, stop


class profile(Leaving):
    """``with profile() as prof:`` records every operation and kernel call of every thread inside it.

    A profile may stand inside another; both record. The same object cannot be entered twice. Events can be read while
    the context is open, and after it, also when an exception ended it.
    """

    def __init__(self) -> None:
        self._record = Record()
        self._events: list[Event] = []
        self._begin = 0
        self._ended: list[int] = []  # when; a list, which C code can fill

    def __enter__(self) -> profile:
        if self._begin:
            raise RuntimeError("profile: this profile was entered before; make another one with profile()")
        record = self._record
        note_end = partial(self._ended.extend, islice(iter(perf_counter_ns, None), 1))
        self.close = in_c(note_end, *stop(record))
        begin, noted = perf_counter_ns(), {record}
        self._begin = begin  # from here on no call, so that no interrupt comes before the recorder can be taken off
        sinks[record] = None
        Scope.wanted |= noted
        primitive.around[record] = around_evaluate
        kernels.around[record] = around_kernel
        return self

    @property
    def _end(self) -> int:
        return self._ended[0] if self._ended else 0

    @property
    def seconds(self) -> float:
        """Wall time of the context, so far if it is open."""
        return ((self._end or perf_counter_ns()) - self._begin) / 1e9 if self._begin else 0.0

    @property
    def events(self) -> list[Event]:
        """All events, in the order in which they began."""
        if len(self._events) != len(self._record.raw):
            self._events = self._record.events(self._begin)
        return list(self._events)

    def kernels(self) -> list[Any]:
        """The kernels that were called, for ``kernel.inspect()``."""
        return [subject for subject in self._record.subjects if not isinstance(subject, tuple)]

    def table(self, sort_by: str = "time", limit: int | None = None, by: str = "name", kind: str | None = None) -> str:
        """Operations and kernels as text, each line the sum of the events that are alike.

        sort_by: a column: "time", "mean", "calls", "flops", "bytes", "gflops", "gbs", "percent" (highest first), or "name".
        limit: at most so many lines each, 0 or more. by: "name", "path" (and name), or "shapes" (and name).
        kind: "operation" or "kernel"; default both. Raises ``ValueError``.
        """
        return report.table(self.events, self.seconds, sort_by, limit, by, kind)

    def export_chrome_trace(self, path: str | Path) -> None:
        """Write the events as Chrome trace JSON: open it at https://ui.perfetto.dev or chrome://tracing."""
        trace.write(self.events, Path(path))

    def plot(self, path: str | Path, limit: int = 12) -> None:
        """Draw the roofline picture: the measured limits, and the ``limit`` kernels that took longest, where they lie under them.

        Operations without a kernel of their own (NumPy's loops) are drawn, too. Raises ``ImportError`` without matplotlib.
        """
        roofline.draw(self.events, Path(path), limit)

    def __str__(self) -> str:
        return self.table(limit=20)

    def __repr__(self) -> str:
        state = "open" if self._begin and not self._end else f"{self.seconds * 1e3:.3f} ms"
        return f"<profile: {len(self._record.raw)} events, {state}>"
