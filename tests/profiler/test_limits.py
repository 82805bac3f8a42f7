"""The machine's limits: positive, cached, and read the right way."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.stream import last_cache
from funcnn.profiler.limits import MachineLimits

KNOWN = MachineLimits(4, 100.0, 400.0, 50.0, 200.0, 20.0, 40.0, 90.0, 300.0, 1 << 24)


def test_the_limits_of_this_machine():
    limits = fn.profiler.machine_limits()
    assert limits is fn.profiler.machine_limits()
    assert all(getattr(limits, f.name) > 0 for f in fields(limits))
    assert limits.float32_all >= limits.float32_one and limits.copy_all >= limits.copy_one
    assert limits.threads == threads.available()
    with pytest.raises(FrozenInstanceError):
        limits.threads = 3
    assert "multiply-add float32" in str(limits) and "GB/s" in str(limits)


def test_which_limit_holds():
    assert KNOWN.peak() == 400 and KNOWN.peak(np.float64) == 200 and KNOWN.peak(np.float16) == 400
    assert [KNOWN.peak(threads=n) for n in (1, 2, 4, 9)] == [100, 200, 400, 400]
    assert KNOWN.bandwidth() == 40 and KNOWN.bandwidth(1 << 20) == 300 and KNOWN.bandwidth(1 << 24, 1) == 20


def test_the_largest_cache_is_read(tmp_path):
    for i, size in enumerate(("32K", "1024K", "16M", "odd")):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size + "\n")
    assert last_cache(str(tmp_path)) == 16 << 20
    assert last_cache(str(tmp_path / "none")) == 8 << 20
