"""Copies of short rows touch exactly the numbers they are given; maxima are of these alone."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import add_row, clear_row, copy_row, largest_in_row


@kernel
def move(target, source, count):
    copy_row(pointer(target, 3), pointer(source, 1), count)


@kernel
def raised(target, source, count, number):
    add_row(pointer(target, 3), pointer(source, 1), count, number)


@kernel
def wipe(target, count):
    clear_row(pointer(target, 5), count)


@kernel
def highest(source, count, sign):
    return largest_in_row(pointer(source, 3), count, sign[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 64, 65, 129])
def test_largest_in_row(count, dtype):
    x = np.full(200, 9, dtype)
    row = x[3 : 3 + count]
    row[:] = np.random.default_rng(count + 1).standard_normal(row.size) - 10
    for sign in (1, -1):
        assert highest(x, count, np.array([sign], dtype)) == max(sign * row, default=-np.inf)
    one = np.ones(1, dtype)
    for place in {0, row.size // 2, row.size - 1} if row.size else ():
        kept = row[place]
        for special in (np.inf, np.nan, -np.nan):
            row[place] = special
            np.testing.assert_equal(highest(x, count, one), dtype(special))
        row[place] = kept
    row[:] = -np.inf
    assert highest(x, count, one) == -np.inf
    x[2], x[3 + row.size] = np.nan, np.nan  # next to the row
    assert highest(x, count, one) == -np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [-20, -1, 0, 1, 7, 8, 9, 15, 16, 17, 40, 64])
def test_rows(count, dtype):
    source, target = np.arange(90, dtype=dtype), np.full(90, -1, dtype)
    expected = target.copy()
    expected[3 : 3 + max(count, 0)] = source[1 : 1 + max(count, 0)]
    move(target, source, count)
    np.testing.assert_array_equal(target, expected)
    raised(target, source, count, dtype(0.5))
    expected[3 : 3 + max(count, 0)] += dtype(0.5)
    np.testing.assert_array_equal(target, expected)
    wipe(target, count)
    expected[5 : 5 + max(count, 0)] = 0
    np.testing.assert_array_equal(target, expected)
