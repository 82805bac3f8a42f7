"""Convolution and its two gradients by the gathered product, which serves every shape that is not empty."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS, convolve, convolve_images, copy_image, fill_pixels
from funcnn.kernels.cpu.conv.gather_weight import convolve_weight_grad, image_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.draft import FIRST, FLOP_NS, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.conv.packing import pack_weights
from funcnn.kernels.cpu.conv.phases import convolve_phases
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.threads.number import available
from funcnn.kernels.cpu.vector.tiles import FEW_ROWS, dots_shape, few_shape
from funcnn.kernels.launch import Array, LaunchPlan, Workers

COPY_NS = 0.3  # nanoseconds an element for the copies
IMAGES_FOR_SUMS = 8  # images from which a weight gradient is summed by images
MOST_WEIGHTS = 1 << 16  # weights whose gradient every chunk of images can sum up for itself


def tile_of(lanes: int, itemsize: int) -> tuple[int, int]:
    """Returns rows and columns of the tile for so many output channels of a group."""
    return few_shape(itemsize) if lanes <= FEW_ROWS else tile_shape(itemsize)


def copied_planes(draft: Draft, x: Array, planes: int, image: tables.Image) -> Array:
    """Returns all planes of x in the image's layout."""
    if image.direct:
        return x
    size = planes * image.size + SLACK_ELEMENTS
    spacious = draft.room(size)
    draft.run(copy_image, x, spacious, planes, image.layout, Workers(COPY_NS * size))
    return spacious


