"""What the machine can do at most, measured with NumPy: flops a second in a matrix product, bytes a second in a copy."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np


def machine_limits(dtype: str) -> dict[str, float]:
    """``{"flops": ..., "bytes": ...}`` a second."""
    a = np.ones((2048, 2048), dtype)
    big, other = np.ones(1 << 26, np.uint8), np.empty(1 << 26, np.uint8)

    def best(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
        return min(times)

    return {"flops": 2 * 2048**3 / best(lambda: a @ a), "bytes": 2 * big.size / best(lambda: np.copyto(other, big))}
