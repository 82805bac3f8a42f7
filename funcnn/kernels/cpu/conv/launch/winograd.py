"""When Winograd's convolution applies on the CPU, and the memory that it works in."""

from __future__ import annotations

from math import prod

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.launch import gather
from funcnn.kernels.cpu.conv.launch.draft import FIRST, FLOP_NS, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.conv.winograd import GAP_ELEMENTS, winograd_forward, winograd_weight_grad, winograd_weights
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.tiles import strided_shape
from funcnn.kernels.launch import Array, LaunchPlan, Workers

BLOCK_BYTES = 3 << 20  # for the transformed patches of a block
VOLUME_BYTES = 32 << 20  # for those of a volume
# What a patch of one channel costs, in multiply-adds of the others' products: plain, and dilated.
PATCH_TERMS = 2500, 3300
# What a multiply-add of the gathered product costs, its grid and all; of weight gradients.
GATHERED_TERMS, WEIGHTS_TERMS = 1.16, 1.6
EDGE_PIXELS = 10  # of a plane that other products do for nothing
LEAST_PIXELS = 128  # of a batch


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


class Patches:
    """The sizes of one call: patches of m x m outputs, channels of one group, and scratch memory for them.

    There are as many images as planes of all volumes, times what the dilation makes of each. shape, out: of what is given and
    made, (N, C, D, H, W). before: the padding.
    """

    def __init__(self, draft: Draft, shape: tuple, out: tuple, before: tuple):
        p = draft.problem
        channels, planes, outputs, goal = *shape[1:3], *out[1:3]
        self.draft, self.sizes, self.out, self.before = draft, shape[1:], out[1:], before[1:]
        self.taps, self.groups, self.apart = p.kernel[0], p.groups, p.dilation[1:]
        height, width = (-(-size // d) for size, d in zip(out[3:], self.apart, strict=True))
        self.m = 4 if min(height, width) > 2 else 2
        self.down, self.across = -(-height // self.m), -(-width // self.m)
        self.lanes, self.tile = vector_bytes() // p.itemsize, strided_shape(p.itemsize)
        self.places = (self.m + 2) ** 2
        self.c, self.k = channels // p.groups, outputs // p.groups
        self.width, self.row = _up(self.c, self.lanes), _up(self.k, self.tile[1])
        each = self.apart[0] * self.apart[1] * self.down * self.across  # patches of a plane
        given, made = shape[0] * planes * each, shape[0] * goal * each
        if self.taps == 1:
            self.depth = (1, 1, 1, 0, 1)
            fitting = BLOCK_BYTES // (self.places * (self.width + self.row) * p.itemsize)
            block = min(max(_up(fitting, self.tile[0]), 8 * self.tile[0]), _up(made, self.tile[0]))
            self.blocks = (block, block, given, made)
        else:
            self.depth = (planes, goal, self.taps, before[0], p.dilation[0])
            self.blocks = (planes * each, goal * each, given, made)
        self.many = max(1, -(-min(self.blocks[:2]) // 16))
        self.work = Workers(FLOP_NS * 2 * self.places * made * self.c * outputs * self.taps)

    def layout(self, channels: int, halo: int) -> tuple:
        """Returns the padded image: height, width, channels, patches across and down, lanes."""
        height, width = self.m * self.down + halo, self.m * self.across + halo
        return (height, width, _up(channels, self.lanes), self.across, self.down, self.lanes)

    def image(self, layout: tuple, patches: int) -> Array:
        """Returns memory for all images, which have so many patches."""
        images = patches // (self.down * self.across)
        return self.draft.room(images * layout[0] * layout[1] * layout[2] + 2 * self.lanes)

    def block(self, width: int, patches: int) -> Array:
        """Returns memory for so many transformed patches of ``width`` channels, and for the tile that the last may not fill."""
        tiles = _up(patches, self.tile[0]) + self.tile[0] * (self.taps > 1)
        return self.draft.room(self.places * (tiles * width + GAP_ELEMENTS) + self.tile[1])

    def scratch(self) -> Array:
        """Returns memory for a patch of a vector of channels, for each worker."""
        return self.draft.room(32 * self.lanes, each_worker=True)

    def weights(self, table: np.ndarray, steps: tuple[int, int]) -> Array:
        """Returns the weights in panels of output channels, each 3 x 3 kernel transformed; ``table`` orders their taps.

        Weights that are not finite spoil the outputs.
        """
        draft, rows, channels = self.draft, self.tile[1], self.taps * self.c
        panels = self.row // rows
        packed, *_ = gather.packed_weights(
            draft, table, np.array([0, table.size]), self.groups, self.k, rows, steps
        )  # fmt: skip
        size = self.groups * panels * channels * self.places * rows
        result = draft.room(size)
        sizes = (self.m, self.groups, channels, panels, rows, self.lanes)
        draft.run(winograd_weights, packed, result, *sizes, Workers(size), once=True)
        return result


def _product(patches: Patches, table: np.ndarray, steps: tuple[int, int]) -> Array:
    """Returns the result from the first operand, and for each patch a number that is not 0 where it is not finite, and so not right."""
    draft, blocks = patches.draft, patches.blocks
    channels, outputs = patches.sizes[0], patches.out[0]
    layout, weights = patches.layout(channels, 2), patches.weights(table, steps)
    spoiled = draft.room(blocks[3], zeros=True)
    draft.run(
        winograd_forward, FIRST, weights, draft.bias(outputs), RESULT, patches.image(layout, blocks[2]),
        patches.block(patches.width, blocks[0]), patches.block(patches.row, blocks[1]), patches.scratch(), spoiled, patches.m,
        patches.groups, patches.tile, blocks, patches.many, patches.sizes, patches.out, patches.depth, patches.before,
        patches.apart, layout, patches.work,
    )  # fmt: skip
    return spoiled


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = bias + w * x. By the gathered product where a number of it is not finite."""
    if not _fits(p):
        return None
    patches = Patches(Draft(p), p.x, p.y, p.padding)
    table = tables.by_depth(patches.c, patches.taps)
    spoiled = _product(patches, table, (table.size, patches.k * table.size))
    patches.draft.require_finite(spoiled, patches.blocks[3], gather.forward)
    return patches.draft.plan()


def input_grad(p: Problem) -> LaunchPlan | None:
    """Returns the forward pass of dy with the taps reversed, inputs and outputs exchanged."""
    around = tuple(d * (k - 1) - before for before, d, k in zip(p.padding, p.dilation, p.kernel, strict=True))
    if not _fits(p) or min(around) < 0:
        return None
    patches, each = Patches(Draft(p), p.y, p.x, around), p.inner * p.taps
    table = tables.reversed_by_depth(patches.c, patches.taps, each)
    spoiled = _product(patches, table, (p.taps, patches.c * each))
    patches.draft.require_finite(spoiled, patches.blocks[3], gather.input_grad)
    return patches.draft.plan()


def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw of a convolution with stride 1. By the gathered product where a number of it is not finite."""
    if not _fits(p):
        return None
    patches = Patches(Draft(p), p.x, p.y, p.padding)
    draft, blocks = patches.draft, patches.blocks
    layout, around = patches.layout(p.x[1], 2), patches.layout(p.w[0], 0)
    wide = _up(patches.c, patches.tile[0])
    dU = draft.room(patches.places * (patches.taps * wide * patches.row + GAP_ELEMENTS))
    draft.run(
        winograd_weight_grad, FIRST, SECOND, RESULT, patches.image(layout, blocks[2]), patches.image(around, blocks[3]),
        patches.block(patches.width, blocks[0]), patches.block(patches.row, blocks[1]), dU, patches.scratch(), patches.m,
        patches.groups, patches.tile, blocks, patches.many, patches.sizes, patches.out, patches.depth, patches.before,
        patches.apart, layout, around, patches.work,
    )  # fmt: skip
    draft.require_finite(RESULT, p.w[0] * p.inner * p.taps, gather.weight_grad)
    return draft.plan()


def _fits(p: Problem) -> bool:
    """Whether it is 3 x 3 with stride 1; not for float32 where the highest precision is wanted."""
    exact = p.precision == "highest" and p.dtype == np.float32
    return p.dims > 1 and p.kernel[1:] == (3, 3) and max(p.stride) == 1 and not p.empty and not exact


def fewer_products(channels: int, lanes: int, deep: int, out: tuple, dilation: tuple, others: float) -> bool:
    """Whether fewer products are worth the transforms, for outputs (P, Q) of one group: not for few channels, nor where
    patches are half empty.

    others: what a multiply-add costs that is done as it is, grid and all, measured in those of whole tiles.
    """
    rows, columns = (-(-size // d) for size, d in zip(out, dilation, strict=True))
    m = 4 if min(rows, columns) > 2 else 2
    patches = -(-rows // m) * -(-columns // m) * dilation[0] * dilation[1]
    transforms = PATCH_TERMS[max(dilation) > 1] * m * m / 16 * (channels + lanes)
    plain = others * (out[0] * out[1] + EDGE_PIXELS) * 9 * channels * lanes * deep
    return patches * ((m + 2) ** 2 * channels * lanes * deep + transforms) < plain


def _pays(p: Problem, given: tuple, out: tuple, others: float) -> bool:
    """Whether there are enough channels and pixels to pay for the transforms, of what is given and made, and a gradient of the same kind.

    Taps in depth need a whole volume's patches at a time in memory, which should not be much larger than the caches.
    """
    if not _fits(p) or min(p.inner, p.lanes) < 16 or given[0] * prod(given[2:]) < LEAST_PIXELS:
        return False
    area = zip(p.padding[1:], p.dilation[1:], given[3:], strict=True)
    if any(before > 2 * d or size <= 3 * d for before, d, size in area):
        return False
    if not fewer_products(p.inner, p.lanes, p.kernel[0], out[3:], p.dilation[1:], others):
        return False
    if p.dims == 2:
        return True
    fits = 3 * p.itemsize * prod(given[2:]) * max(p.inner, p.lanes) <= VOLUME_BYTES
    return p.padding[0] <= (p.kernel[0] - 1) * p.dilation[0] and fits


def forward_pays(p: Problem) -> bool:
    """Whether it pays for outputs."""
    return _pays(p, p.x, p.y, GATHERED_TERMS)


def input_grad_pays(p: Problem) -> bool:
    """Whether it pays for gradients of inputs."""
    return _pays(p, p.y, p.x, GATHERED_TERMS)


def weight_grad_pays(p: Problem) -> bool:
    """Whether it pays for gradients of weights."""
    return _pays(p, p.x, p.y, WEIGHTS_TERMS)
