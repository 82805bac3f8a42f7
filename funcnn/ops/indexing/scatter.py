"""Writing at computed places: scatter, index_add and their kin; each gives a copy (methods add the in-place forms)."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.indexing import mask_launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import broadcast, normalize_dim, numel
from funcnn.ops.base.promote import stored, to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import mul, sub
from funcnn.ops.elementwise.bounds import clamp
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.along import gather_p, one_dim, scatter_p
from funcnn.ops.indexing.index import index_put_p
from funcnn.ops.indexing.index import masked_fill as masked_fill
from funcnn.ops.movement.views import expand, movedim, reshape
from funcnn.ops.reduce.scan import cumsum
from funcnn.ops.tensor.creation import zeros, zeros_like


def _along(input: Any, dim: int, index: Any, source: Any, accumulate: bool, name: str) -> Tensor:
    x, index = to_tensor(input), to_tensor(index)
    dim = normalize_dim(name, dim, x.ndim)
    front = movedim(one_dim(x), dim, 0)
    wanted = (index._v.size, *front._v.shape[1:])
    source = stored(name, source, x._v.dtype, x.device)
    source = expand(source, wanted) if source.ndim == 0 else movedim(source, dim, 0)
    if tuple(source._v.shape) != tuple(wanted):
        raise ShapeError(
            f"{name}: source of shape {tuple(source.shape)} (dimension {dim} first), expected {tuple(wanted)}"
        )
    flat = reshape(index, (index._v.size,))
    out = movedim(index_put_p(front, source, cast(flat, dtypes.int64), accumulate=accumulate), 0, dim)
    return out if x.ndim else reshape(out, ())


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
    """A copy with ``alpha * source[i]`` added to slice ``index[i]`` of dimension ``dim``."""
    return _along(input, dim, index, source if alpha == 1 else mul(source, alpha), True, "index_add")


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Tensor:
    """A copy with slice ``index[i]`` of dimension ``dim`` replaced by ``source[i]``."""
    return _along(input, dim, index, source, False, "index_copy")


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Tensor:
    """A copy with the slices ``index`` of dimension ``dim`` filled with a number."""
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"index_fill: value must be a number or a 0-d tensor, got shape {tuple(value.shape)}")
    return _along(input, dim, index, value, False, "index_fill")


# ---- masks ------------------------------------------------------------------------------------------------------------
def _masked_put_shape(x: Any, mask: Any, source: Any) -> tuple:
    if tuple(mask.shape) != tuple(x.shape) or mask.dtype != dtypes.bool_ or source.dtype != x.dtype:
        raise ShapeError(
            f"masked_scatter: mask {mask.dtype}{tuple(mask.shape)} and source {source.dtype} for {x.dtype}{tuple(x.shape)}"
        )
    return (x,)


def _too_few(meaning: str, words: tuple, ins: list) -> ShapeError:
    return ShapeError(f"masked_scatter: source has {ins[2].size} elements for {words[3]} places")


def _places(mask: Tensor) -> Tensor:
    """Which element of its source each place of a batch of masks would take, flat: the count of True before it."""
    rows = reshape(mask, (mask._v.shape[0], numel(tuple(mask._v.shape[1:]))))
    return clamp(sub(cumsum(rows, 1), 1), 0)


def _masked_put_batch(n: int, ins: list, batched: list) -> Tensor:
    x, mask, source = all_batched(n, ins, batched)
    if not x._v.size or not source._v.size:
        flat = [reshape(t, (t._v.size,)) for t in (x, mask, source)]  # nothing is put, if the check passes
        return reshape(masked_put_p(*flat), tuple(x._v.shape))
    picked = reshape(gather_p(source, _places(mask), dim=1), tuple(x._v.shape))
    return where(mask, picked, x)


def _masked_take_batch(n: int, ins: list, batched: list, count: int) -> Tensor:
    g, mask = all_batched(n, ins, batched)
    base = zeros((n, count), dtype=g._v.dtype, device=g.device)
    if not g._v.size or not count:
        return base
    places = _places(mask)
    return scatter_p(base, places, reshape(where(mask, g, False), tuple(places._v.shape)), dim=1, mode="add")


masked_put_p = Primitive(
    "masked_scatter",
    _masked_put_shape,
    cpu=mask_launch.MASKED_PUT,
    vjp=lambda g, ins, o: (
        lambda: masked_fill(g, ins[1], 0),
        None,
        lambda: masked_take_p(g, ins[1], count=ins[2]._v.size),
    ),
    batch=_masked_put_batch,
    looks=mask_launch.LOOK_MASKED,
    refuse=_too_few,
    flops=costs.none,
)


masked_take_p = Primitive(  # the transpose: what lies under the mask, in order, then zeros up to ``count``
    "masked_take",
    shape=lambda g, mask, count: (Aval((count,), g.dtype),),
    cpu=mask_launch.MASKED_TAKE,
    vjp=lambda c, ins, o, count: (lambda: masked_put_p(zeros_like(ins[0]), ins[1], c), None),
    batch=_masked_take_batch,
    flops=costs.none,
)


def masked_scatter(input: Any, mask: Any, source: Any) -> Tensor:
    """A copy with the elements of ``source``, in order, where ``mask`` holds; both shapes are broadcast."""
    x, mask, source = to_tensor(input), to_tensor(mask), to_tensor(source)
    if source._v.dtype != x._v.dtype:
        raise DTypeError(f"masked_scatter: source is {source.dtype}, the input {x.dtype}; convert it with .to(dtype)")
    shape = broadcast("masked_scatter", tuple(x._v.shape), tuple(mask._v.shape))
    return masked_put_p(expand(x, shape), expand(mask, shape), reshape(source, (source._v.size,)))
