"""The profiler: which operations and kernels a piece of code runs, their time, and how far that is from the machine's limits.

with fn.profiler.profile() as prof:
    train_step(x, target)
print(prof.table(sort_by="time", limit=20))
prof.export_chrome_trace("trace.json")
prof.plot("roofline.png")
"""

from __future__ import annotations

from funcnn.profiler.limits import MachineLimits, machine_limits
from funcnn.profiler.profile import profile
from funcnn.profiler.record import Event

__all__ = ["Event", "MachineLimits", "machine_limits", "profile"]
