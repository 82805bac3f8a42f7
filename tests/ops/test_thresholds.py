"""Every primitive at the sizes around every threshold in the code: one less, itself, one more, and twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.kernels.cpu import broadcast, elementwise
from funcnn.kernels.cpu.threads import WORTHWHILE
from funcnn.ops import loops

THRESHOLDS = sorted({loops.FEW, loops.BLOCK, broadcast.CHUNK, int(WORTHWHILE / 1.2) + 1, loops.FEW // 2})
SIZES = sorted({n for t in THRESHOLDS for n in (t - 1, t, t + 1, 2 * t)})


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lone_number_stands_for_an_array_of_any_size(n: int, dtype: str) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    t, half = fn.tensor(x), np.array(0.5, dtype)
    np.testing.assert_array_equal(fn.where(t > 0, t, 0.0).numpy(), np.where(x > 0, x, 0))
    np.testing.assert_array_equal(fn.where(t > 0, fn.tensor(half), t).numpy(), np.where(x > 0, half, x))
    np.testing.assert_array_equal(t.masked_fill(t > 0, 7.0).numpy(), np.where(x > 0, 7, x).astype(dtype))
    for left, right in ((t, fn.tensor(half)), (fn.tensor(half), t)):
        np.testing.assert_allclose(fn.logaddexp(left, right).numpy(), np.logaddexp(x, half), 2e-6)


def test_a_kernel_refuses_an_array_of_another_length_or_dtype() -> None:
    def run(x: Any, y: Any) -> None:
        loops.looped(elementwise.add, 0.1)([x, y], [np.empty(20, np.float32)])

    with pytest.raises(ShapeError, match=r"float32\(19,\) for an output of float32\(20,\)"):
        run(np.zeros(20, np.float32), np.zeros(19, np.float32))
    with pytest.raises(DTypeError, match=r"float64\(20,\) for an output of float32\(20,\)"):
        run(np.zeros(20, np.float32), np.zeros(20))
    with pytest.raises(ShapeError, match=r"where: a condition of \(3,\) for an output of \(4,\)"):
        loops._select([np.ones(3, np.bool_), np.zeros(4), np.zeros(4)], [np.empty(4)])
