"""Power-average pooling: the p-norm of each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core.tensor import Tensor
from funcnn.ops.base.dims import numel, per_dim
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import mul, sign
from funcnn.ops.elementwise.math import pow as pow_
from funcnn.ops.elementwise.math import relu
from funcnn.ops.pool import pool as pools
from funcnn.ops.pool.pool import images_of, named, without_batch


def _lp_pool(n: int, doc: str) -> Callable:
    name, mean = f"lp_pool{n}d", getattr(pools, f"avg_pool{n}d")

    def pool(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        x, single = images_of(name, n, input)
        if norm_type == 0:
            raise ValueError(f"{name}: norm_type must not be 0")
        size = per_dim(name, "kernel_size", kernel_size, n)
        y = mean(pow_(x, norm_type), size, stride, 0, ceil_mode)
        total = mul(mul(sign(y), relu(abs_(y))), numel(size))
        return without_batch(pow_(total, 1.0 / norm_type), single)

    return named(pool, name, doc)


_DOC = (
    "``(sum of x**norm_type)**(1/norm_type)`` over each window of (N, C, *spatial); a window that ``ceil_mode`` lets run "
    "over the edge counts as a whole one. A negative sum gives NaN."
)
lp_pool1d, lp_pool2d, lp_pool3d = (_lp_pool(n, _DOC) for n in (1, 2, 3))
