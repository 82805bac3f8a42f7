"""When depthwise convolution takes channels along the vector on the CPU, and what its kernels are told."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.channel_tile import channel_run
from funcnn.kernels.cpu.conv.channels import convolve_channels, pack_channel_weights
from funcnn.kernels.cpu.conv.channels_weight import channels_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.draft import FIRST, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.gather import COPY_NS
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.launch import LaunchPlan, Workers

# Bytes of the rows that a chunk transposes and of what it makes: a part of the second-level cache.
BAND_BYTES = 128 << 10
TAP_NS = 0.05  # a multiply-add
LEAST_ROW_PIXELS = 256  # of a row in one dimension
LARGE_PLANE_BYTES = 8 << 10  # of a plane for 3 x 3 taps, which have a tile of pixels of their own
MOST_IMAGE_GROUPS = 16  # groups of images that a weight gradient has sums for, at most
LEAST_CHUNKS = 8  # at least, where there are rows for them


class Bands(NamedTuple):
    """How planes are cut; the names are those of the kernel. together: vectors of planes and outputs of each."""

    table: np.ndarray
    offsets: np.ndarray
    parts: np.ndarray
    layout: tuple
    out: tuple
    planes: tuple
    bands: tuple
    strides: tuple
    images: int
    together: int
    work: Workers


def _bands(p: Problem, shape: tuple, out: tuple, many: int, layout: tables.Image, parts: list, strides: tuple) -> Bands:
    """Plans for what is given, ``shape`` (N, C, 1, H, W), and ``many`` results (P, Q) of each plane.

    parts: of each the offsets and table of its taps, its first row and column, its rows and columns.
    """
    n, channels, _, height, width = shape
    lanes, pitch, (above, left) = vector_bytes() // p.itemsize, layout.places[2], layout.before[1:]
    images, planes = (n, channels) if channels >= lanes else (1, n * channels)
    far = [int(offsets.max(initial=0)) + (part[3] - 1) * strides[1] for offsets, _, *part in parts]
    reach, rows = max(far) // pitch + 1, max(part[4] for part in parts)
    row = lanes * (strides[0] * pitch + strides[2] * out[1])  # elements that one row of outputs takes
    whole = images * -(-planes // lanes)
    high = max(1, min(rows, BAND_BYTES // (row * p.itemsize), max(2, whole * rows // LEAST_CHUNKS)))
    high = -(-rows // -(-rows // high))  # bands of about the same height
    inside = ((high - 1) * strides[0] + reach) * pitch * lanes
    bands = (-(-rows // high), high, reach, inside + high * strides[2] * out[1] * lanes, inside)
    firsts = np.cumsum([0] + [offsets.size for offsets, *_ in parts]).tolist()
    lines = [(first, offsets.size, *part) for first, (offsets, _, *part) in zip(firsts, parts, strict=False)]
    together = lambda i: np.concatenate([part[i] for part in parts]).astype(np.int64)
    taps = sum(offsets.size * part[2] * part[3] for offsets, _, *part in parts)
    work = Workers(n * channels * (TAP_NS * many * taps + COPY_NS * (height * width + many * out[0] * out[1])))
    return Bands(
        together(1), together(0) * lanes, np.array(lines, np.int64), (height, width, above, left, pitch), (*out, rows),
        (planes, many, channels), bands, strides, images, -(-planes // lanes) * many, work,
    )  # fmt: skip


def _fits(p: Problem) -> bool:
    """Whether there is a vector of planes in images of one or two dimensions, with one input channel a group."""
    return p.inner == 1 and p.dims < 3 and not p.empty and p.x[0] * p.groups >= vector_bytes() // p.itemsize


def _output_bands(p: Problem) -> Bands:
    layout, part = tables.forward(p.x[2:], 1, p.kernel, (1, 1, 1), p.padding, p.dilation, tables.COPY_EVERY_IMAGE)
    out = p.y[3:]
    return _bands(p, p.x, out, p.lanes, layout, [(part.offsets, part.table, 0, 0, *out)], (*p.stride[1:], 1, 1))


def _long_rows(p: Problem, out: tuple) -> bool:
    """Whether rows of pixels fill vectors so well that transposing them would cost more than it gains, at stride 1."""
    if max(p.stride) > 1:
        return False
    if out[0] == 1 == p.kernel[1]:
        return out[1] >= LEAST_ROW_PIXELS
    return p.kernel[1:] == (3, 3) and max(p.dilation) == 1 and out[0] * out[1] * p.itemsize > LARGE_PLANE_BYTES


def _plan(p: Problem, cut: Bands, padded: bool, otherwise: Callable) -> LaunchPlan:
    """Returns the result from the first operand. padded: whether weights may meet zeros that are no elements of it."""
    draft, size = Draft(p), cut.together * (cut.table.size + 1) * (vector_bytes() // p.itemsize)
    packed, spoiled = draft.room(size), draft.room(cut.together)
    pack = (SECOND, draft.bias(cut.planes[1] * cut.planes[2]), draft.constant(cut.table), packed, spoiled)
    draft.run(pack_channel_weights, *pack, cut.planes, Workers(2 * size), once=True)
    if padded:
        draft.require_finite(spoiled, cut.together, otherwise)
    draft.run(
        convolve_channels, FIRST, packed, draft.constant(cut.offsets), RESULT, draft.room(cut.bands[3], each_worker=True),
        draft.constant(cut.parts), cut.layout, cut.out, cut.planes, cut.bands, cut.strides, cut.images,
        channel_run(p.itemsize), cut.work,
    )  # fmt: skip
    return draft.plan()


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = bias + w * x. By the definition where weights that are not finite would meet padding."""
    return _plan(p, _output_bands(p), any(p.padding), reference.forward) if _fits(p) else None


