"""When direct convolution applies on the CPU, and what its kernels are told.

It is for batches of images small enough for a worker's cache, and is chosen where it multiplies less: whole vectors
of channels for the pixels that there are, against eight channels of whole tiles of the image's grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.direct import convolve_direct, pack_direct_weights
from funcnn.kernels.cpu.conv.direct_tile import longest_run
from funcnn.kernels.cpu.conv.direct_weight import direct_weight_grad
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.draft import FIRST, FLOP_NS, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.gather import IMAGES_FOR_SUMS, MOST_WEIGHTS, tile_of
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.split import LARGEST_UNROLLED
from funcnn.kernels.cpu.vector.tiles import dots_shape
from funcnn.kernels.launch import LaunchPlan, Workers

LEAST_IMAGES = 16, 8  # images times groups at least, one a chunk: of plain ones, and of those split by phase
MOST_IMAGE_BYTES = 1 << 20  # of one group of one image at most
BLOCK_PIXELS = 256  # pixels at a time, so that those of a vector of channels stay in the first-level cache
SPLIT_TERMS = 15, 45  # what an element costs that is split by phase, in multiply-adds: with shuffles, and one by one
HALF_COST = 1.2  # what a multiply-add of half a vector costs, in halves of a whole one's


def _vector(channels: int, itemsize: int) -> tuple[int, bool]:
    """Returns how many elements a vector has for so many channels, and whether it is a half one."""
    lanes = vector_bytes() // itemsize
    half = channels <= lanes // 2
    return lanes // 2 if half else lanes, half


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _room(layout: tables.Image, inner: int) -> int:
    """Returns how many elements of a group of an image a worker copies."""
    return 0 if layout.direct else inner * layout.size + SLACK_ELEMENTS


# ---- outputs, and gradients of inputs -----------------------------------------------------------------------------------
class Sums(NamedTuple):
    """Outputs of ``lanes`` channels a group from images of ``inner``: the image, the only part, and (rows of taps, of outputs)
    which rows of the kernel meet a row of the image. weights: see ``pack_weights``."""

    layout: tables.Image
    part: tables.Part
    spans: np.ndarray
    inner: int
    lanes: int
    weights: tuple[int, int]


def _spans(met: np.ndarray, row: int) -> np.ndarray:
    """Returns for each two rows of outputs the first tap, and how many, of the rows of the kernel that meet the image.

    met: where each row of the kernel falls for each row of outputs: (P, rows) of whether that is a row of the image.
    """
    first = np.arange(0, len(met), 2)
    some = met[first] | met[np.minimum(first + 1, len(met) - 1)]
    low, high = some.argmax(1), some.shape[1] - some[:, ::-1].argmax(1)
    empty_ones = ~some.any(1)  # all is padding, and one row of it is enough
    return np.stack([low, np.where(empty_ones, 1, high - low)], 1).reshape(-1) * row


def _meets(at: np.ndarray, layout: tables.Image, part: tables.Part) -> np.ndarray:
    """Returns ``_spans`` of rows that fall at ``at``."""
    return _spans((at >= 0) & (at < layout.sizes[1]), part.offsets.size // at.shape[1])


def _outputs(p: Problem) -> Sums | None:
    if p.empty:
        return None
    layout, part = tables.forward(p.x[2:], p.inner, p.kernel, *p.window, 1)
    at = np.arange(part.grid[1])[:, None] * p.stride[1] - p.padding[1] + np.arange(p.kernel[1]) * p.dilation[1]
    taps = part.offsets.size
    return Sums(layout, part, _meets(at, layout, part), p.inner, p.lanes, (taps, p.lanes * taps))


def _inputs(p: Problem) -> Sums | None:
    if p.empty or max(p.stride) > 1:
        return None
    layout, (part,) = tables.input_grad(p.x[2:], p.y[2:], p.lanes, p.inner, p.kernel, *p.window)
    at = np.arange(part.grid[1])[:, None] + p.padding[1] - np.arange(p.kernel[1]) * p.dilation[1]
    weights = (p.taps, p.lanes * p.inner * p.taps)
    return Sums(layout, part, _meets(at, layout, part), p.lanes, p.inner, weights)


def _pays(p: Problem, sums: Sums | None) -> bool:
    """Whether the gathered product takes more time."""
    if sums is None:
        return False
    layout, part, spans, inner, lanes, _ = sums
    planes, P, Q, pitch = part.grid
    room, split = _room(layout, inner), max(layout.phases) > 1
    width, half = _vector(lanes, p.itemsize)
    rows, columns = tile_of(lanes, p.itemsize)
    each = spans[1::2].mean() + 20  # steps of a pixel's sums; the rest: transposing, and writing tiles
    direct = _up(lanes, width) * (HALF_COST if half else 1) * P * Q * each
    direct += SPLIT_TERMS[layout.phases[1] > LARGEST_UNROLLED] * room / planes if split else 0
    gathered = _up(lanes, rows) * _up((P - 1) * pitch + Q, columns) * (part.offsets.size + 25)
    return bool(
        direct <= gathered and p.x[0] * p.groups >= LEAST_IMAGES[split] and room * p.itemsize <= MOST_IMAGE_BYTES
    )


def _by_rows(table: np.ndarray, inner: int, kernel: tuple) -> np.ndarray:
    """Returns a table of taps (inner, *kernel) in an order where those of one row of the kernel are together."""
    return table.reshape(inner, *kernel).transpose(2, 0, 1, 3).reshape(-1)


def _plan(p: Problem, sums: Sums | None, padded: bool, otherwise: Callable) -> LaunchPlan | None:
    """padded: whether weights may meet zeros that are no elements of the image."""
    if sums is None:
        return None
    draft, (layout, part, spans, inner, lanes, weights) = Draft(p), sums
    (planes, P, Q, _), taps, room = part.grid, part.offsets.size, _room(layout, inner)
    width, half = _vector(lanes, p.itemsize)
    panels = p.groups * -(-lanes // width)
    packed, spoiled = draft.room(panels * width * (taps + 1)), draft.room(panels)
    bias, table = draft.bias(p.groups * lanes), draft.constant(_by_rows(part.table, inner, p.kernel))
    cut = (p.groups, lanes, width, *weights, Workers(2 * panels * width * taps))
    draft.run(pack_direct_weights, SECOND, bias, table, packed, spoiled, *cut, once=True)
    if padded:
        draft.require_finite(spoiled, panels, otherwise)
    block = min(P, max(2, BLOCK_PIXELS // Q // 2 * 2))
    images = draft.room(room, each_worker=True) if room else FIRST
    offsets = draft.constant(_by_rows(part.offsets, inner, p.kernel))
    draft.run(
        convolve_direct, FIRST, images, packed, offsets, draft.constant(spans), RESULT,
        draft.room(block * Q * width, each_worker=True), layout.layout, room > 0, part.grid, part.step,
        (inner, lanes, width, block, longest_run(p.itemsize), p.groups), half,
        Workers(2 * FLOP_NS * p.x[0] * p.groups * lanes * planes * P * Q * taps),
    )  # fmt: skip
    return draft.plan()


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = bias + w * x. By the definition where weights that are not finite would meet padding."""
    return _plan(p, _outputs(p), any(p.padding), reference.forward)


