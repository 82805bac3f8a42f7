"""The weight gradient of a depthwise convolution: dw[k, tap] = sum over images and pixels of dy[k, pixel] * x[tap, pixel].

A chunk takes some images and some input channels. A plane of x is padded and split by phase into scratch memory, dy's
planes are copied beside it in the same pixel grid, zeros where the grid has no output: for every tap both are one run of
elements. A vector of dy meets TILE_TAPS runs of x, whose sums stay in registers and go to float64 after a piece of the plane.
Each group of images has sums of its own for all weights, which are added up in their order. 2 N K P Q R flops, x and dy
read once, 10 loaded vectors for 9 multiply-adds. The largest error in float32 is 1.4e-7 of the largest gradient.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.gather import copy_plane
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import Dots

TILE_TAPS = 9  # runs of x at a time: 3 x 3 taps are one tile
JOINED_CHANNELS = 16  # channels whose sums a chunk adds up


def _taps_twin(count: int, a: Any, b: Any, offsets: Any, c: Any) -> None:
    for j in range(TILE_TAPS):
        c[j] += a[:count] @ b[offsets[j] : offsets[j] + count]


@intrinsic(twin=_taps_twin)
def tap_dots(typingctx: Any, count: Any, a: Any, b: Any, offsets: Any, c: Any) -> Any:
    """Computes ``c[j] += sum(a[i] * b[offsets[j] + i] for i in range(count))`` for TILE_TAPS sums in float64; ``count`` in whole vectors."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, right, places, sums = values
        dots = Dots(builder, context.get_data_type(a.dtype), a.dtype.bitwidth // 8)
        dots.emit_dots(many, [left], dots.starts(right, places, TILE_TAPS), sums)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, offsets, c), codegen


@device_function
def depthwise_dots(chunk, worker, x, dy, sums, scratch, room, offsets, sizes, share, inner, layout, around):
    """Works on the sums of a group of images for a run of input channels and the output channels that each has."""
    channels, many, batch = sizes
    images, run = share
    runs, taps, pixels = (channels + run - 1) // run, offsets.size, around[4]
    group, first = chunk // runs, chunk % runs * run
    last = min(first + run, channels)
    plane, cotangent = worker * room, (worker + 1) * room - pixels
    at = group * channels * many * taps
    clear_row(pointer(sums, at + first * many * taps), (last - first) * many * taps)
    for n in range(group * images, min((group + 1) * images, batch)):
        for c in range(first, last):
            copy_plane(x, n * channels + c, scratch, plane, layout)
            for k in range(c * many, (c + 1) * many):
                copy_plane(dy, n * channels * many + k, scratch, cotangent, around)
                for start in range(0, pixels, inner):
                    left, right = pointer(scratch, cotangent + start), pointer(scratch, plane + start)
                    for tap in range(0, taps, TILE_TAPS):
                        place = pointer(sums, at + k * taps + tap)
                        tap_dots(min(inner, pixels - start), left, right, pointer(offsets, tap), place)


@device_function
def join_channels(chunk, worker, sums, dw, groups, channels, taps, count):
    """Adds up the groups' sums of JOINED_CHANNELS channels in order and writes them."""
    for k in range(chunk * JOINED_CHANNELS, min((chunk + 1) * JOINED_CHANNELS, channels)):
        total, target = pointer(sums, k * taps), pointer(dw, k * count)
        for group in range(1, groups):
            more = pointer(sums, (group * channels + k) * taps)
            for tap in range(count):
                total[tap] += more[tap]
        for tap in range(count):
            target[tap] = total[tap]


@kernel(
    touches={
        "x": lambda sizes, layout: sizes[0] * sizes[2] * layout[0][0] * layout[0][1] * layout[0][2],
        "dy": lambda sizes, around: sizes[0] * sizes[1] * sizes[2] * around[0][0] * around[0][1] * around[0][2],
        "sums": lambda offsets, sizes, share: -(-sizes[2] // share[0]) * sizes[0] * sizes[1] * offsets.size,
        "scratch": lambda room, layout, around, threads: (
            threads * max(room, layout[2][0] * layout[4] + around[2][0] * around[4])
        ),
    }
)
def depthwise_weight_grad(x, dy, dw, sums, scratch, room, offsets, sizes, share, inner, layout, around, threads):
    """dw (K, taps) from x (N * C planes, H, W) and dy (N * K planes, P, Q).

    offsets: of the taps in the padded plane, the last one repeated to whole tiles. sizes: input channels, output channels for
    each, images. share: images and input channels of a chunk. inner: pixels at a time. layout, around: how x and dy are
    laid out, see ``copy_image``. scratch: ``room`` zeros for each thread, for what taps read of a plane, then one of dy.
    """
    channels, many, batch = sizes
    groups = (batch + share[0] - 1) // share[0]
    args: tuple = (x, dy, sums, scratch, room, offsets, sizes, share, inner, layout, around)
    parallel_for(depthwise_dots, groups * ((channels + share[1] - 1) // share[1]), threads, args)
    outputs = channels * many
    args = (sums, dw, groups, outputs, offsets.size, dw.size // outputs)
    parallel_for(join_channels, (outputs + JOINED_CHANNELS - 1) // JOINED_CHANNELS, threads, args)
