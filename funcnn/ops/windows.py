"""Sliding windows as copies: ``Tensor.unfold`` along one dimension, and im2col over images."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor, constant
from funcnn.ops.common import normalize_dim, to_tensor
from funcnn.ops.index import index_p
from funcnn.ops.movement import movedim, permute, reshape
from funcnn.ops.pad import pad


def _windows(x: Tensor, dim: int, size: int, step: int, dilation: int) -> Tensor:
    """Windows along ``dim``, each as a new last dimension."""
    reach = dilation * (size - 1) + 1
    count = (x._v.shape[dim] - reach) // step + 1
    places = np.arange(count)[:, None] * step + np.arange(size) * dilation
    out = index_p(movedim(x, dim, 0), constant(places))
    return movedim(out, (0, 1), (dim, -1))


def unfold(input: Any, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` along ``dimension``, ``step`` apart, each as a new last dimension."""
    x = to_tensor(input)
    dim = normalize_dim("unfold", dimension, x.ndim)
    if step <= 0 or size < 0 or size > x._v.shape[dim]:
        raise ShapeError(f"unfold: size {size} and step {step} do not fit dimension {dim} of size {x._v.shape[dim]}")
    return _windows(x, dim, size, step, 1)


def im2col(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """(N, C, H, W) to (N, C * kh * kw, L): each of the L windows as a column (``torch.nn.functional.unfold``)."""
    x = to_tensor(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"unfold: expected (N, C, H, W) or (C, H, W), got shape {tuple(x.shape)}")
    single = x.ndim == 3
    x = reshape(x, (1, *x._v.shape)) if single else x
    k, d, p, s = ((v, v) if isinstance(v, int) else tuple(v) for v in (kernel_size, dilation, padding, stride))
    x = pad(x, (p[1], p[1], p[0], p[0]))
    n, c, *space = x._v.shape
    if any(d[i] * (k[i] - 1) + 1 > space[i] for i in (0, 1)):
        raise ShapeError(f"unfold: kernel {k} with dilation {d} is larger than the padded input {tuple(space)}")
    rows = _windows(x, 2, k[0], s[0], d[0])
    both = _windows(rows, 3, k[1], s[1], d[1])  # (N, C, H', W', kh, kw)
    columns = permute(both, (0, 1, 4, 5, 2, 3))
    out = reshape(columns, (n, c * k[0] * k[1], both._v.shape[2] * both._v.shape[3]))
    return reshape(out, out._v.shape[1:]) if single else out
