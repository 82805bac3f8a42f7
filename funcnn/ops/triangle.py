"""Triangles and diagonals of matrices."""

from __future__ import annotations

from typing import Any

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.common import normalize_dim, to_tensor
from funcnn.ops.creation import tri
from funcnn.ops.elementwise import where
from funcnn.ops.movement import diagonal as diagonal_of
from funcnn.ops.movement import movedim, reshape, slice_place_p


def _masked(name: str, input: Any, lower: bool, diagonal: int) -> Tensor:
    x = to_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected a matrix or a batch of them, got shape {tuple(x.shape)}")
    rows, cols = x._v.shape[-2:]
    keep = tri(rows, cols, diagonal if lower else diagonal - 1)
    return where(keep, x, 0) if lower else where(keep, 0, x)


def tril(input: Any, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, up to the ``diagonal``-th; zero above."""
    return _masked("tril", input, True, diagonal)


def triu(input: Any, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, from the ``diagonal``-th on; zero below."""
    return _masked("triu", input, False, diagonal)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices, in dimensions ``dim1`` and ``dim2``, with the last dimension of ``input`` on a diagonal."""
    x = to_tensor(input)
    size = x._v.shape[-1]
    whole = size + abs(offset)
    lead = tuple(x._v.shape[:-1])
    first = offset if offset >= 0 else -offset * whole
    stop = min(first + (whole + 1) * size, whole * whole)
    rest = (0,) * len(lead), (1,) * len(lead)
    shape = (*lead, whole * whole)
    flat = slice_place_p(x, shape=shape, starts=(*rest[0], first), stops=(*lead, stop), steps=(*rest[1], whole + 1))
    out = reshape(flat, (*lead, whole, whole))
    dims = (normalize_dim("diag_embed", dim1, out.ndim), normalize_dim("diag_embed", dim2, out.ndim))
    return movedim(out, (-2, -1), dims)


def diag(input: Any, diagonal: int = 0) -> Tensor:
    """A vector on the diagonal of a matrix, or the diagonal of a matrix as a vector."""
    x = to_tensor(input)
    if x.ndim not in (1, 2):
        raise ShapeError(f"diag: expected a vector or a matrix, got shape {tuple(x.shape)}")
    return diag_embed(x, diagonal) if x.ndim == 1 else diagonal_of(x, diagonal)
