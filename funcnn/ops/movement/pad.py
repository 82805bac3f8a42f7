"""Padding in four modes, given as PyTorch does: (before, after) pairs from the last dimension backwards."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.device import device_of
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.movement import host
from funcnn.ops.base import costs
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import slice_p, tabulated
from funcnn.ops.indexing.index import index_select
from funcnn.ops.movement.views import apart, slice_dim


def _pad_vjp(g: Tensor, ins: list, o: Tensor, widths: tuple, value: float) -> tuple:
    shape = ins[0]._v.shape
    starts = tuple(before for before, _ in widths)
    stops = tuple(a + s for a, s in zip(starts, shape, strict=True))
    return (slice_p(g, starts=starts, stops=stops, steps=(1,) * len(shape)),)


pad_p = Primitive(
    "pad",
    shape=lambda x, widths, value: (
        Aval(tuple(s + a + b for s, (a, b) in zip(x.shape, widths, strict=True)), x.dtype),
    ),
    cpu=host.PAD,
    vjp=_pad_vjp,
    batch=lambda n, ins, batched, widths, value: pad_p(ins[0], widths=((0, 0), *widths), value=value),
    keeps="",
    flops=costs.none,
)


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Grown by ``pad`` = (last_before, last_after, second_last_before, ...); negative widths crop (constant mode).

    mode: "constant" (``value``, default 0), "reflect" (without repeating the edge), "replicate" or "circular".
    """
    x = to_tensor(input)
    widths = [int(w) for w in pad]
    if len(widths) % 2 or len(widths) // 2 > x.ndim:
        raise ShapeError(f"pad: {tuple(widths)} must be pairs for at most {x.ndim} dimensions")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    if mode == "constant":
        return apart(_constant(x, pairs, 0.0 if value is None else value), x)
    if value is not None:
        raise ValueError(f"pad: value is only for mode 'constant', got mode {mode!r}")
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"pad: mode must be constant, reflect, replicate or circular, got {mode!r}")
    if len(pairs) not in (x.ndim - 1, x.ndim - 2) or not pairs:
        raise ShapeError(
            f"pad: mode {mode!r} takes widths for all dimensions but channels, or channels and batch, got "
            f"{tuple(widths)} for an input of shape {tuple(x.shape)}; move other dimensions there"
        )
    out = x
    for position, (before, after) in enumerate(pairs):
        dim = x.ndim - 1 - position
        if mode == "circular" and min(before, after) < 0:  # what is cropped comes back on no side
            limit = x._v.shape[dim]
            if max(before, after) > limit or before + after + limit < 0 or limit + min(before, 0) + min(after, 0) < 1:
                raise ShapeError(f"pad: circular widths {(before, after)} do not fit dimension {dim} of size {limit}")
            out = slice_dim(out, dim, max(0, -before), limit - max(0, -after))
            before, after = max(before, 0), max(after, 0)
            out = index_select(out, dim, _sources(out, mode, dim, before, after))
        elif before or after:
            _fit(mode, x._v.shape[dim], before, after, dim)
            out = index_select(out, dim, _sources(out, mode, dim, before, after))
    return apart(out, x)


def _constant(x: Tensor, pairs: list, value: float) -> Tensor:
    grown = [(0, 0)] * x.ndim
    for position, (before, after) in enumerate(pairs):
        dim = x.ndim - 1 - position
        size = x._v.shape[dim]
        if size + before + after < 0:
            raise ShapeError(f"pad: widths {(before, after)} leave nothing of dimension {dim} of size {size}")
        x = slice_dim(x, dim, max(0, -before), size - max(0, -after)) if before < 0 or after < 0 else x
        grown[dim] = (max(before, 0), max(after, 0))
    return pad_p(x, widths=tuple(grown), value=value) if any(map(any, grown)) else x


def _fit(mode: str, size: int, before: int, after: int, dim: int) -> None:
    limit = {"reflect": size - 1, "circular": size, "replicate": max(before, after, 0) if size else 0}[mode]
    if max(before, after) > limit:
        raise ShapeError(f"pad: {mode} widths {(before, after)} are too large for dimension {dim} of size {size}")


sources = tabulated(
    "pad_sources", lambda mode, size, before, after: Aval((before + size + after,), dtypes.int64), host.pad_sources
)


def _sources(x: Tensor, mode: str, dim: int, before: int, after: int) -> Tensor:
    """For each index of the padded dimension, the one it is copied from."""
    return sources(device_of(x._v), mode=mode, size=x._v.shape[dim], before=before, after=after)
