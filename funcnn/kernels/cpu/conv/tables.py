"""Where the taps of a convolution lie in its padded, phase-split image: the tables that the kernels of ``gather`` read.

Everything here depends on shapes alone and is kept for the next call with the same ones.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS

Three = tuple[int, int, int]
COPY_EVERY_IMAGE = 1 << 62  # as the number of lanes: more pixels than any output has, so ``forward`` copies every image


class Image(NamedTuple):
    """How an array of planes (D, H, W) is laid out for ``copy_image``: see ``gather``'s page.

    direct: the array itself serves, without a copy. size: elements of one plane. places: depth, rows and pitch after
    padding and splitting.
    """

    sizes: tuple[int, ...]
    before: tuple[int, ...]
    places: tuple[int, ...]
    phases: tuple[int, int]
    slice_size: int
    direct: bool = False

    @property
    def size(self) -> int:
        return self.places[0] * self.slice_size

    @property
    def layout(self) -> tuple:
        """Returns what ``copy_image`` is told."""
        return self.sizes, self.before, self.places, self.phases, self.slice_size

    def offset(self, d: int, h: int, w: int) -> int:
        """Returns the place in a plane of padded element (d, h, w)."""
        sh, sw = self.phases
        _, rows, pitch = self.places
        return d * self.slice_size + (((h % sh) * sw + w % sw) * rows + h // sh) * pitch + w // sw


class Part(NamedTuple):
    """One product: the image's rows, the weights' order, and which outputs it makes.

    grid: planes, rows, columns of the output, and the image's pitch. step: from one plane to the next. phase: the first
    output element in each dimension; outputs are ``strides`` apart.
    """

    offsets: np.ndarray
    table: np.ndarray
    grid: tuple[int, ...]
    step: int
    phase: tuple[int, ...] = (0, 0, 0)
    strides: tuple[int, ...] = (1, 1, 1)


def _tail(last: int, pitch: int) -> int:
    """Zeros behind a slice, where SLACK_ELEMENTS is less than a row's last tap, at ``last``, reads there with a whole vector."""
    return max(0, last + 16 - SLACK_ELEMENTS, last - pitch)


