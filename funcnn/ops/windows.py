"""Sliding windows as copies: ``Tensor.unfold`` along one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor, constant
from funcnn.ops.common import normalize_dim, to_tensor
from funcnn.ops.index import index_p
from funcnn.ops.movement import movedim


def unfold(input: Any, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` along ``dimension``, ``step`` apart, each as a new last dimension."""
    x = to_tensor(input)
    dim = normalize_dim("unfold", dimension, x.ndim)
    if step <= 0 or size < 0 or size > x._v.shape[dim]:
        raise ShapeError(f"unfold: size {size} and step {step} do not fit dimension {dim} of size {x._v.shape[dim]}")
    starts = np.arange((x._v.shape[dim] - size) // step + 1)[:, None] * step
    out = index_p(movedim(x, dim, 0), constant(starts + np.arange(size)))
    return movedim(out, (0, 1), (dim, -1))
