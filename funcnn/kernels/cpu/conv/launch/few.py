"""When a convolution has few pixels for its weights on the CPU, and how the work is cut."""

from __future__ import annotations

from functools import lru_cache
from math import gcd, prod

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.few import convolve_few, few_input_grad, few_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.draft import FIRST, FLOP_NS, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.tiles import dots_shape, strided_shape
from funcnn.kernels.launch import Array, LaunchPlan, Workers

MOST_PIXELS = 128  # of the batch at most
# The same of outputs, gradients of inputs and of weights where kernels hardly overlap.
MOST_PIXELS_APART = 300, 1000, 700
MOST_SHARED_TAPS = 1.6  # that meet a number of the image there, at most
MOST_UNFOLDED_BYTES = 7 << 18  # of the unfolded pixels then: they stay in the second-level cache
LEAST_WEIGHTS = 1 << 14  # at least: fewer are packed in no time
PIECE_BYTES = 3 << 10  # of a row at a time: of ten rows they fit the first-level cache
LEAST_CHUNKS = 16  # at least


@lru_cache(512)
def places_of(size: tuple, kernel: tuple, out: tuple, stride: tuple, padding: tuple, dilation: tuple) -> np.ndarray:
    """Returns (pixels of y, taps): which element of a volume of x each tap of a pixel meets, -1 for padding."""
    at, meets = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for n, k, o, s, p, d in zip(size, kernel, out, stride, padding, dilation, strict=True):
        axis = np.add.outer(np.arange(o) * s - p, np.arange(k) * d)
        shape = (at.shape[0] * o, at.shape[1] * k)
        meets = (meets[:, None, :, None] & ((axis >= 0) & (axis < n))[None, :, None, :]).reshape(shape)
        at = (at[:, None, :, None] * n + axis[None, :, None, :]).reshape(shape)
    return np.where(meets, at, -1)


def _sizes(p: Problem) -> tuple[int, ...]:
    """Returns the sizes that the kernels take. Unfolded pixels lie an odd number of vectors apart, and so in different sets of the cache."""
    lanes = vector_bytes() // p.itemsize
    pitch = (-(-p.inner * p.taps // lanes) | 1) * lanes
    return p.inner, p.w[0], p.taps, prod(p.y[2:]), prod(p.x[2:]), p.x[0], pitch


def _places(draft: Draft) -> Array:
    p = draft.problem
    return draft.constant(places_of(p.x[2:], p.kernel, p.y[2:], *p.window).reshape(-1))


def _work(p: Problem) -> Workers:
    return Workers(FLOP_NS * p.flops)


def _one_group(p: Problem) -> bool:
    """Returns the problem of channels, with taps that fill a tile."""
    return p.groups == 1 and not p.empty and p.inner * p.taps >= strided_shape(p.itemsize)[1]


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = bias + w * x. By the definition where it is not finite: such weights may have met padding."""
    if not _one_group(p):
        return None
    draft, sizes = Draft(p), _sizes(p)
    (many, each), pixels = dots_shape(), sizes[3] * sizes[5]
    rows, offsets = tables.repeated(p.inner * p.taps, p.w[0], many), tables.repeated(sizes[6], pixels, each)
    deep = -(-p.w[0] // (LEAST_CHUNKS * many)) * many
    unfolded, sums = draft.room(pixels * sizes[6]), draft.room(deep * offsets.size, "float64", each_worker=True)
    draft.run(
        convolve_few, FIRST, SECOND, draft.bias(p.w[0]), RESULT, unfolded, sums, _places(draft), draft.constant(rows),
        draft.constant(offsets), sizes, (many, each), deep, PIECE_BYTES // p.itemsize, _work(p),
    )  # fmt: skip
    if any(p.padding):
        draft.require_finite(RESULT, prod(p.y), reference.forward)
    return draft.plan()


def input_grad(p: Problem) -> LaunchPlan | None:
    """Plans dx from dy and w."""
    if not _one_group(p):
        return None
    draft, sizes, tile = Draft(p), _sizes(p), strided_shape(p.itemsize)
    across, each = -(-sizes[3] * sizes[5] // tile[0]) * tile[0], _each(p.inner, p.taps, tile[1])
    joined, scratch = draft.room(p.w[0] * across), draft.room(across * each * p.taps, each_worker=True)
    draft.run(
        few_input_grad, FIRST, SECOND, draft.bias(p.inner), RESULT, joined, scratch, _places(draft), sizes, across, tile, each,
        _work(p),
    )  # fmt: skip
    return draft.plan()


def _each(channels: int, taps: int, columns: int) -> int:
    """Returns the input channels of a chunk: whole tiles of taps, as many as there are chunks for."""
    least = columns // gcd(columns, taps)
    return min(channels, max(1, channels // (LEAST_CHUNKS * least)) * least)


def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw from x and dy. By the definition where it is not finite: such cotangents may have met padding."""
    if not _one_group(p):
        return None
    draft, sizes, tile = Draft(p), _sizes(p), strided_shape(p.itemsize)
    pixels, panels = sizes[3] * sizes[5], -(-p.w[0] // tile[0])
    joined, unfolded = draft.room(panels * tile[0] * pixels), draft.room(pixels * sizes[6])
    draft.run(
        few_weight_grad, FIRST, SECOND, RESULT, joined, unfolded, draft.room(tile[0] * tile[1], each_worker=True),
        _places(draft), sizes, tile, max(1, panels // LEAST_CHUNKS), _work(p),
    )  # fmt: skip
    draft.require_finite(RESULT, p.w[0] * p.inner * p.taps, reference.weight_grad)
    return draft.plan()


# ---- when ---------------------------------------------------------------------------------------------------------------
def _pays(p: Problem, most: int) -> bool:
    """Whether it pays: few pixels for many weights. Of images whose elements few taps share, ``most`` pixels may be."""
    pixels = p.x[0] * prod(p.y[2:])
    apart = pixels * p.inner * p.taps <= MOST_SHARED_TAPS * prod(p.x)
    return p.w[0] * p.inner * p.taps >= LEAST_WEIGHTS and pixels <= (max(MOST_PIXELS, most) if apart else MOST_PIXELS)


def forward_pays(p: Problem) -> bool:
    """Whether it pays for outputs."""
    return _pays(p, MOST_PIXELS_APART[0])


def input_grad_pays(p: Problem) -> bool:
    """Whether it pays for gradients of inputs."""
    return _pays(p, MOST_PIXELS_APART[1])


def weight_grad_pays(p: Problem) -> bool:
    """Whether it pays for gradients of weights."""
    return not p.empty and _pays(p, min(MOST_PIXELS_APART[2], MOST_UNFOLDED_BYTES // (p.inner * p.taps * p.itemsize)))
