"""The machine's limits: positive, cached, and read the right way."""

from __future__ import annotations

import gc
from dataclasses import FrozenInstanceError, fields
from itertools import count, cycle

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu.machine import last_cache
from funcnn.kernels.cpu.threads import number as threads
from funcnn.profiler import limits
from funcnn.profiler.limits import MachineLimits

KNOWN = MachineLimits(4, 100.0, 400.0, 50.0, 200.0, 20.0, 40.0, 90.0, 300.0, 1 << 24)


def test_the_limits_of_this_machine():
    found = fn.profiler.machine_limits()
    assert found is fn.profiler.machine_limits()
    assert all(getattr(found, f.name) > 0 for f in fields(found) if f.name != "spread")
    assert found.threads == threads.available() and 0 <= found.spread < 1
    with pytest.raises(FrozenInstanceError):
        found.threads = 3
    assert "multiply-add float32" in str(found) and "GB/s" in str(found) and "rounds differ by" in str(found)


def test_rounds_that_differ_are_repeated_and_said():
    rates = iter([10.0, 5.0, 5.5, 9.5, 1.0])
    best, spread = limits.settled([lambda: next(rates), lambda: 3.0])
    assert best == [10.0, 3.0] and spread == pytest.approx(0.05)  # not before two of them agree
    falling = count()
    best, spread = limits.settled([lambda: 2.0 ** -next(falling)])
    assert best == [1.0] and spread == 0.5 and next(falling) == limits.MOST


def test_a_busy_machine_is_said_and_nothing_is_made_up(monkeypatch):
    """Two threads that got nothing done are reported so, not as fast as one."""
    figures = {1: cycle([100.0, 60.0, 40.0]), threads.available(): cycle([50.0, 30.0, 20.0])}
    monkeypatch.setattr(limits, "current_peak", lambda kind, n: next(figures[n]))
    monkeypatch.setattr(limits, "_bandwidth", lambda source, target, n: 7.0)
    monkeypatch.setattr(limits.pool, "available", lambda: max(figures))
    monkeypatch.setattr(limits, "MOST", 3)
    if len(figures) == 2:
        with pytest.warns(UserWarning, match="rounds of measuring differ by"):
            found = limits.machine_limits.__wrapped__()
        assert found.float32_all < found.float32_one and found.spread > limits.STEADY
        assert "the machine was busy" in str(found)


def test_measuring_leaves_no_memory_in_the_pool_and_none_in_the_peak(monkeypatch):
    monkeypatch.setattr(limits, "current_peak", lambda kind, n: 1.0)
    gc.collect()
    fn.empty_cache()
    fn.reset_peak_memory_stats()
    before = fn.memory_stats()
    limits.machine_limits.__wrapped__()
    assert fn.memory_stats() == before


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
