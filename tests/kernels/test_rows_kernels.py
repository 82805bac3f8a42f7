"""Copies of short rows touch exactly the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.compile import kernel
from funcnn.kernels.cpu.rows import add_row, clear_row, copy_row
from funcnn.kernels.cpu.vector import pointer


@kernel
def move(target, source, count):
    copy_row(pointer(target, 3), pointer(source, 1), count)


@kernel
def raised(target, source, count, number):
    add_row(pointer(target, 3), pointer(source, 1), count, number)


@kernel
def wipe(target, count):
    clear_row(pointer(target, 5), count)


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
