"""Max and average pooling over one to three spatial dimensions, with their gradients as primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.context import ctx
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, refresh
from funcnn.kernels.cpu.pool import launch as pool_launch
from funcnn.kernels.cpu.pool import launch_avg, launch_max
from funcnn.kernels.cpu.pool.launch_max import index_dtype
from funcnn.kernels.cpu.pool.windows import pooled_sizes
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, split_batch
from funcnn.ops.base.dims import per_dim
from funcnn.ops.base.promote import operand, require_kernel_float
from funcnn.ops.base.structure import cast
from funcnn.ops.movement.views import reshape


# ---- max pooling ------------------------------------------------------------------------------------------------------
def _max_shape(
    x: Any, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool, indices: bool
) -> tuple:
    space = pooled_sizes(tuple(x.shape[2:]), size, stride, padding, dilation, ceil_mode)
    _require_outputs(f"max_pool{len(size)}d", x, space, size)
    shape = (*x.shape[:2], *space)
    values = Aval(shape, x.dtype)
    return (values, Aval(shape, index_dtype(x.shape[2:]))) if indices else (values,)


def places_wanted(x: Tensor) -> bool:
    """Whether a gradient or a transformation may ask where the maxima were."""
    if ctx.top is not None or ctx.stage is not None:
        return True
    return ctx.grad and (refresh(x)._rg or x._node is not None)


def _require_outputs(name: str, x: Any, space: tuple, size: tuple) -> None:
    if min(space) <= 0:
        raise ShapeError(
            f"{name}: a window of {size} does not fit an input of shape {tuple(x.shape)}: output would be {space}"
        )


def scatter_vjp(g: list, ins: list, outs: list, **params: Any) -> tuple:
    """The rule of all poolings by maximum, whose second output is the flat index; other inputs have no gradient."""
    rest = (None,) * (len(ins) - 1)
    return (lambda: pool_scatter_p(g[0], outs[1], size=tuple(ins[0]._v.shape[2:])), *rest)


def folded(prim: Callable, n: int, ins: list, batched: list, **params: Any) -> Any:
    """The batching rule of a primitive that is batched already: the new axis joins it."""
    out = prim(*[merge_batch(t) for t in all_batched(n, ins, batched)], **params)
    return [split_batch(t, n) for t in out] if isinstance(out, (list, tuple)) else split_batch(out, n)


def without_places(prim: Primitive, used: tuple[bool, ...], params: dict) -> tuple[Primitive, dict] | None:
    """The rule of a pooling by maximum of which nobody reads the places (``Primitive.unused``)."""
    return (prim, {**params, "indices": False}) if used == (True, False) else None


max_pool_p = Primitive(
    "max_pool",
    _max_shape,
    cpu=launch_max.max_pools,
    vjp=scatter_vjp,
    batch=lambda n, ins, batched, **window: folded(max_pool_p, n, ins, batched, **window),
    keeps="o",
    multiple=True,
    unused=lambda used, params: without_places(max_pool_p, used, params),
    flops=costs.window,
)
pool_scatter_p = Primitive(
    "pool_scatter",
    shape=lambda dy, index, size: (Aval((*dy.shape[:2], *size), dy.dtype),),
    cpu=pool_launch.scatters,
    vjp=lambda g, ins, o, size: (lambda: pool_gather_p(g, ins[1]), None),
    batch=lambda n, ins, batched, size: folded(pool_scatter_p, n, ins, batched, size=size),
    flops=costs.each(1),
)
pool_gather_p = Primitive(
    "pool_gather",
    shape=lambda x, index: (Aval(tuple(index.shape), x.dtype),),
    cpu=pool_launch.gathers,
    vjp=lambda g, ins, o: (lambda: pool_scatter_p(g, ins[1], size=tuple(ins[0]._v.shape[2:])), None),
    batch=lambda n, ins, batched: folded(pool_gather_p, n, ins, batched),
    flops=costs.none,
    bytes=costs.gathered,
)


# ---- average pooling --------------------------------------------------------------------------------------------------
def _avg_shape(
    x: Any, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool, divisor: int
) -> tuple:
    space = pooled_sizes(tuple(x.shape[2:]), size, stride, padding, (1,) * len(size), ceil_mode)
    _require_outputs(f"avg_pool{len(size)}d", x, space, size)
    return (Aval((*x.shape[:2], *space), x.dtype),)


avg_pool_p = Primitive(
    "avg_pool",
    _avg_shape,
    cpu=launch_avg.avg_pools,
    vjp=lambda g, ins, o, **window: (avg_pool_grad_p(g, space=tuple(ins[0]._v.shape[2:]), **window),),
    batch=lambda n, ins, batched, **window: folded(avg_pool_p, n, ins, batched, **window),
    keeps="",
    flops=costs.window,
)
avg_pool_grad_p = Primitive(
    "avg_pool_grad",
    shape=lambda dy, space, **window: (Aval((*dy.shape[:2], *space), dy.dtype),),
    cpu=launch_avg.avg_pool_grads,
    vjp=lambda g, ins, o, space, **window: (avg_pool_p(g, **window),),
    batch=lambda n, ins, batched, **window: folded(avg_pool_grad_p, n, ins, batched, **window),
    keeps="",
    flops=costs.window,
)


# ---- public -----------------------------------------------------------------------------------------------------------
def images_of(name: str, n: int, input: Any, integers: tuple = ()) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it was added; ``integers``: dtypes that are taken beside floats.

    Raises ``ShapeError`` and ``DTypeError``.
    """
    x = operand(name, input)
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: expected an input of {n + 2} dimensions (N, C, ...) or {n + 1} (C, ...), got shape {tuple(x.shape)}"
        )
    if x._v.dtype not in integers:
        require_kernel_float(name, x)
    single = x.ndim == n + 1
    return (reshape(x, (1, *x._v.shape)) if single else x), single