def packed_weights(
    draft: Draft, table: np.ndarray, ends: np.ndarray, groups: int, lanes: int, rows: int, steps: tuple[int, int]
) -> tuple[Array, Array, int]:
    """Returns the weights in panels of ``rows`` lanes, part for part, a number for each panel, not 0 if a weight is not finite, and how
    many these are.

    steps: in w, from one lane and one group to the next.
    """
    panels, parts = groups * -(-lanes // rows), ends.size - 1
    packed, spoiled = draft.room(panels * rows * table.size), draft.room(panels * parts)
    args = (SECOND, draft.constant(table), draft.constant(ends), packed, spoiled, groups, lanes, rows, *steps)
    draft.run(pack_weights, *args, Workers(2 * panels * rows * table.size), once=True)
    return packed, spoiled, panels * parts


class Product:
    """A result of ``lanes`` channels a group, with planes of ``out``, from the first operand's ``inner`` channels a group."""

    def __init__(self, draft: Draft, layout: tables.Image, parts: tables.Parts, inner: int, lanes: int, out: tuple):
        self.draft, self.layout, self.parts, self.inner, self.lanes = draft, layout, parts, inner, lanes
        p = draft.problem
        self.batch, self.groups, self.plane = p.x[0], p.groups, prod(out)
        self.tile = tile_of(lanes, p.itemsize)
        self.bias = draft.bias(self.groups * lanes)
        self.size = self.batch * self.groups * lanes * self.plane

    def launch(self, packed: Array) -> None:
        """Plans from packed weights of all parts, by images where each worker gets some.

        Both ways add the same elements in the same order, so the choice may depend on the CPUs.
        """
        enough = self.batch * self.groups >= min(max(2 * available(), 4), 16)
        if self.layout.direct or not enough:
            self._by_tiles(packed)
        elif len(self.parts.each) > 1 and self.lanes > FEW_ROWS and tables.alike(self.parts.each):
            self._all_phases(packed)
        else:
            self._by_images(packed)

    def _work(self) -> Workers:
        return Workers(2 * FLOP_NS * self.size * self.parts.offsets.size // len(self.parts.each))

    def _image(self) -> Array:
        """Returns room for a group of an image, for each worker."""
        return self.draft.room(self.inner * self.layout.size + SLACK_ELEMENTS, each_worker=True)

    def _by_images(self, packed: Array) -> None:
        draft, scratch = self.draft, self.draft.room(self.tile[0] * self.tile[1], each_worker=True)
        draft.run(
            convolve_images, FIRST, self._image(), packed, draft.constant(self.parts.offsets), self.bias, RESULT, scratch,
            self.tile, self.lanes, self.layout.layout, self.inner, draft.constant(self.parts.rows),
            (self.groups * self.lanes * self.plane, self.plane, self.groups), self.batch, self._work(),
        )  # fmt: skip

    def _all_phases(self, packed: Array) -> None:
        """Plans by images, all parts together: what they write is interleaved."""
        draft, parts, first, row = self.draft, self.parts, self.parts.each[0], self.parts.rows[0].tolist()
        scratch = draft.room(len(parts.each) * self.tile[0] * self.tile[1], each_worker=True)
        strides = (self.groups * self.lanes * self.plane, self.plane, *row[8:], self.groups, 0)
        draft.run(
            convolve_phases, FIRST, self._image(), packed, draft.constant(parts.offsets), draft.constant(parts.ends),
            draft.constant(parts.rows[:, 3]), self.bias, RESULT, scratch, self.tile, first.grid, self.lanes,
            self.layout.layout, first.step, self.inner, strides, self.batch, self._work(),
        )  # fmt: skip

    def _by_tiles(self, packed: Array) -> None:
        image = copied_planes(self.draft, FIRST, self.batch * self.groups * self.inner, self.layout)
        scratch = self.draft.room(self.tile[0] * self.tile[1], each_worker=True)
        each, first = self.groups * -(-self.lanes // self.tile[0]) * self.tile[0], 0
        for part, row in zip(self.parts.each, self.parts.rows.tolist(), strict=True):
            count = part.offsets.size * each
            self._part_by_tiles(image, part, row, packed._replace(shape=(count,), offset=first), scratch)
            first += count

    def _part_by_tiles(self, image: Array, part: tables.Part, row: list, packed: Array, scratch: Array) -> None:
        draft, (rows, columns), n = self.draft, self.tile, self.batch
        planes, height, width, pitch = part.grid
        pixel_tiles, lane_tiles = -(-((height - 1) * pitch + width) // columns), -(-self.lanes // rows)
        flops = 2 * columns * rows * part.offsets.size  # of one tile
        each = max(1, min(pixel_tiles, int(4e6 / (flops * lane_tiles))))
        many = n * planes * self.groups * -(-pixel_tiles // each)
        deep = lane_tiles if many >= 8 else -(-lane_tiles // 8)
        blocks = (-(-pixel_tiles // each), each, -(-lane_tiles // deep), deep)
        steps = (self.groups * self.inner * self.layout.size, self.inner * self.layout.size, part.step)
        strides = (self.groups * self.lanes * self.plane, self.plane, *row[8:], self.groups, row[3])
        work = Workers(FLOP_NS * flops * pixel_tiles * lane_tiles * self.groups * n * planes)
        draft.run(
            convolve, image, packed, draft.constant(part.offsets), self.bias, RESULT, scratch, self.tile, part.grid, self.lanes,
            blocks, steps, strides, n, work,
        )  # fmt: skip


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = w * x + bias. By the definition where weights that are not finite would meet padding."""
    if p.empty:
        return None
    draft, taps, tile = Draft(p), p.inner * p.taps, tile_of(p.lanes, p.itemsize)
    layout, parts = tables.forward_parts(p.x[2:], p.inner, p.kernel, *p.window, tile[1])
    ways = (p.groups, p.lanes, tile[0], (taps, p.lanes * taps))
    packed, spoiled, many = packed_weights(draft, parts.table, parts.ends, *ways)
    if any(p.padding):
        draft.require_finite(spoiled, many, reference.forward)
    Product(draft, layout, parts, p.inner, p.lanes, p.y[2:]).launch(packed)
    return draft.plan()


def input_grad(p: Problem) -> LaunchPlan | None:
    """Plans dx from dy and w, one part for each phase of the stride. By the definition where weights are not finite."""
    if p.empty:
        return None
    draft, tile = Draft(p), tile_of(p.inner, p.itemsize)
    layout, parts, untouched = tables.input_grad_parts(p.x[2:], p.y[2:], p.lanes, p.inner, p.kernel, *p.window)
    product = Product(draft, layout, parts, p.lanes, p.inner, p.x[2:])
    if parts.each:
        ways = (p.groups, p.inner, tile[0], (p.taps, p.lanes * p.inner * p.taps))
        packed, spoiled, many = packed_weights(draft, parts.table, parts.ends, *ways)
        draft.require_finite(spoiled, many, reference.input_grad)
        product.launch(packed)
    if len(untouched):
        sizes = (p.x[0] * p.x[1], p.x[1], product.plane)
        draft.run(fill_pixels, product.bias, RESULT, draft.constant(untouched), sizes, Workers(COPY_NS * product.size))
    return draft.plan()


# ---- gradients of weights -----------------------------------------------------------------------------------------------
def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw from x and dy by dot products along the pixels. By the definition where it is not finite: such elements of x or dy
    may have met padding or gaps."""
    if p.empty:
        return None
    draft, vector = Draft(p), vector_bytes() // p.itemsize
    sizes: Any = (p.x[2:], p.inner, p.kernel, *p.window)
    layout, part = tables.forward(*sizes, vector)
    around = tables.cotangent(p.y[2:], part.grid[3], vector)
    if layout.direct and not around.direct:  # the last vector would read beyond x
        layout, part = tables.forward(*sizes, tables.COPY_EVERY_IMAGE)
    by_images = p.w[0] * p.inner * p.taps <= MOST_WEIGHTS and p.x[0] >= IMAGES_FOR_SUMS
    (_dots_by_images if by_images else _dots_by_tiles)(draft, layout, around, part)
    draft.require_finite(RESULT, p.w[0] * p.inner * p.taps, reference.weight_grad)
    return draft.plan()


def _tiles(draft: Draft, part: tables.Part, around: tables.Image) -> tuple[Array, Array, int]:
    """Returns where channels of dy and rows of the image begin, repeated to whole tiles, and pixels at a time."""
    (many, each), p = dots_shape(), draft.problem
    places = draft.constant(tables.repeated(around.size, p.lanes, many))
    piece = tables.pieces(around.slice_size, vector_bytes() // p.itemsize)
    return places, draft.constant(tables.to_tiles(part.offsets, each)), piece


def _dots_by_images(draft: Draft, layout: tables.Image, around: tables.Image, part: tables.Part) -> None:
    p, (many, each) = draft.problem, dots_shape()
    rows, n = part.offsets.size, p.x[0]
    images = -(-n // 16)  # of a chunk
    sizes = (p.lanes, rows, p.inner, n, part.grid[0], around.slice_size, images)
    work = Workers(2 * FLOP_NS * p.w[0] * rows * n * part.grid[0] * around.slice_size)
    room = draft.room(p.inner * layout.size + p.lanes * around.size + 2 * SLACK_ELEMENTS, each_worker=True)
    tiles = p.groups * -(-p.lanes // many) * -(-rows // each)
    sums = draft.room(-(-n // images) * tiles * many * each, "float64")
    places, offsets, piece = _tiles(draft, part, around)
    draft.run(
        image_weight_grad, FIRST, SECOND, room, places, offsets, RESULT, sums, (many, each), sizes, part.step, p.groups,
        piece, layout.layout, around.layout, work,
    )  # fmt: skip


def _dots_by_tiles(draft: Draft, layout: tables.Image, around: tables.Image, part: tables.Part) -> None:
    p, (many, each) = draft.problem, dots_shape()
    k, n, rows = p.w[0], p.x[0], part.offsets.size
    image = copied_planes(draft, FIRST, n * p.x[1], layout)
    cotangent = copied_planes(draft, SECOND, n * k, around)
    lane_tiles, row_tiles = -(-p.lanes // many), -(-rows // each)
    high = max(1, min(lane_tiles, 8))
    wide = max(1, min(row_tiles, -(-row_tiles * -(-lane_tiles // high) * p.groups // 16)))
    blocks = (-(-lane_tiles // high), high, -(-row_tiles // wide), wide)
    sizes = (p.lanes, rows, n, part.grid[0], around.slice_size)
    steps = (p.groups * p.inner * layout.size, p.inner * layout.size, part.step)
    beside = (k * around.size, p.lanes * around.size, around.slice_size)
    work = Workers(FLOP_NS * 2 * k * rows * sizes[2] * sizes[3] * sizes[4])
    scratch = draft.room(high * wide * many * each, "float64", each_worker=True)
    places, offsets, piece = _tiles(draft, part, around)
    draft.run(
        convolve_weight_grad, image, cotangent, places, offsets, RESULT, scratch, (many, each), blocks, sizes,
        (*steps, *beside), p.groups, piece, work,
    )  # fmt: skip
