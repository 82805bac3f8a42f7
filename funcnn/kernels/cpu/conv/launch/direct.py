"""When direct convolution applies on the CPU, and what its kernels are told: plans, made once for each combination of shapes.

It is for batches of images small enough for a worker's cache, and is chosen where it multiplies less: whole vectors
of channels for the pixels that there are, against eight channels of whole tiles of the image's grid.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.direct import convolve_direct
from funcnn.kernels.cpu.conv.direct_tile import longest_run
from funcnn.kernels.cpu.conv.direct_weight import direct_weight_grad
from funcnn.kernels.cpu.conv.gather import SLACK
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.gather import ENOUGH, FLOP_NS, SMALL, tile_of
from funcnn.kernels.cpu.conv.launch.volume import bias_of, three, where_of
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.split import UNROLLED
from funcnn.kernels.cpu.vector.tiles import dots_shape

IMAGES = 16, 8  # images times groups at least, one a chunk: of plain ones, and of those split by phase
ROOM = 1 << 20  # bytes of one group of one image at most
BLOCK = 256  # pixels at a time, so that those of a vector of channels stay in the first-level cache
SPLIT = 15, 45  # what a number costs that is split by phase, in multiply-adds: with shuffles, and one by one
HALF = 1.2  # what a multiply-add of half a vector costs, in halves of a whole one's


class Plan(NamedTuple):
    """What outputs, or an input's gradient, need to know of the shapes; the names are those of the kernel."""

    table: np.ndarray
    offsets: np.ndarray
    spans: np.ndarray
    layout: tuple
    copied: bool
    grid: tuple
    step: int
    sizes: tuple
    weights: tuple
    half: bool
    padded: bool  # whether weights may meet zeros that are no numbers of the image: always, for input gradients
    room: int  # numbers of the image that a worker copies
    panels: int
    scratch: int  # numbers for a worker
    work: float  # nanoseconds on one thread


class WeightPlan(NamedTuple):
    """What a weight's gradient needs to know of the shapes."""

    rows: np.ndarray
    places: np.ndarray
    taps: np.ndarray
    layout: tuple
    copied: bool
    sizes: tuple
    half: bool
    room: int
    sums: int
    scratch: int
    work: float


def _vector(channels: int, itemsize: int) -> tuple[int, bool]:
    """Numbers of a vector for so many channels, and whether it is a half one."""
    lanes = vector_bytes() // itemsize
    half = channels <= lanes // 2
    return lanes // 2 if half else lanes, half


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _room(layout: tables.Image, inner: int) -> int:
    return 0 if layout.direct else inner * layout.size + SLACK


# ---- outputs, and gradients of inputs -----------------------------------------------------------------------------------
def _by_rows(table: np.ndarray, inner: int, kernel: tuple) -> np.ndarray:
    """A table of taps (inner, *kernel) in an order where those of one row of the kernel are together."""
    return np.ascontiguousarray(table.reshape(inner, *three(kernel)).transpose(2, 0, 1, 3)).reshape(-1)


def _spans(met: np.ndarray, row: int) -> np.ndarray:
    """For each two rows of outputs the first tap, and how many, of the rows of the kernel that meet the image.

    met: where each row of the kernel falls for each row of outputs: (P, rows) of whether that is a row of the image.
    """
    first = np.arange(0, len(met), 2)
    some = met[first] | met[np.minimum(first + 1, len(met) - 1)]
    low, high = some.argmax(1), some.shape[1] - some[:, ::-1].argmax(1)
    empty_ones = ~some.any(1)  # all is padding, and one row of it is enough
    return np.stack([low, np.where(empty_ones, 1, high - low)], 1).reshape(-1) * row


