"""How convolution and its two gradients run on the CPU: an ordered list of implementations for each of the three."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.core.memory import empty
from funcnn.core.primitive import Implementation
from funcnn.kernels.cpu import conv_tables as tables
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.conv import convolve, pack_weights, spread
from funcnn.kernels.cpu.conv_weight import convolve_weight_grad
from funcnn.kernels.cpu.tiles import dots_shape
from funcnn.kernels.cpu.vector import tile_shape, vector_bytes
from funcnn.ops import conv_depthwise as depthwise
from funcnn.ops import conv_winograd as winograd
from funcnn.ops.conv_exact import exactly

SPREAD_NS = 0.3  # nanoseconds a number for the copies
FLOP_NS = 0.01  # nanoseconds a flop in a tile
SLACK = 64  # numbers beyond an image that a tile may read


def _three(value: tuple, fill: int) -> Any:
    return (fill,) * (3 - len(value)) + tuple(value)


def _where(stride: tuple, padding: tuple, dilation: tuple) -> tuple:
    return _three(stride, 1), _three(padding, 0), _three(dilation, 1)


def _volume(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N, C, D, H, W)."""
    return np.ascontiguousarray(array).reshape(*array.shape[:2], *_three(array.shape[2:], 1))


def _bias(ins: list, y: np.ndarray) -> np.ndarray:
    """The third input, or zeros, for y (N, K, ...)."""
    return np.ascontiguousarray(ins[2]) if len(ins) > 2 else np.zeros(y.shape[1], y.dtype)