def forward_pays(p: Problem) -> bool:
    """Whether it pays: for several groups."""
    return p.groups > 1 and not _long_rows(p, p.y[3:])


def input_grad(p: Problem) -> LaunchPlan | None:
    """Plans dx from dy and w, with one output a channel."""
    if not _fits(p) or p.lanes > 1:
        return None
    layout, each = tables.input_grad(p.x[2:], p.y[2:], 1, 1, p.kernel, *p.window)
    parts = [(part.offsets, part.table, *part.phase[1:], *part.grid[1:3]) for part in each]
    cut = _bands(p, p.y, p.x[3:], 1, layout, parts, (1, 1, *p.stride[1:]))
    return _plan(p, cut, True, reference.input_grad)


def input_grad_pays(p: Problem) -> bool:
    """Whether it pays: for several groups."""
    return p.groups > 1 and not _long_rows(p, p.x[3:])


def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw from x and dy. By the definition where it is not finite: such cotangents may have met padding."""
    if not _fits(p):
        return None
    draft, cut, lanes = Draft(p), _output_bands(p), vector_bytes() // p.itemsize
    (P, Q, _), (count, high, reach, _, inside) = cut.out, cut.bands
    kernel = (*p.kernel[1:], *p.dilation[1:])
    pixels = np.add.outer(np.arange(high) * cut.strides[0] * cut.layout[4], np.arange(Q) * cut.strides[1])
    room = inside + (1 + high * Q + p.taps) * lanes
    each = -(-cut.images // MOST_IMAGE_GROUPS)
    sums = draft.room(-(-cut.images // each) * cut.together * p.taps * lanes, "float64")
    draft.run(
        channels_weight_grad, FIRST, SECOND, draft.constant(pixels.reshape(-1) * lanes), RESULT, sums,
        draft.room(room, each_worker=True), cut.layout, (P, Q), cut.planes, (count, high, reach, room, inside),
        cut.strides[:2], kernel, cut.images, each, channel_run(p.itemsize), cut.work,
    )  # fmt: skip
    draft.require_finite(RESULT, prod(p.w), reference.weight_grad)
    return draft.plan()
