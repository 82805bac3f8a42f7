"""Max unpooling: each value goes back to where max pooling found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.pool.launch import unpools
from funcnn.kernels.cpu.pool.launch_max import index_dtype
from funcnn.ops.base import costs
from funcnn.ops.base.dims import numel, per_dim
from funcnn.ops.base.promote import operand
from funcnn.ops.base.structure import cast
from funcnn.ops.pool.pool import folded, images_of, named, pool_gather_p, without_batch


def _refusal(meaning: str, words: tuple, ins: list, size: tuple) -> IndexError:
    return IndexError(
        f"max_unpool{len(size)}d: index {words[3]} is outside the {numel(size)} pixels of an output of {size}; "
        "give the output_size that was pooled"
    )


def _vjp(g: Tensor, ins: list, o: Tensor, size: tuple) -> tuple:
    return lambda: pool_gather_p(g, cast(ins[1], index_dtype(size))), None


max_unpool_p = Primitive(
    "max_unpool",
    shape=lambda x, index, size: (Aval((*x.shape[:2], *size), x.dtype),),
    cpu=unpools,
    vjp=_vjp,
    batch=lambda n, ins, batched, size: folded(max_unpool_p, n, ins, batched, size=size),
    refuse=_refusal,
    flops=costs.none,
)


def _indices(name: str, indices: Any, x: Tensor, single: bool) -> Tensor:
    index = operand(name, indices)
    if index._v.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected indices of dtype int64, got {index.dtype}; convert with .long()")
    shape = x._v.shape[single:]
    if index._v.shape != shape:
        raise ShapeError(f"{name}: expected indices of shape {shape}, got {tuple(index.shape)}")
    return cast(index.reshape(x._v.shape) if single else index, dtypes.int64)


def _space(name: str, output_size: Any, default: tuple, step: tuple) -> tuple[int, ...]:
    """The wanted sizes (batch and channels may come before them), each less than a stride from the default."""
    n = len(step)
    wanted = tuple(int(s) for s in output_size)
    if len(wanted) not in (n, n + 2) or any(
        abs(s - d) >= t for s, d, t in zip(wanted[-n:], default, step, strict=True)
    ):
        raise ShapeError(f"{name}: output_size {wanted} must be within the stride {step} of {default}")
    return wanted[-n:]


def _max_unpool(n: int, doc: str) -> Callable:
    name = f"max_unpool{n}d"

    def pool(
        input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
    ) -> Tensor:
        x, single = images_of(name, n, input)
        size = per_dim(name, "kernel_size", kernel_size, n)
        step = size if stride is None or stride == () else per_dim(name, "stride", stride, n)
        border = per_dim(name, "padding", padding, n, least=0)
        index = _indices(name, indices, x, single)
        sizes = zip(x._v.shape[2:], step, border, size, strict=True)
        space = tuple((s - 1) * t - 2 * p + k for s, t, p, k in sizes)
        if output_size is not None:
            space = _space(name, output_size, space, step)
        if any(s <= 0 for s in space):
            raise ShapeError(f"{name}: the output of an input of shape {tuple(x.shape)} would be {space}")
        return without_batch(max_unpool_p(x, index, size=space), single)

    return named(pool, name, doc)


_DOC = (
    "Each value where ``max_poolNd(..., return_indices=True)`` found it, zeros elsewhere; the last of several with one "
    "index. Raises ``IndexError`` for an index outside."
)
max_unpool1d, max_unpool2d, max_unpool3d = (_max_unpool(n, _DOC) for n in (1, 2, 3))
