"""How many threads kernels use: a default that respects affinity and the container's quota.

The pool (``pool.py``) is made once, as large as the default; ``set_num_threads`` chooses how many of it work.
"""

from __future__ import annotations

import os
from functools import cache

from funcnn.kernels.cpu.threads.pool import MOST_WORKERS, pool

_chosen = 0  # 0: the default
NANOSECONDS_FOR_THREADS = 50_000  # a parallel call costs about 1 us when the workers spin, 20 when they sleep


@cache
def available() -> int:
    """Counts the CPUs that this process may use: its affinity, at most the control group's quota and what the pool holds, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota(), MOST_WORKERS + 1))


def _quota(root: str = "/sys/fs/cgroup") -> int:
    """Returns the CPUs that the control group grants, rounded up; a large number where there is no control group."""
    from pathlib import Path

    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(Path(root, name).read_text() for name in files).split()[:2]
            if quota not in ("max", "-1"):
                return max(1, -(-int(quota) // int(period)))
        except (OSError, ValueError):
            continue
    return 1 << 20


def get_num_threads() -> int:
    """Returns the number of threads that kernels use."""
    return _chosen or available()


def set_num_threads(n: int) -> None:
    """Lets kernels use ``n`` threads, in the whole process. Raises ``ValueError`` below 1; more than the CPUs is the CPUs."""
    global _chosen
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: expected a positive int, got {n!r}")
    _chosen = min(n, available())


def start() -> None:
    """Makes the pool before kernels that need its symbol load; again in a forked child, which has none of its threads."""
    pool.link()
    pool.start(available() - 1)


def workers(work: float) -> int:
    """Returns the threads for a kernel of about ``work`` nanoseconds on one: 1 where a parallel call would not pay."""
    if work < NANOSECONDS_FOR_THREADS:
        return 1
    if pool.forked:
        start()
    return get_num_threads()
