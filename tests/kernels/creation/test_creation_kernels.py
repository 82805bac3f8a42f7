"""Memory filled with a number and counted up, against NumPy; one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu.creation.ranges import CHUNK_ELEMENTS, count_up, fill
from funcnn.ops.base.structure import full_p
from funcnn.ops.tensor.creation import iota_p
from tests.plain import sized

SIZES = pytest.mark.parametrize("size", [0, 1, 70, *sized([2 * CHUNK_ELEMENTS + 5], [])])


@SIZES
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_memory_is_filled(size, dtype):
    for threads in (1, 2):
        out = np.zeros(size + 1, dtype)
        fill(out[:size], np.dtype(dtype).type(201), threads)
        assert (out[:size] == 201).all() and out[size] == 0


@SIZES
@pytest.mark.parametrize(("dtype", "start", "step"), [("int64", -5, 3), ("float64", 0.1, -0.3)])
def test_elements_are_counted_up(size, dtype, start, step):
    kind = np.dtype(dtype).type
    for threads in (1, 2):
        out = np.full(size + 1, 7, dtype)
        count_up(out[:size], kind(start), kind(step), threads)
        np.testing.assert_array_equal(out[:size], start + step * np.arange(size, dtype=dtype))
        assert out[size] == 7


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", "int64", "float64"])
@pytest.mark.parametrize("size", [0, 3])
def test_primitives_give_by_kernels_what_numpy_gives(size, dtype):
    kind = np.dtype(dtype)
    with fn.prefer("kernel"):
        whole = full_p(shape=(size, 2), value=1.75, dtype=kind)
    np.testing.assert_array_equal(whole.numpy(), np.full((size, 2), 1.75, kind), strict=True)
    if dtype in ("int64", "float64"):
        start, step = (4, -3) if dtype == "int64" else (0.5, 0.1)
        with fn.prefer("kernel"):
            counted = iota_p(size=size, start=start, step=step, dtype=kind)
        np.testing.assert_array_equal(counted.numpy(), start + step * np.arange(size), strict=True)
