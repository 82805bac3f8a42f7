"""What batching rules share: batched inputs aligned, expanded, or merged into an axis that is batched already."""

from __future__ import annotations

from typing import Any

from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.base.structure import expand_p, permute_p, reshape_p


def aligned(ins: list[Tensor], batched: list[bool]) -> list[Tensor]:
    """Inserts axes behind the batch axis so that batched and unbatched inputs broadcast as their examples do."""
    rank = max(t.ndim - b for t, b in zip(ins, batched, strict=True))
    out = []
    for t, b in zip(ins, batched, strict=True):
        shape = t._v.shape
        pad = rank - (len(shape) - 1)
        out.append(reshape_p(t, shape=(shape[0], *(1,) * pad, *shape[1:])) if b and pad else t)
    return out


def batch_elementwise(prim: Primitive) -> Any:
    """Makes the batching rule of a primitive that broadcasts its inputs against each other."""

    def rule(n: int, ins: list, batched: list, **params: Any) -> Any:
        return prim(*(ins if len(ins) == 1 else aligned(ins, batched)), **params)

    return rule


def all_batched(n: int, ins: list[Tensor], batched: list[bool]) -> list[Tensor]:
    """Gives every input the batch axis, by expanding those that have none."""
    return [t if b else expand_p(t, shape=(n, *t._v.shape)) for t, b in zip(ins, batched, strict=True)]


def merge_batch(t: Tensor) -> Tensor:
    """Merges the batch axis 0 into axis 1: (B, N, ...) -> (B*N, ...), for rules of operations that are batched already."""
    b, n, *rest = t._v.shape
    return reshape_p(t, shape=(b * n, *rest))


def split_batch(t: Tensor, n: int) -> Tensor:
    """Undoes ``merge_batch`` for a batch of ``n``."""
    whole, *rest = t._v.shape
    return reshape_p(t, shape=(n, whole // n if n else 0, *rest))


def merge_channels(t: Tensor) -> Tensor:
    """Merges the batch axis into the channels, outermost: (B, N, C, ...) -> (N, B*C, ...)."""
    b, n, c, *rest = t._v.shape
    return reshape_p(permute_p(t, dims=(1, 0, *range(2, t.ndim))), shape=(n, b * c, *rest))


def split_channels(t: Tensor, b: int) -> Tensor:
    """Undoes ``merge_channels`` for a batch of ``b``."""
    n, c, *rest = t._v.shape
    return permute_p(reshape_p(t, shape=(n, b, c // b, *rest)), dims=(1, 0, *range(2, t.ndim + 1)))