@lru_cache(512)
def forward(size: Three, channels: int, kernel: Three, stride: Three, padding: Three, dilation: Three, lanes: int):
    """Returns the image of x and the only part of y = w * x. ``channels`` of one group; a direct image needs ``lanes`` pixels."""
    out = tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    # the padding between two rows serves both, but a row has place for all outputs: ``store_tile`` writes no more
    shared = max(size[2] + padding[2], out[2])
    pitch = shared if stride[2] == 1 else -(-(size[2] + 2 * padding[2]) // stride[2])
    rows = -(-(size[1] + 2 * padding[1]) // stride[1])
    places = (size[0] + 2 * padding[0], rows, pitch)
    whole = rows * pitch * stride[1] * stride[2]
    direct = not any(padding) and stride[1:] == (1, 1) and (out[1] - 1) * pitch + out[2] >= lanes
    tail = 0 if direct else _tail((kernel[2] - 1) * dilation[2] // stride[2], pitch)
    image = Image(size, padding, places, (stride[1], stride[2]), whole + tail, direct)
    taps = [image.offset(*(i * d for i, d in zip(tap, dilation, strict=True))) for tap in product(*map(range, kernel))]
    offsets = np.add.outer(np.arange(channels) * image.size, taps).reshape(-1)
    return image, Part(offsets, np.arange(offsets.size), (*out, pitch), stride[0] * image.slice_size)


@lru_cache(512)
def input_grad(
    size: Three, out: Three, lanes: int, channels: int, kernel: Three, stride: Three, padding: Three, dilation: Three
):
    """Returns the image of dy (``out``, of ``lanes`` channels a group) and the parts of dx (``size``), one for each phase of it.

    Element ``hh * stride + a`` of dx meets tap i where ``(a + padding - i dilation)`` is a multiple of the stride, at element
    ``hh + that / stride`` of dy. The weights are (lanes, channels, *kernel).
    """
    meet = [_meetings(*args) for args in zip(size, kernel, stride, padding, dilation, strict=True)]
    before = tuple(max([0] + [-e for taps in axis for _, e in taps]) for axis in meet)
    after = tuple(
        max([0] + [e + -(-(s - a) // t) - o for a, taps in enumerate(axis) for _, e in taps])
        for axis, s, o, t in zip(meet, size, out, stride, strict=True)
    )
    pitch = out[2] + max(before[2], after[2])
    places = (out[0] + before[0] + after[0], out[1] + before[1] + after[1], pitch)
    tail = _tail(max([0] + [e + before[2] for taps in meet[2] for _, e in taps]), pitch)
    image = Image(out, before, places, (1, 1), places[1] * pitch + tail)
    parts = []
    for phase in product(*(range(min(t, s)) for t, s in zip(stride, size, strict=True))):
        taps = list(product(*(axis[a] for axis, a in zip(meet, phase, strict=True))))
        grid = tuple(-(-(s - a) // t) for s, a, t in zip(size, phase, stride, strict=True))
        where = [image.offset(*(e + b for (_, e), b in zip(tap, before, strict=True))) for tap in taps]
        which = [((tap[0][0] * kernel[1]) + tap[1][0]) * kernel[2] + tap[2][0] for tap in taps]
        offsets = np.add.outer(np.arange(lanes) * image.size, np.array(where, np.int64)).reshape(-1)
        table = np.add.outer(np.arange(lanes) * channels * prod(kernel), np.array(which, np.int64)).reshape(-1)
        parts.append(Part(offsets, table, (*grid, pitch), image.slice_size, phase, stride))
    return image, parts


def alike(parts: tuple[Part, ...]) -> bool:
    """Whether the parts are all phases of an input's gradient, with outputs of the same sizes."""
    return len(parts) == prod(parts[0].strides) and all(part.grid == parts[0].grid for part in parts)


class Parts(NamedTuple):
    """The products of one image that are not empty.

    offsets, table: those of all parts, one after the other. ends: where each part's end there, from 0. rows: what
    ``convolve_images`` is told of each.
    """

    each: tuple[Part, ...]
    offsets: np.ndarray
    table: np.ndarray
    ends: np.ndarray
    rows: np.ndarray


def _places(part: Part, size: Three) -> tuple[int, tuple[int, int, int]]:
    """Returns where the part's outputs begin in a plane of an array (..., *size), and how far apart they are in each dimension."""
    plane = size[1] * size[2]
    begin = part.phase[0] * plane + part.phase[1] * size[2] + part.phase[2]
    return begin, (part.strides[0] * plane, part.strides[1] * size[2], part.strides[2])


def _joined(parts: list[Part], size: Three) -> Parts:
    """Joins the parts whose outputs make up an array (..., *size)."""
    each = tuple(part for part in parts if part.offsets.size)
    ends, rows = [0], []
    for part in each:
        begin, apart = _places(part, size)
        rows.append((ends[-1], part.offsets.size, part.step, begin, *part.grid, *apart))
        ends.append(ends[-1] + part.offsets.size)
    offsets, table = (
        np.concatenate([np.zeros(0, np.int64), *(getattr(part, name) for part in each)])
        for name in ("offsets", "table")
    )
    return Parts(each, offsets, table, np.array(ends, np.int64), np.array(rows, np.int64).reshape(-1, 11))


@lru_cache(512)
def forward_parts(
    size: Three, channels: int, kernel: Three, stride: Three, padding: Three, dilation: Three, lanes: int
) -> tuple[Image, Parts]:
    """Returns ``forward`` as parts of one."""
    image, part = forward(size, channels, kernel, stride, padding, dilation, lanes)
    return image, _joined([part], part.grid[:3])


@lru_cache(512)
def input_grad_parts(
    size: Three, out: Three, lanes: int, channels: int, kernel: Three, stride: Three, padding: Three, dilation: Three
) -> tuple[Image, Parts, np.ndarray]:
    """Returns ``input_grad``'s parts, and for those to which no tap leads the rows that ``fill_pixels`` is told."""
    image, parts = input_grad(size, out, lanes, channels, kernel, stride, padding, dilation)
    untouched = [(*_places(part, size), part.grid[:3]) for part in parts if not part.offsets.size]
    rows = np.array([(begin, *apart, *grid) for begin, apart, grid in untouched], np.int64).reshape(-1, 7)
    return image, _joined(parts, size), rows


def _meetings(size: int, kernel: int, stride: int, padding: int, dilation: int) -> list[list[tuple[int, int]]]:
    """Returns for each phase of dx the (tap, shift of dy) that reach it."""
    return [
        [
            (i, (a + padding - i * dilation) // stride)
            for i in range(kernel)
            if (a + padding - i * dilation) % stride == 0
        ]
        for a in range(min(stride, size))
    ]


@lru_cache(512)
def cotangent(out: Three, pitch: int, lanes: int) -> Image:
    """Returns the layout of dy in the forward's pixel grid, in whole vectors, zeros where the grid has no output."""
    pixels = -(-out[1] * pitch // lanes) * lanes
    direct = out[2] == pitch and pixels == out[1] * pitch
    return Image(out, (0, 0, 0), (out[0], out[1], pitch), (1, 1), pixels, direct)


def pieces(pixels: int, lanes: int) -> int:
    """Returns how many pixels are taken at a time, in whole vectors: about a thousand, so that the rows of a tile stay in the first-level cache."""
    return -(-pixels // (max(1, round(pixels / 1024)) * lanes)) * lanes


@lru_cache(512)
def repeated(step: int, count: int, tile: int) -> np.ndarray:
    """Returns ``step * i`` for i in range(count), the last one repeated to whole tiles."""
    return step * np.minimum(np.arange(-(-count // tile) * tile), count - 1)


def to_tiles(offsets: np.ndarray, tile: int) -> np.ndarray:
    """Returns the offsets, the last one repeated to whole tiles."""
    return offsets[repeated(1, offsets.size, tile)]


@lru_cache(512)
def by_depth(channels: int, depth: int) -> np.ndarray:
    """Places of a filter's weights (channels, depth, 9) in the order (depth, channels, 9)."""
    return np.arange(channels * depth * 9).reshape(channels, depth, 9).transpose(1, 0, 2).ravel()


@lru_cache(512)
def reversed_by_depth(filters: int, depth: int, each: int) -> np.ndarray:
    """Places of a channel's weights (filters, depth, 9), filters ``each`` apart, in the order (depth, filters, 9) from the end."""
    return (np.arange(depth * 9)[::-1].reshape(depth, 1, 9) + np.arange(filters).reshape(1, -1, 1) * each).ravel()
