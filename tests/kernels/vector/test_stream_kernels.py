"""Writing past the cache: every beginning and length, nothing beside it touched."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.machine import beyond_cache, last_cache
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.streaming import stream, stream_sum


@kernel
def streamed(y, x, start, n):
    """y[start : start + n] = x[:n]."""
    stream(pointer(y, start), pointer(x, 0), n)


@kernel
def added(y, x, start, n):
    """y[start : start + n] = x[:n] + x[n]."""
    stream_sum(pointer(y, start), pointer(x, 0), n, x[n])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("run", [streamed, added])
def test_a_run_is_copied_and_nothing_else(run, dtype):
    x = np.random.default_rng(0).standard_normal(201).astype(dtype)
    for start in (0, 1, 5, 15, 16):
        for n in (0, 1, 3, 15, 16, 17, 40, 200):
            y = np.zeros(300, dtype)
            run(y, x, start, n)
            np.testing.assert_array_equal(y[start : start + n], x[:n] + (x[n] if run is added else 0))
            assert not y[:start].any() and not y[start + n :].any()


def test_what_is_beyond_the_cache():
    assert not beyond_cache(last_cache()) and beyond_cache(last_cache() + 1)