def _plan(n: int, layout: tables.Image, part: tables.Part, kernel: tuple, met: np.ndarray, inner: int, lanes: int,
          groups: int, weights: tuple, padded: bool, itemsize: int) -> Plan | None:  # fmt: skip
    """The plan for ``lanes`` channels a group from ``inner``, or None where the gathered product takes less time."""
    planes, P, Q, pitch = part.grid
    taps, room, spans = part.offsets.size, _room(layout, inner), _spans(met, part.offsets.size // met.shape[1])
    width, half = _vector(lanes, itemsize)
    rows, columns = tile_of(lanes, itemsize)
    each = spans[1::2].mean() + 20  # steps of a pixel's sums; the rest: turning, and writing tiles
    direct = _up(lanes, width) * (HALF if half else 1) * P * Q * each + (
        SPLIT[layout.phases[1] > UNROLLED] * room / planes if max(layout.phases) > 1 else 0
    )
    gathered = _up(lanes, rows) * _up((P - 1) * pitch + Q, columns) * (taps + 25)
    if direct > gathered or n * groups < IMAGES[max(layout.phases) > 1] or room * itemsize > ROOM:
        return None
    block = min(P, max(2, BLOCK // Q // 2 * 2))
    sizes = (inner, lanes, width, block, longest_run(itemsize), groups)
    work = 2 * FLOP_NS * n * groups * lanes * planes * P * Q * taps
    return Plan(
        _by_rows(part.table, inner, kernel), _by_rows(part.offsets, inner, kernel), spans, layout.layout, room > 0, part.grid,
        part.step, sizes, weights, half, padded, room, groups * -(-lanes // width), block * Q * width, work,
    )  # fmt: skip


@lru_cache(512)
def _forward_plan(
    x: tuple, w: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> Any:
    if 0 in x or 0 in w:
        return None
    where, inner, lanes = where_of(stride, padding, dilation), w[1], w[0] // groups
    layout, part = tables.forward(three(x[2:]), inner, three(w[2:]), *where, 1)
    taps, (step, before, apart) = part.offsets.size, (axis[1] for axis in where)
    at = np.arange(part.grid[1])[:, None] * step - before + np.arange(three(w[2:])[1]) * apart
    met = (at >= 0) & (at < layout.sizes[1])
    return _plan(x[0], layout, part, w[2:], met, inner, lanes, groups, (taps, lanes * taps), any(padding), itemsize)


@lru_cache(512)
def _input_grad_plan(
    dy: tuple, w: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> Any:
    if 0 in dy or 0 in w or 0 in size or max(stride) > 1:
        return None
    where, channels, lanes = where_of(stride, padding, dilation), w[1], w[0] // groups
    layout, (part,) = tables.input_grad(three(size), three(dy[2:]), lanes, channels, three(w[2:]), *where)
    taps, (_, before, apart) = prod(w[2:]), (axis[1] for axis in where)
    at = np.arange(part.grid[1])[:, None] + before - np.arange(three(w[2:])[1]) * apart
    met, weights = (at >= 0) & (at < layout.sizes[1]), (taps, lanes * channels * taps)
    return _plan(dy[0], layout, part, w[2:], met, lanes, channels, groups, weights, True, itemsize)


def _product(plan: Plan, ins: list, outs: list) -> bool:
    """The output from an array of images, weights and perhaps a bias; False where it is not right."""
    x, w, y = np.ascontiguousarray(ins[0]).reshape(-1), np.ascontiguousarray(ins[1]).reshape(-1), outs[0]
    work = threads.workers(plan.work)
    packed = empty((plan.panels * plan.sizes[2] * (plan.offsets.size + 1),), y.dtype)
    return convolve_direct(
        x, empty((work * plan.room,), y.dtype) if plan.copied else x, w, bias_of(ins, y), plan.table, packed,
        fresh(plan.panels, y.dtype), plan.offsets, plan.spans, y.reshape(-1), empty((work * plan.scratch,), y.dtype),
        plan.layout, plan.copied, plan.grid, plan.step, plan.sizes, plan.weights, plan.half, plan.padded, work,
    )  # fmt: skip


def forward(ins: list, outs: list, **where: Any) -> None:
    """y = bias + w * x. By the definition where weights that are not finite would meet padding."""
    plan = _forward_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].itemsize, **where)
    if not _product(plan, ins, outs):
        reference.forward(ins, outs, **where)


def input_grad(ins: list, outs: list, **where: Any) -> None:
    """dx from dy and w."""
    plan = _input_grad_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].itemsize, **where)
    if not _product(plan, ins, outs):
        reference.input_grad(ins, outs, **where)


# ---- gradients of weights -----------------------------------------------------------------------------------------------
def _runs(offsets: np.ndarray, longest: int) -> list[np.ndarray]:
    """The taps of a row, at ``offsets``, in runs of neighbours; of a run cut in several the last begins in the one before."""
    order = np.argsort(offsets, kind="stable")
    runs = []
    for run in np.split(order, np.flatnonzero(np.diff(offsets[order]) != 1) + 1):
        length = -(-run.size // -(-run.size // longest))
        runs += [run[min(at, run.size - length) :][:length] for at in range(0, run.size, length)]
    return runs


def _rows_of_taps(offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of taps begin, and (runs, taps of the longest) which taps they are, -1 for those that are another run's."""
    runs = _runs(offsets[0], longest)
    which = np.full((len(offsets), len(runs), max(run.size for run in runs)), -1)
    for i, run in enumerate(runs):
        new = ~np.isin(run, np.concatenate([run[:0], *runs[:i]]))
        first = np.arange(len(offsets))[:, None] * offsets.shape[1]
        which[:, i, : run.size] = np.where(new, first + run, -1)
    starts = np.ascontiguousarray(offsets[:, [run[0] for run in runs]]).reshape(-1)
    return starts, which.reshape(starts.size, -1)


@lru_cache(512)
def _weight_plan(
    x: tuple, dy: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int, itemsize: int
) -> Any:
    where, inner, lanes = where_of(stride, padding, dilation), x[1] // groups, dy[1] // groups
    if x[0] < ENOUGH or not 0 < dy[1] * inner * prod(size) <= SMALL or 0 in dy or 0 in x:
        return None
    layout, part = tables.forward(three(x[2:]), inner, three(size), *where, 1)
    rows, taps = _rows_of_taps(part.offsets.reshape(-1, size[-1]), longest_run(itemsize))
    planes, height, across, pitch = part.grid
    width, half = _vector(lanes, itemsize)
    (many, some), pixels, room = dots_shape(), planes * height * across, _room(layout, inner)
    panels = -(-lanes // width)
    steps = max(2 * taps.shape[1], 4) * pixels * (HALF / 2 if half else 1) + 40  # of a tile; four sums hide the latency
    direct = panels * -(-rows.size // 2) * steps
    dots = _up(lanes, many) * _up(part.offsets.size, some) * planes * (height * pitch * itemsize / vector_bytes() + 4)
    if direct > dots or room * itemsize > ROOM:
        return None
    places = np.add.outer(np.arange(planes) * part.step, np.arange(height) * pitch)
    places = np.add.outer(places, np.arange(across)).reshape(-1)
    each, piece = -(-x[0] // 16), -(-pixels // -(-pixels // BLOCK))
    sizes = (x[0], each, groups, inner, lanes, width, taps.shape[1], piece)
    sums, scratch = -(-x[0] // each) * groups * panels * taps.size * width, (piece + 1 + 2 * taps.shape[1]) * width
    work = 2 * FLOP_NS * x[0] * groups * lanes * pixels * part.offsets.size
    return WeightPlan(
        rows, places, taps.reshape(-1), layout.layout, room > 0, sizes, half, room, sums, scratch, work
    )  # fmt: skip


def weight_grad(ins: list, outs: list, **where: Any) -> None:
    """dw from x and dy. By the definition where cotangents that are not finite met padding."""
    x, dy, dw = np.ascontiguousarray(ins[0]).reshape(-1), np.ascontiguousarray(ins[1]).reshape(-1), outs[0]
    plan = _weight_plan(ins[0].shape, ins[1].shape, itemsize=dw.itemsize, **where)
    work = threads.workers(plan.work)
    direct_weight_grad(
        x, dy, empty((work * plan.room,), x.dtype) if plan.copied else x, plan.rows, plan.places, plan.taps, dw.reshape(-1),
        empty((plan.sums,), np.dtype(np.float64)), empty((work * plan.scratch,), x.dtype), plan.layout, plan.copied, plan.sizes,
        plan.half, work,
    )  # fmt: skip
    if any(where["padding"]) and not np.isfinite(dw).all() and not np.isfinite(dy).all():
        reference.weight_grad(ins, outs, **where)


# ---- when ---------------------------------------------------------------------------------------------------------------
def applies(ins: list, **where: Any) -> bool:
    """To outputs."""
    return _forward_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].dtype.itemsize, **where) is not None


def applies_to_input_grad(ins: list, **where: Any) -> bool:
    """To gradients of inputs: with stride 1."""
    return _input_grad_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].dtype.itemsize, **where) is not None


def applies_to_weight_grad(ins: list, **where: Any) -> bool:
    """To gradients of weights."""
    return _weight_plan(ins[0].shape, ins[1].shape, itemsize=ins[0].dtype.itemsize, **where) is not None
