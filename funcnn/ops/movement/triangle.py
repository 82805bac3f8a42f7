"""Triangles, diagonals and traces of matrices."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.movement import host
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import zeros_like
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import clone, movedim
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import tri, zeros

# ---- diagonals --------------------------------------------------------------------------------------------------------


def _diagonal_shape(x: Any, offset: int) -> tuple:
    return (Aval((*x.shape[:-2], host.diagonal_length(x.shape[-2], x.shape[-1], offset)), x.dtype),)


def _diagonal_put_shape(base: Any, new: Any, offset: int) -> tuple:
    (wanted,) = _diagonal_shape(base, offset)
    if tuple(new.shape) != tuple(wanted.shape) or new.dtype != base.dtype:
        raise ShapeError(f"diagonal: a value {tuple(new.shape)} does not fit {tuple(wanted.shape)}")
    return (base,)


diagonal_put_p = Primitive(
    "diagonal_put",
    _diagonal_put_shape,
    cpu=host.DIAGONAL_PUT,
    vjp=lambda g, ins, o, offset: (
        lambda: diagonal_put_p(g, zeros_like(ins[1]), offset=offset),
        lambda: diagonal_p(g, offset=offset),
    ),
    batch=lambda n, ins, batched, offset: diagonal_put_p(*all_batched(n, ins, batched), offset=offset),
    keeps="",
    flops=costs.none,
)
diagonal_p = Primitive(
    "diagonal",
    _diagonal_shape,
    view=host.on_diagonal,
    unview=lambda base, new, offset: diagonal_put_p(base, new, offset=offset),
    vjp=lambda g, ins, o, offset: (diagonal_put_p(zeros_like(ins[0]), g, offset=offset),),
    batch=lambda n, ins, batched, offset: diagonal_p(ins[0], offset=offset),
    keeps="",
)


def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of the matrices in dimensions ``dim1`` and ``dim2``, as the last dimension: a view."""
    x = to_tensor(input)
    a, b = normalize_dim("diagonal", dim1, x.ndim), normalize_dim("diagonal", dim2, x.ndim)
    if a == b:
        raise ShapeError(f"diagonal: dim1 and dim2 must differ, got {dim1} and {dim2}")
    return diagonal_p(movedim(x, (a, b), (-2, -1)), offset=int(offset))


# ---- triangles and matrices -------------------------------------------------------------------------------------------


def _masked(name: str, input: Any, lower: bool, diagonal: int) -> Tensor:
    x = to_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected a matrix or a batch of them, got shape {tuple(x.shape)}")
    rows, cols = x._v.shape[-2:]
    keep = tri(rows, cols, diagonal if lower else diagonal - 1, x.device)
    return where(keep, x, False) if lower else where(keep, False, x)


def tril(input: Any, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, up to the ``diagonal``-th; zero above."""
    return _masked("tril", input, True, diagonal)


def triu(input: Any, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, from the ``diagonal``-th on; zero below."""
    return _masked("triu", input, False, diagonal)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices, in dimensions ``dim1`` and ``dim2``, with the last dimension of ``input`` on a diagonal."""
    x = to_tensor(input)
    side = x._v.shape[-1] + abs(offset)
    out = diagonal_put_p(
        zeros((*x._v.shape[:-1], side, side), dtype=x._v.dtype, device=x.device), x, offset=int(offset)
    )
    dims = (normalize_dim("diag_embed", dim1, out.ndim), normalize_dim("diag_embed", dim2, out.ndim))
    return movedim(out, (-2, -1), dims)


def diag(input: Any, diagonal: int = 0) -> Tensor:
    """A vector on the diagonal of a matrix, or a copy of the diagonal of a matrix."""
    x = to_tensor(input)
    if x.ndim not in (1, 2):
        raise ShapeError(f"diag: expected a vector or a matrix, got shape {tuple(x.shape)}")
    return diag_embed(x, diagonal) if x.ndim == 1 else clone(diagonal_p(x, offset=int(diagonal)))


def trace(input: Any) -> Tensor:
    """The sum of a matrix's diagonal. Raises ``ShapeError`` for other than two dimensions."""
    x = to_tensor(input)
    if x.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {tuple(x.shape)}; use diagonal(...).sum(-1) for batches")
    return sum_(diagonal(x))