def forward_pays(p: Problem) -> bool:
    """Whether it pays: where it multiplies less."""
    return _pays(p, _outputs(p))


def input_grad(p: Problem) -> LaunchPlan | None:
    """Plans dx from dy and w with stride 1; dy always has zeros around it."""
    return _plan(p, _inputs(p), True, reference.input_grad)


def input_grad_pays(p: Problem) -> bool:
    """Whether it pays: where it multiplies less."""
    return _pays(p, _inputs(p))


# ---- gradients of weights -----------------------------------------------------------------------------------------------
class Taps(NamedTuple):
    """What a weight's gradient needs to know of the shapes: where rows of taps begin in the image, and which taps they are."""

    layout: tables.Image
    part: tables.Part
    rows: np.ndarray
    which: np.ndarray


def _runs(offsets: np.ndarray, longest: int) -> list[np.ndarray]:
    """Returns the taps of a row, at ``offsets``, in runs of neighbours; of a run cut in several the last begins in the one before."""
    order = np.argsort(offsets, kind="stable")
    runs = []
    for run in np.split(order, np.flatnonzero(np.diff(offsets[order]) != 1) + 1):
        length = -(-run.size // -(-run.size // longest))
        runs += [run[min(at, run.size - length) :][:length] for at in range(0, run.size, length)]
    return runs


def _rows_of_taps(offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where runs of taps begin, from the first in memory to the last, and (runs, taps of the longest) which taps they are, -1 for
    those that are another run's."""
    runs = _runs(offsets[0], longest)
    which = np.full((len(offsets), len(runs), max(run.size for run in runs)), -1)
    for i, run in enumerate(runs):
        new = ~np.isin(run, np.concatenate([run[:0], *runs[:i]]))
        first = np.arange(len(offsets))[:, None] * offsets.shape[1]
        which[:, i, : run.size] = np.where(new, first + run, -1)
    starts = np.ascontiguousarray(offsets[:, [run[0] for run in runs]]).reshape(-1)
    order = np.argsort(starts, kind="stable")
    return starts[order], which.reshape(starts.size, -1)[order]


def _taps(p: Problem) -> Taps:
    layout, part = tables.forward(p.x[2:], p.inner, p.kernel, *p.window, 1)
    return Taps(layout, part, *_rows_of_taps(part.offsets.reshape(-1, p.kernel[2]), longest_run(p.itemsize)))


def weight_grad_pays(p: Problem) -> bool:
    """Whether it pays: where it multiplies less than the gathered product, dw is small and there are images for it."""
    if p.empty or p.x[0] < IMAGES_FOR_SUMS or p.w[0] * p.inner * p.taps > MOST_WEIGHTS:
        return False
    layout, part, rows, taps = _taps(p)
    planes, height, across, pitch = part.grid
    width, half = _vector(p.lanes, p.itemsize)
    (many, some), pixels = dots_shape(), planes * height * across
    steps = (
        max(2 * taps.shape[1], 4) * pixels * (HALF_COST / 2 if half else 1) + 40
    )  # of a tile; four sums hide the latency
    direct = -(-p.lanes // width) * -(-rows.size // 2) * steps
    dots = planes * (height * pitch * p.itemsize / vector_bytes() + 4)
    dots *= _up(p.lanes, many) * _up(part.offsets.size, some)
    return direct <= dots and _room(layout, p.inner) * p.itemsize <= MOST_IMAGE_BYTES


def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw from x and dy. By the definition where cotangents that are not finite met padding."""
    if p.empty:
        return None
    draft, (layout, part, rows, taps) = Draft(p), _taps(p)
    planes, height, across, pitch = part.grid
    width, half = _vector(p.lanes, p.itemsize)
    pixels, room, run = planes * height * across, _room(layout, p.inner), taps.shape[1]
    places = np.add.outer(np.arange(planes) * part.step, np.arange(height) * pitch)
    places = np.add.outer(places, np.arange(across)).reshape(-1)
    each, piece = -(-p.x[0] // 16), -(-pixels // -(-pixels // BLOCK_PIXELS))
    sums = -(-p.x[0] // each) * p.groups * -(-p.lanes // width) * taps.size * width
    draft.run(
        direct_weight_grad, FIRST, SECOND, draft.room(room, each_worker=True) if room else FIRST, draft.constant(rows),
        draft.constant(places), draft.constant(taps.reshape(-1)), RESULT, draft.room(sums, "float64"),
        draft.room((piece + 1 + 2 * run) * width, each_worker=True), layout.layout, room > 0,
        (p.x[0], each, p.groups, p.inner, p.lanes, width, run, piece), half,
        Workers(2 * FLOP_NS * p.x[0] * p.groups * p.lanes * pixels * part.offsets.size),
    )  # fmt: skip
    if any(p.padding):
        draft.require_finite(RESULT, p.w[0] * p.inner * p.taps, reference.weight_grad)
    return draft.plan()