def _exactly(run: Any, a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: Any, **where: Any) -> None:
    """out = run(a, b) + bias where a or b is not finite; all of five dimensions."""
    where = {
        name: _three(value, 0 if name == "padding" else 1) if isinstance(value, tuple) else value
        for name, value in where.items()
    }

    def product(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        made = empty(out.shape, out.dtype)
        run([u, v], [made], **where)
        return made

    exactly(product, a, b, out)
    if bias is not None:
        out += bias.reshape(-1, 1, 1, 1)


def _spread(x: np.ndarray, image: tables.Image) -> np.ndarray:
    """x (N, C, D, H, W) in the image's layout."""
    if image.direct:
        return x
    planes = x.shape[0] * x.shape[1]
    spacious = empty((planes * image.size + SLACK,), x.dtype)
    work = threads.workers(SPREAD_NS * spacious.size)
    spread(x, spacious, planes, image.sizes, image.before, image.places, image.phases, image.slice_size, work)
    return spacious


def _packed(
    w: np.ndarray, table: np.ndarray, groups: int, lanes: int, stride: int, group: int
) -> tuple[np.ndarray, bool]:
    """The weights in panels, and whether they are finite: lanes of a panel ``stride`` apart, rows by the table."""
    rows = tile_shape(w.itemsize)[0]
    panels = groups * -(-lanes // rows)
    packed, spoiled = empty((panels * rows * table.size,), w.dtype), np.empty(panels, w.dtype)
    pack_weights(w, table, packed, spoiled, groups, lanes, rows, stride, group, threads.workers(2 * packed.size))
    return packed, not spoiled.any()


def _product(image: np.ndarray, layout: tables.Image, part: tables.Part, packed: np.ndarray, bias: np.ndarray, y: np.ndarray,
             inner: int, groups: int) -> None:  # fmt: skip
    """One part of y (N, K, D, H, W) from an image of ``inner`` channels a group."""
    n, k, *space = y.shape
    rows, columns = tile = tile_shape(y.itemsize)
    lanes = k // groups
    planes, height, width, pitch = part.grid
    pixel_tiles, lane_tiles = -(-((height - 1) * pitch + width) // columns), -(-lanes // rows)
    flops = 2 * columns * rows * part.offsets.size  # of one tile
    each = max(1, min(pixel_tiles, int(4e6 / (flops * lane_tiles))))
    deep = lane_tiles if n * planes * groups * -(-pixel_tiles // each) >= 8 else -(-lane_tiles // 8)
    blocks = (-(-pixel_tiles // each), each, -(-lane_tiles // deep), deep)
    steps = (groups * inner * layout.size, inner * layout.size, part.step)
    d, h, w = space[0] * space[1] * space[2], space[1] * space[2], space[2]
    begin = part.phase[0] * h + part.phase[1] * w + part.phase[2]
    strides = (k * d, d, part.strides[0] * h, part.strides[1] * w, part.strides[2], groups, begin)
    work = threads.workers(FLOP_NS * flops * pixel_tiles * lane_tiles * groups * n * planes)
    scratch = empty((work * rows * columns,), y.dtype)
    convolve(image, packed, part.offsets, bias, y, scratch, tile, part.grid, lanes, blocks, steps, strides, n, work)


def forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    """y = w * x + bias by the gathered product."""
    x, w, y = _volume(ins[0]), _volume(ins[1]), _volume(outs[0])
    if not y.size:
        return
    k, inner, *kernel = w.shape
    bias = _bias(ins, y)
    if not inner:
        y[:] = bias.reshape(-1, 1, 1, 1)
        return
    lanes = tile_shape(y.itemsize)[1]
    layout, part = tables.forward(x.shape[2:], inner, tuple(kernel), *_where(stride, padding, dilation), lanes)
    taps = part.offsets.size
    packed, finite = _packed(w, part.table, groups, k // groups, taps, k // groups * taps)
    if finite or not any(padding):
        _product(_spread(x, layout), layout, part, packed, bias, y, inner, groups)
    else:
        _exactly(forward, x, w, y, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def input_grad(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple) -> None:
    """dx from dy and w by the gathered product, one part for each phase of the stride."""
    dy, w, dx = _volume(ins[0]), _volume(ins[1]), _volume(outs[0])
    if not dx.size:
        return
    k, channels, *kernel = w.shape
    lanes, taps = k // groups, prod(kernel)
    bias = _bias(ins, dx)
    if not dy.size or not lanes:
        dx[:] = bias.reshape(-1, 1, 1, 1)
        return
    where = _where(stride, padding, dilation)
    layout, parts = tables.input_grad(dx.shape[2:], dy.shape[2:], lanes, channels, tuple(kernel), *where)
    image = _spread(dy, layout)
    for part in parts:
        if part.offsets.size:
            packed, finite = _packed(w, part.table, groups, channels, taps, lanes * channels * taps)
            if not finite:
                settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "size": size}
                _exactly(input_grad, dy, w, dx, bias, **settings)
                return
            _product(image, layout, part, packed, bias, dx, lanes, groups)
        else:
            untouched: Any = (..., *(slice(a, None, t) for a, t in zip(part.phase, part.strides, strict=True)))
            dx[untouched] = bias.reshape(-1, 1, 1, 1)


def weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw from x and dy by dot products along the pixels."""
    x, dy, dw = _volume(ins[0]), _volume(ins[1]), _volume(outs[0])
    k, inner, *kernel = dw.shape
    if not dw.size or not dy.size:
        dw[:] = 0
        return
    vector = vector_bytes() // dw.itemsize
    many, each = tile = dots_shape()
    layout, part = tables.forward(x.shape[2:], inner, tuple(kernel), *_where(stride, padding, dilation), vector)
    around = tables.cotangent(dy.shape[2:], part.grid[3], vector)
    if layout.direct and not around.direct:  # the last vector would read beyond x
        layout = tables.Image(layout.sizes, layout.before, layout.places, layout.phases, layout.slice_size)
    image, cotangent = _spread(x, layout), _spread(dy, around)
    lanes, rows = k // groups, part.offsets.size
    places, offsets = tables.repeated(around.size, lanes, many), tables.to_tiles(part.offsets, each)
    lane_tiles, row_tiles = -(-lanes // many), -(-rows // each)
    high = max(1, min(lane_tiles, 8))
    wide = max(1, min(row_tiles, -(-row_tiles * -(-lane_tiles // high) * groups // 16)))
    blocks = (-(-lane_tiles // high), high, -(-row_tiles // wide), wide)
    sizes = (lanes, rows, x.shape[0], part.grid[0], around.slice_size)
    steps = (
        groups * inner * layout.size,
        inner * layout.size,
        part.step,
        k * around.size,
        lanes * around.size,
        around.slice_size,
    )
    work = threads.workers(FLOP_NS * 2 * k * rows * sizes[2] * sizes[3] * sizes[4])
    scratch = empty((work * high * wide * many * each,), np.dtype(np.float64))
    convolve_weight_grad(image, cotangent, places, offsets, dw, scratch, tile, blocks, sizes, steps, groups, 1024, work)
    if not np.isfinite(dw).all() and not (np.isfinite(x).all() and np.isfinite(dy).all()):
        _exactly(
            weight_grad, x, dy, dw, None, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size
        )


# ---- depthwise --------------------------------------------------------------------------------------------------------
def _depthwise_forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    x, w, y = _volume(ins[0]), _volume(ins[1]), _volume(outs[0])
    if any(padding) and not np.isfinite(w).all():
        forward(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups)
    else:
        depthwise.forward(x, w, _bias(ins, y), y, _where(stride, padding, dilation))


def _depthwise_input_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    """With stride 1 and one output a channel: the forward pass of dy with the taps turned round."""
    dy, w, dx = _volume(ins[0]), _volume(ins[1]), _volume(outs[0])
    if not np.isfinite(w).all():
        input_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)
        return
    around = tuple(d * (k - 1) - p for p, d, k in zip(padding, dilation, ins[1].shape[2:], strict=True))
    turned = np.ascontiguousarray(w[..., ::-1, ::-1])
    depthwise.forward(dy, turned, _bias(ins, dx), dx, _where((1,) * len(padding), around, dilation))


def _depthwise_for(ins: list, groups: int, stride: tuple, **where: Any) -> bool:
    return depthwise.applies(ins[0].shape[1], groups, stride)


def _depthwise_for_input_grad(
    ins: list, groups: int, stride: tuple, padding: tuple, dilation: tuple, size: tuple
) -> bool:
    kernel = ins[1].shape[2:]
    whole = all(p <= d * (k - 1) for p, d, k in zip(padding, dilation, kernel, strict=True))
    return (
        ins[0].shape[1] == groups
        and depthwise.applies(ins[1].shape[1] * groups, groups, stride)
        and max(stride) == 1
        and whole
    )


# ---- Winograd -----------------------------------------------------------------------------------------------------------
def _winograd_forward(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    x, w, y = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1]), outs[0]
    patches = winograd.Patches(x.shape, y.shape, dilation, groups, y.dtype)
    taps = 9 * patches.c
    if not winograd.forward(x, w, _bias(ins, y), y, padding, patches, np.arange(taps), taps, patches.k * taps):
        forward(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_input_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    """The forward pass of dy with the taps turned round, inputs and outputs exchanged."""
    dy, w, dx = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1]), outs[0]
    patches = winograd.Patches(dy.shape, dx.shape, dilation, groups, dx.dtype)
    around = tuple(2 * d - p for p, d in zip(padding, dilation, strict=True))
    table = np.add.outer(np.arange(patches.c) * patches.k * 9, np.arange(8, -1, -1)).reshape(-1)
    if not winograd.forward(dy, w, _bias(ins, dx), dx, around, patches, table, 9, patches.k * patches.c * 9):
        input_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_weight_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    x, dy = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1])
    if not winograd.weight_grad(x, dy, outs[0], padding, dilation, groups):
        weight_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_for(ins: list, groups: int, size: Any = None, **where: Any) -> bool:
    return winograd.applies(ins[0], tuple(ins[1].shape[2:]), ins[1].shape[0], groups=groups, **where)


def _winograd_for_input_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    return winograd.applies(ins[0], tuple(ins[1].shape[2:]), ins[1].shape[1] * groups, groups=groups, **where)


def _winograd_for_weight_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    return winograd.applies(ins[0], size, ins[1].shape[1], groups=groups, **where)


FORWARD = (
    Implementation(_depthwise_forward, _depthwise_for),
    Implementation(_winograd_forward, _winograd_for),
    Implementation(forward),
)
INPUT_GRAD = (
    Implementation(_depthwise_input_grad, _depthwise_for_input_grad),
    Implementation(_winograd_input_grad, _winograd_for_input_grad),
    Implementation(input_grad),
)
WEIGHT_GRAD = (Implementation(_winograd_weight_grad, _winograd_for_weight_grad), Implementation(weight_grad))
