"""Embedding: rows of a table by index, with PyTorch's options.

Two primitives, each the other's transpose: ``embedding`` picks rows, ``embedding_grad`` adds rows into a table of zeros. Both
pass over negative indices (zeros, nothing), which is how a gradient leaves out the row of ``padding_idx``.
"""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.context import ctx, running
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.mutation import assign
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.indexing.launch import ROWS, ROWS_GRAD
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.promote import operand, require_kernel_float
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul, reciprocal, true_divide
from funcnn.ops.elementwise.comparison import eq, gt, lt
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.index import index_put_p
from funcnn.ops.movement.views import movedim, reshape, stop_gradient, unsqueeze
from funcnn.ops.reduce.vector_norm import norm
from funcnn.ops.tensor.creation import arange, ones


# ---- picking rows -----------------------------------------------------------------------------------------------------
def _rows_shape(table: Any, index: Any, padding: int, scale: bool, least: int) -> tuple:
    if index.dtype.kind not in "iu":
        raise DTypeError(f"embedding: expected integer indices, got {index.dtype}; convert with .long()")
    require_kernel_float("embedding", table, "a weight of float32 or float64")
    return (Aval((*index.shape, table.shape[1]), table.dtype),)


def _outside(words: tuple, rows: int) -> IndexError:
    return IndexError(f"embedding: index {words[3]} is out of range for a weight of {rows} rows")


def _rows_vjp(g: Tensor, ins: list, out: Tensor, padding: int, scale: bool, least: int) -> tuple:
    table, index = ins
    rows = table._v.shape[0]

    def dtable() -> Tensor:
        dy, kept = g, index
        if scale:
            counts = embedding_grad_p(ones((*index._v.shape, 1), dtype=g._v.dtype, device=g.device), index, rows=rows)
            dy = mul(g, pick(reciprocal(counts), index))
        if padding >= 0:
            kept = where(eq(index, padding), -1, index)
        return embedding_grad_p(dy, kept, rows=rows)

    return dtable, None


def _beside(n: int, index: Tensor, rows: int) -> Tensor:
    """The indices (n, ...) of example b moved to rows ``b * rows`` and on; negative ones stay."""
    shift = reshape(mul(arange(n, device=index.device), rows), (n, *(1,) * (index.ndim - 1)))
    return where(lt(index, 0), index, add(index, shift))


def _rows_batch(n: int, ins: list, batched: list, padding: int, scale: bool, least: int) -> Tensor:
    table, index = ins
    if not batched[0] and not scale:
        return embedding_p(table, index, padding=padding, scale=scale, least=least)
    if not batched[1]:
        wide = movedim(table, 0, 1)
        v, _, d = wide._v.shape
        out = embedding_p(reshape(wide, (v, n * d)), index, padding=padding, scale=scale, least=least)
        return movedim(reshape(out, (*index._v.shape, n, d)), -2, 0)
    table, index = all_batched(n, ins, batched)
    _, v, d = table._v.shape
    moved = _beside(n, index, v)
    out = embedding_p(reshape(table, (n * v, d)), moved, padding=-1, scale=scale, least=least)
    return out if padding < 0 else where(unsqueeze(eq(index, padding), -1), stop_gradient(out), out)


embedding_p = Primitive(
    "embedding",
    _rows_shape,
    cpu=ROWS,
    vjp=_rows_vjp,
    batch=_rows_batch,
    refuse=lambda meaning, words, ins, **params: _outside(words, ins[0].shape[0]),
    flops=costs.none,
    bytes=costs.gathered,
)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` on rows, zeros where the index is -1."""
    return embedding_p(table, index, padding=-1, scale=False, least=-1)


# ---- adding rows ------------------------------------------------------------------------------------------------------
def _grad_batch(n: int, ins: list, batched: list, rows: int) -> Tensor:
    if not batched[1]:
        dy = movedim(ins[0], 0, -2)
        *lead, _, d = dy._v.shape
        out = embedding_grad_p(reshape(dy, (*lead, n * d)), ins[1], rows=rows)
        return movedim(reshape(out, (rows, n, d)), 1, 0)
    dy, index = all_batched(n, ins, batched)
    out = embedding_grad_p(dy, _beside(n, index, rows), rows=n * rows)
    return reshape(out, (n, rows, dy._v.shape[-1]))


embedding_grad_p = Primitive(
    "embedding_grad",
    shape=lambda dy, index, rows: (Aval((rows, dy.shape[-1]), dy.dtype),),
    cpu=ROWS_GRAD,
    vjp=lambda g, ins, out, rows: (lambda: pick(g, ins[1]), None),
    batch=_grad_batch,
    refuse=lambda meaning, words, ins, rows: _outside(words, rows),
    flops=costs.each(1),
)


def _int64(index: Tensor) -> Tensor:
    return cast(index, dtypes.int64) if index._v.dtype.kind in "iu" else index


# ---- public -----------------------------------------------------------------------------------------------------------
def padding_row(name: str, padding_idx: int | None, rows: int) -> int:
    """``padding_idx`` as 0..rows-1, or -1 for None. Raises ``IndexError``."""
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise IndexError(f"{name}: padding_idx {padding_idx} is out of range for {rows} rows")
    return int(padding_idx) % rows


def renormed(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """``weight`` with the rows that ``index`` names scaled down to a norm of at most ``max_norm``."""
    flat = cast(reshape(index, (-1,)), dtypes.int64)
    rows = pick(weight, flat)
    size = norm(rows, norm_type, 1, True)
    factor = where(gt(size, max_norm), true_divide(max_norm, add(size, 1e-7)), 1.0)
    return index_put_p(weight, mul(rows, factor), flat, accumulate=False)


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """Rows of ``weight`` (V, D) by the integers ``input`` (*), as (*, D). Raises ``IndexError`` for a row that is not there.

    padding_idx: its row gets no gradient. max_norm: longer rows that are looked up are first scaled down, in place.
    scale_grad_by_freq: gradients are divided by how often an index occurs.
    """
    index, table = operand("embedding", input), operand("embedding", weight)
    if len(table._v.shape) != 2:
        raise ShapeError(f"embedding: expected a weight of 2 dimensions (V, D), got shape {tuple(table.shape)}")
    if sparse:
        raise NotImplementedError("embedding: sparse gradients are not supported; use sparse=False")
    padding = -1 if padding_idx is None else padding_row("embedding", padding_idx, table._v.shape[0])
    if max_norm is not None:
        with running(ctx.top, False):
            assign(table, renormed(table, index, float(max_norm), float(norm_type)), "embedding with max_norm")
    return embedding_p(table, _int64(index), padding=padding, scale=bool(scale_grad_by_freq), least=0)
