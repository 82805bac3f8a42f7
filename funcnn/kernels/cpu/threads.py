"""How many threads kernels use: a default that respects affinity and the container's quota, and what forking does to it.

Numba's threading layer makes its pool once, as large as the default; ``set_num_threads`` chooses how many of it work.
"""

from __future__ import annotations

import os
from functools import cache

_chosen = 0  # 0: the default
_alone = False  # in a child forked from a process whose OpenMP pool it did not inherit
WORTHWHILE = 50_000  # nanoseconds: a parallel call costs about 1 us when the workers spin, 20 when they sleep


@cache
def available() -> int:
    """CPUs that this process may use: its affinity, at most the control group's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota()))


def _quota(root: str = "/sys/fs/cgroup") -> int:
    """The whole CPUs that the control group grants, rounded up; a large number without one."""
    from pathlib import Path

    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(Path(root, name).read_text() for name in files).split()[:2]
            if quota not in ("max", "-1"):
                return max(1, -(-int(quota) // int(period)))
        except (OSError, ValueError):
            continue
    return 1 << 20


@cache
def start() -> str:
    """Start Numba's pool of threads, before kernels that need its symbols load: "tbb", "omp" or "workqueue"."""
    import numba
    from numba.np.ufunc.parallel import _launch_threads

    _launch_threads()
    layer = str(numba.threading_layer())
    if layer == "omp" and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_work_alone)
    return layer


def _work_alone() -> None:
    global _alone
    _alone = True


def get_num_threads() -> int:
    """The number of threads that kernels use."""
    return _chosen or available()


def set_num_threads(n: int) -> None:
    """Let kernels use ``n`` threads, in the whole process. Raises ``ValueError`` below 1; more than the CPUs is the CPUs."""
    global _chosen
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: expected a positive int, got {n!r}")
    _chosen = min(n, available())


def workers(work: float) -> int:
    """Threads for a kernel of about ``work`` nanoseconds on one: 1 where a parallel call would not pay."""
    return 1 if work < WORTHWHILE or _alone else get_num_threads()