def named(pool: Callable, name: str, doc: str) -> Callable:
    """A function made for one number of dimensions, under its own name."""
    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


def without_batch(t: Tensor, single: bool) -> Tensor:
    """Take the batch dimension away that ``images_of`` added."""
    return reshape(t, tuple(t._v.shape[1:])) if single else t


def pooled_with_indices(outs: list, single: bool, return_indices: bool) -> Any:
    """Values, or values and int64 indices, of a pooling by maximum."""
    y = without_batch(outs[0], single)
    return (y, cast(without_batch(outs[1], single), dtypes.int64)) if return_indices else y


def _prepared(
    name: str, n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, integers: tuple = ()
) -> tuple:
    x, single = images_of(name, n, input, integers)
    size = per_dim(name, "kernel_size", kernel_size, n)
    step = size if stride is None or stride == () else per_dim(name, "stride", stride, n)
    border = per_dim(name, "padding", padding, n, least=0)
    if any(border) and any(2 * p > k for p, k in zip(border, size, strict=True)):
        raise ShapeError(f"{name}: padding {border} must be at most half of kernel_size {size}")
    return x, size, step, border, single


WHOLE = (dtypes.uint8, dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64)


def _max_pool(n: int, doc: str) -> Callable:
    name = f"max_pool{n}d"

    def pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:  # fmt: skip
        integers = WHOLE if n > 1 else ()  # as in PyTorch
        x, size, step, border, single = _prepared(name, n, input, kernel_size, stride, padding, integers)
        spread = per_dim(name, "dilation", dilation, n)
        outs = max_pool_p(x, size=size, stride=step, padding=border, dilation=spread, ceil_mode=bool(ceil_mode),
                          indices=bool(return_indices) or places_wanted(x))  # fmt: skip
        return pooled_with_indices(outs, single, return_indices)

    return named(pool, name, doc)


def _avg_pool(n: int, doc: str) -> Callable:
    name = f"avg_pool{n}d"

    def pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        x, size, step, border, single = _prepared(name, n, input, kernel_size, stride, padding)
        if divisor_override == 0:
            raise ValueError(f"{name}: divisor_override must not be 0")
        y = avg_pool_p(x, size=size, stride=step, padding=border, ceil_mode=bool(ceil_mode),
                       include=bool(count_include_pad), divisor=divisor_override or 0)  # fmt: skip
        return without_batch(y, single)

    return named(pool, name, doc)


_MAX = (
    "The largest of each window of (N, C, *spatial); with ``return_indices`` also its flat index. Padding never wins."
)
_AVG = "The mean of each window of (N, C, *spatial), padded with zeros that ``count_include_pad`` counts or not."
max_pool1d, max_pool2d, max_pool3d = (_max_pool(n, _MAX) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool(n, _AVG) for n in (1, 2, 3))
