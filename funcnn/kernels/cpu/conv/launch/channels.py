"""When depthwise convolution takes channels along the vector on the CPU, and what its kernels are told: plans, made once."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.channel_tile import channel_run
from funcnn.kernels.cpu.conv.channels import convolve_channels
from funcnn.kernels.cpu.conv.channels_weight import channels_weight_grad
from funcnn.kernels.cpu.conv.launch import gather, reference
from funcnn.kernels.cpu.conv.launch.volume import bias_of, three, volume, where_of
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.threads import number as threads

BAND = 128 << 10  # bytes of the rows that a chunk turns round and of what it makes: a part of the second-level cache
TAP_NS = 0.05  # a multiply-add
LONG = 256  # pixels of a row in one dimension
LARGE = 8 << 10  # bytes of a plane for 3 x 3 taps, which have a tile of pixels of their own
IMAGES = 16  # groups of images that a weight gradient has sums for, at most
CHUNKS = 8  # at least, where there are rows for them


class Plan(NamedTuple):
    """The names are those of the kernel."""

    table: np.ndarray
    offsets: np.ndarray
    parts: np.ndarray
    layout: tuple
    out: tuple
    planes: tuple
    bands: tuple
    strides: tuple
    images: int
    panels: int
    work: float


def _plan(
    shape: tuple, out: tuple, many: int, layout: tables.Image, parts: list, strides: tuple, itemsize: int
) -> Plan:
    """The plan for x of ``shape`` (N, C, H, W) and outputs (P, Q).

    parts: of each the offsets and table of its taps, its first row and column, its rows and columns.
    """
    n, channels, height, width = shape
    lanes, pitch, (above, left) = vector_bytes() // itemsize, layout.places[2], layout.before[1:]
    images, planes = (n, channels) if channels >= lanes else (1, n * channels)
    far = [int(offsets.max(initial=0)) + (part[3] - 1) * strides[1] for offsets, _, *part in parts]
    reach, rows = max(far) // pitch + 1, max(part[4] for part in parts)
    row = lanes * (strides[0] * pitch + strides[2] * out[1])  # numbers that one row of outputs takes
    whole = images * -(-planes // lanes)
    high = max(1, min(rows, BAND // (row * itemsize), max(2, whole * rows // CHUNKS)))
    high = -(-rows // -(-rows // high))  # bands of about the same height
    inside = ((high - 1) * strides[0] + reach) * pitch * lanes
    bands = (-(-rows // high), high, reach, inside + high * strides[2] * out[1] * lanes, inside)
    firsts = np.cumsum([0] + [offsets.size for offsets, *_ in parts]).tolist()
    lines = [(first, offsets.size, *part) for first, (offsets, _, *part) in zip(firsts, parts, strict=False)]
    together = lambda i: np.concatenate([part[i] for part in parts]).astype(np.int64)
    taps = sum(offsets.size * part[2] * part[3] for offsets, _, *part in parts)
    work = n * channels * (TAP_NS * many * taps + gather.SPREAD_NS * (height * width + many * out[0] * out[1]))
    return Plan(
        together(1), together(0) * lanes, np.array(lines, np.int64), (height, width, above, left, pitch), (*out, rows),
        (planes, many, channels), bands, strides, images, -(-planes // lanes) * many, work,
    )  # fmt: skip


@lru_cache(512)
def _forward_plan(
    x: tuple, w: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> Plan | None:
    if not _fits(x, w[0], groups, itemsize):
        return None
    (_, *strides), before, apart = where_of(stride, padding, dilation)
    size, kernel = three(x[2:]), three(w[2:])
    layout, part = tables.forward(size, 1, kernel, (1, 1, 1), before, apart, tables.COPY)
    out = tuple((rows - 1) // s + 1 for rows, s in zip(part.grid[1:3], strides, strict=True))
    if stride == (1,) * len(stride) and _long_rows(out, kernel, apart, itemsize):
        return None
    parts = [(part.offsets, part.table, 0, 0, *out)]
    return _plan((*x[:2], *size[1:]), out, w[0] // groups, layout, parts, (*strides, 1, 1), itemsize)


@lru_cache(512)
def _input_grad_plan(
    dy: tuple, w: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> Plan | None:
    if not _fits(dy, w[0], groups, itemsize) or w[0] != groups or not min(size):
        return None
    where, whole = where_of(stride, padding, dilation), three(size)
    layout, each = tables.input_grad(whole, three(dy[2:]), 1, 1, three(w[2:]), *where)
    if max(stride) == 1 and _long_rows(whole[1:], three(w[2:]), where[2], itemsize):
        return None
    parts = [(part.offsets, part.table, *part.phase[1:], *part.grid[1:3]) for part in each]
    return _plan((*dy[:2], *three(dy[2:])[1:]), whole[1:], 1, layout, parts, (1, 1, *where[0][1:]), itemsize)


def _fits(shape: tuple, outputs: int, groups: int, itemsize: int) -> bool:
    """Whether there is a vector of planes in images of one or two dimensions."""
    lanes = vector_bytes() // itemsize
    one_each = shape[1] == groups > 1 and len(shape) < 5
    return one_each and 0 not in shape and outputs > 0 and shape[0] * groups >= lanes


def _long_rows(out: tuple, kernel: tuple, dilation: tuple, itemsize: int) -> bool:
    """Whether rows of pixels fill vectors so well that turning them round would cost more than it gains, at stride 1."""
    if out[0] == 1 == kernel[1]:
        return out[1] >= LONG
    return kernel[1:] == (3, 3) and max(dilation) == 1 and out[0] * out[1] * itemsize > LARGE


def _product(plan: Plan, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, padded: bool) -> bool:
    """y from x and w; False where weights that are not finite would meet padding."""
    work, lanes = threads.workers(plan.work), vector_bytes() // y.itemsize
    packed = empty((plan.panels * (plan.table.size + 1) * lanes,), y.dtype)
    scratch = empty((work * plan.bands[3],), y.dtype)
    return convolve_channels(
        x.reshape(-1), w.reshape(-1), bias, plan.table, packed, fresh(plan.panels, y.dtype), plan.offsets, y.reshape(-1),
        scratch, plan.parts, plan.layout, plan.out, plan.planes, plan.bands, plan.strides, plan.images, padded,
        channel_run(y.itemsize), work,
    )  # fmt: skip


def forward(ins: list, outs: list, **where: Any) -> None:
    """y = bias + w * x. By the gathered product where weights that are not finite would meet padding."""
    plan: Any = _forward_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].itemsize, **where)
    y = volume(outs[0])
    if not _product(plan, volume(ins[0]), volume(ins[1]), bias_of(ins, y), y, any(where["padding"])):
        gather.forward(ins, outs, **where)


def input_grad(ins: list, outs: list, **where: Any) -> None:
    """dx from dy and w."""
    plan: Any = _input_grad_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].itemsize, **where)
    dx = volume(outs[0])
    if not _product(plan, volume(ins[0]), volume(ins[1]), bias_of(ins, dx), dx, True):
        gather.input_grad(ins, outs, **where)


class WeightPlan(NamedTuple):
    """What a weight's gradient needs to know of the shapes."""

    places: np.ndarray
    layout: tuple
    out: tuple
    planes: tuple
    bands: tuple
    strides: tuple
    kernel: tuple
    images: int
    each: int
    sums: int
    work: float


