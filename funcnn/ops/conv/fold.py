"""unfold and fold: windows of images as columns, and columns summed into images. Each is the transpose of the other."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.sampling import columns as launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import merge_batch, split_batch
from funcnn.ops.base.dims import per_dim
from funcnn.ops.base.promote import operand, require_kernel_float
from funcnn.ops.movement.views import reshape


def _unfold_shape(x: Any, size: tuple, **window: Any) -> tuple:
    p, q = launch.windows(tuple(x.shape[2:]), size, **window)
    return (Aval((x.shape[0], x.shape[1] * size[0] * size[1], p * q), x.dtype),)


unfold_p = Primitive(
    "im2col",
    _unfold_shape,
    cpu=launch.unfolds,
    vjp=lambda g, ins, out, **window: (fold_p(g, space=tuple(ins[0]._v.shape[2:]), **window),),
    batch=lambda n, ins, batched, **window: split_batch(unfold_p(merge_batch(ins[0]), **window), n),
    keeps="",
    flops=costs.none,
)
fold_p = Primitive(
    "fold",
    shape=lambda columns, space, size, **window: (
        Aval((columns.shape[0], columns.shape[1] // (size[0] * size[1]), *space), columns.dtype),
    ),
    cpu=launch.folds,
    vjp=lambda g, ins, out, space, **window: (unfold_p(g, **window),),
    batch=lambda n, ins, batched, **window: split_batch(fold_p(merge_batch(ins[0]), **window), n),
    keeps="",
    flops=costs.each(1),
)


# ---- public -----------------------------------------------------------------------------------------------------------
def _prepared(name: str, input: Any, rank: int, expected: str) -> tuple[Tensor, bool]:
    """The input with a batch of 1 where it has none."""
    x = operand(name, input)
    if x.ndim not in (rank - 1, rank):
        raise ShapeError(f"{name}: expected {expected}, got shape {tuple(x.shape)}")
    require_kernel_float(name, x)
    single = x.ndim == rank - 1
    return (reshape(x, (1, *x._v.shape)) if single else x), single


def _window(name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> dict[str, tuple[int, ...]]:
    return {
        "size": per_dim(name, "kernel_size", kernel_size, 2),
        "stride": per_dim(name, "stride", stride, 2),
        "padding": per_dim(name, "padding", padding, 2, least=0),
        "dilation": per_dim(name, "dilation", dilation, 2),
    }


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """(N, C, H, W) to (N, C * kh * kw, L): each of the L windows, padded with zeros, as a column (im2col)."""
    x, single = _prepared("unfold", input, 4, "(N, C, H, W) or (C, H, W)")
    window = _window("unfold", kernel_size, dilation, padding, stride)
    space = tuple(x._v.shape[2:])
    if min(launch.windows(space, **window)) < 1:
        raise ShapeError(
            f"unfold: kernel {window['size']} with dilation {window['dilation']} is larger than the input {space} "
            f"padded by {window['padding']}"
        )
    columns = unfold_p(x, **window)
    return reshape(columns, columns._v.shape[1:]) if single else columns


def fold(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """(N, C * kh * kw, L) to (N, C, *output_size): overlapping windows add up; what falls on padding is dropped."""
    x, single = _prepared("fold", input, 3, "(N, C * kh * kw, L) or (C * kh * kw, L)")
    window = _window("fold", kernel_size, dilation, padding, stride)
    space = per_dim("fold", "output_size", output_size, 2)
    rows, count = x._v.shape[1:]
    fit = launch.windows(space, **window)
    each = window["size"][0] * window["size"][1]
    if rows % each:
        raise ShapeError(
            f"fold: the kernel {window['size']} needs a multiple of {each} rows, got shape {tuple(x.shape)}"
        )
    if min(fit) < 1 or fit[0] * fit[1] != count:
        raise ShapeError(
            f"fold: output_size {space} has {fit[0]} x {fit[1]} windows of {window['size']}, "
            f"got {count} columns in shape {tuple(x.shape)}"
        )
    y = fold_p(x, space=space, **window)
    return reshape(y, y._v.shape[1:]) if single else y
