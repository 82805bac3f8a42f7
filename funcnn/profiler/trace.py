"""Chrome's trace format: a JSON object whose ``traceEvents`` are complete events, times in microseconds.

The format is Google's "Trace Event Format" (2016); Perfetto and chrome://tracing read it. Kernels nest under their
operations by time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from funcnn.profiler.limits import machine_limits
from funcnn.profiler.record import Event


def write(events: list[Event], path: Path) -> None:
    """Write the file."""
    pid = os.getpid()
    threads = dict.fromkeys(e.thread for e in events)
    named = [{"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "funcnn"}}]
    named += [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": f"thread {i}"}}
        for i, tid in enumerate(threads)
    ]
    content = {
        "traceEvents": [*named, *(_complete(e, pid) for e in events)],
        "displayTimeUnit": "ms",
        "otherData": {"machine limits": str(machine_limits())},
    }
    path.write_text(json.dumps(content))


def _complete(event: Event, pid: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": event.name,
        "cat": f"{event.kind},{event.direction}",
        "ts": event.start * 1e6,
        "dur": event.seconds * 1e6,
        "pid": pid,
        "tid": event.thread,
        "args": {
            "module": event.path,
            "direction": event.direction,
            "shapes": [list(shape) for shape in event.shapes],
            "dtype": str(event.dtype),
            "flops": event.flops,
            "bytes": event.bytes,
            "GFLOP/s": round(event.gflops, 3),
            "GB/s": round(event.gbs, 3),
            "limit": event.limit,
            "percent of limit": round(event.percent, 2),
            "compiled or loaded": event.cold,
        },
    }