@lru_cache(512)
def _weight_plan(
    x: tuple, dy: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> WeightPlan | None:
    if not _fits(x, dy[1], groups, itemsize) or 0 in dy or not min(size):
        return None
    plan = _forward_plan(x, (dy[1], 1, *size), stride, padding, dilation, groups, itemsize)
    if plan is None:
        return None
    (P, Q, _), (_, high, reach, _, inside), lanes = plan.out, plan.bands, vector_bytes() // itemsize
    kernel, taps = (*three(size)[1:], *where_of(stride, padding, dilation)[2][1:]), prod(size)
    pixels = np.add.outer(np.arange(high) * plan.strides[0] * plan.layout[4], np.arange(Q) * plan.strides[1])
    room = inside + (1 + high * Q + taps) * lanes
    each = -(-plan.images // IMAGES)
    sums = -(-plan.images // each) * plan.panels * taps * lanes
    bands = (plan.bands[0], high, reach, room, inside)
    return WeightPlan(
        pixels.reshape(-1) * lanes, plan.layout, (P, Q), plan.planes, bands, plan.strides[:2], kernel, plan.images, each, sums,
        plan.work,
    )  # fmt: skip


def weight_grad(ins: list, outs: list, size: tuple, **where: Any) -> None:
    """dw from x and dy. By the definition where cotangents that are not finite met padding."""
    plan: Any = _weight_plan(ins[0].shape, ins[1].shape, size, itemsize=ins[0].itemsize, **where)
    x, dy, dw, work = volume(ins[0]), volume(ins[1]), outs[0], threads.workers(plan.work)
    channels_weight_grad(
        x.reshape(-1), dy.reshape(-1), plan.places, dw.reshape(-1), empty((plan.sums,), np.dtype(np.float64)),
        empty((work * plan.bands[3],), dw.dtype), plan.layout, plan.out, plan.planes, plan.bands, plan.strides, plan.kernel,
        plan.images, plan.each, channel_run(dw.itemsize), work,
    )  # fmt: skip
    reference.mend_weight_grad(ins, outs, size=size, **where)


def applies_to_weight_grad(ins: list, size: tuple, **where: Any) -> bool:
    """To gradients of weights."""
    return _weight_plan(ins[0].shape, ins[1].shape, size, itemsize=ins[0].dtype.itemsize, **where) is not None


def applies(ins: list, **where: Any) -> bool:
    """To outputs."""
    return _forward_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].dtype.itemsize, **where) is not None


def applies_to_input_grad(ins: list, **where: Any) -> bool:
    """To gradients of inputs."""
    return _input_grad_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].dtype.itemsize, **where) is not None
