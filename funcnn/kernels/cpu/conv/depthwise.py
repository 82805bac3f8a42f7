"""Depthwise convolution: each output channel sees one input channel, so there is no product of matrices to be had.

A chunk takes one (n, c) plane at a time: it is padded and split by phase into scratch memory that stays in the first-level
cache, and the output is made from it in tiles. 3 x 3 taps with stride 1 have a tile of their own, TILE_ROWS x 2 vectors in
registers, in which a loaded vector serves up to three rows: 9 multiply-adds an element and (TILE_ROWS + 2) / TILE_ROWS * 3 loads. Other
kernels use a row of four vectors. 2 N K P Q R flops, x read and y written once. With so few products in a sum the largest
error in float32 is 1.3e-7 of the largest output.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.gather import copy_plane
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import add_row
from funcnn.kernels.cpu.vector.tiles import tile_row
from funcnn.kernels.cpu.vector.writer import Writer

TILE_ROWS = 4  # of the tile for 3 x 3: with 2 vectors 8 sums, 9 weights and the loaded vector fit 32 registers


def _nine_twin(x: Any, pitch: int, w: Any, c: Any) -> None:
    columns = 2 * vector_bytes() // x.dtype.itemsize
    for p in range(TILE_ROWS):
        taps = [(i * 3 + j, (p + i) * pitch + j) for i in range(3) for j in range(3)]
        c[p * columns : (p + 1) * columns] = sum(w[tap] * x[at : at + columns] for tap, at in taps)


@intrinsic(twin=_nine_twin)
def nine_taps(typingctx: Any, x: Any, pitch: Any, w: Any, c: Any) -> Any:
    """Computes ``c[p, q] = sum(w[i, j] * x[(p + i) * pitch + q + j])`` for TILE_ROWS rows of two vectors."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Nine.of(context, builder, x).emit_taps(*values)
        return context.get_dummy_value()

    return types.void(x, types.intp, w, c), codegen


class Nine(Writer):
    """Writes ``nine_taps``, without a loop: every vector of x is loaded once and serves the rows that it reaches."""

    def emit_taps(self, x: Any, pitch: Any, w: Any, c: Any) -> None:
        builder, word = self.builder, self.word
        weights = [self.splat(builder.load(builder.gep(w, [word(tap)]))) for tap in range(9)]
        sums = [[self.same(0.0)] * 2 for _ in range(TILE_ROWS)]
        for r in range(TILE_ROWS + 2):
            row = builder.gep(x, [builder.mul(pitch, word(r))])
            for j in range(3):
                start = builder.gep(row, [word(j)])
                for v in range(2):
                    vector = self.load(start, v)
                    for p in range(max(0, r - 2), min(TILE_ROWS, r + 1)):
                        sums[p][v] = builder.call(self.fma, [weights[(r - p) * 3 + j], vector, sums[p][v]])
        for p in range(TILE_ROWS):
            for v in range(2):
                self.store(sums[p][v], builder.gep(c, [word(2 * self.lanes * p)]), v)


@device_function
def put_rows(c, y, rows, columns, pitch, width, add):
    """Writes ``rows`` rows of ``columns`` elements, ``pitch`` apart in c and ``width`` in y, plus a number."""
    for p in range(rows):
        add_row(shift(y, p * width), shift(c, p * pitch), columns, add)


@device_function
def nine_plane(image, w, y, c, P, Q, pitch, columns, add):
    """A plane of y by 3 x 3 taps from the padded plane."""
    for q in range(0, Q, columns):
        for p in range(0, P, TILE_ROWS):
            nine_taps(shift(image, p * pitch + q), pitch, w, c)
            put_rows(c, shift(y, p * Q + q), min(TILE_ROWS, P - p), min(columns, Q - q), columns, Q, add)


@device_function
def depthwise_chunk(chunk, worker, x, w, bias, y, scratch, room, offsets, planes, layout, out, columns, nine):
    """``planes`` planes of the input, and the output channels that each has."""
    P, Q, many, channels, batch = out
    pitch = layout[2][2]
    taps = w.size // (channels * many)
    for plane in range(chunk * planes, min((chunk + 1) * planes, batch * channels)):
        image, c = pointer(scratch, worker * room), pointer(scratch, worker * room + room - TILE_ROWS * columns)
        copy_plane(x, plane, scratch, worker * room, layout)
        for k in range(many):
            channel = plane % channels * many + k
            target = pointer(y, (plane * many + k) * P * Q)
            if nine:
                nine_plane(image, pointer(w, channel * 9), target, c, P, Q, pitch, columns, bias[channel])
            else:
                for p in range(P):
                    for q in range(0, Q, columns):
                        row = shift(image, p * pitch + q)
                        tile_row(taps, pointer(w, channel * taps), row, pointer(offsets, 0), c)
                        put_rows(c, shift(target, p * Q + q), 1, min(columns, Q - q), columns, Q, bias[channel])


@kernel(
    touches={
        "x": lambda layout, out: out[3] * out[4] * layout[0][0] * layout[0][1] * layout[0][2],
        "w": lambda offsets, out, nine: out[3] * out[2] * (9 if nine else offsets.size),
        "bias": lambda out: out[3] * out[2],
        "y": lambda out: out[0] * out[1] * out[2] * out[3] * out[4],
        "scratch": lambda room, layout, columns, threads: (
            threads * max(room, layout[2][0] * layout[4] + TILE_ROWS * columns)
        ),
    }
)
def depthwise(x, w, bias, y, scratch, room, offsets, planes, layout, out, columns, nine, threads):
    """y (N * C * many planes) from x (N * C planes, H, W): ``planes`` input planes in a chunk.

    scratch: ``room`` elements for each thread, zeros. layout: see ``copy_image``. out: height and width of y, output channels for each input channel, input channels, images.
    offsets: of the taps in the padded plane. columns: of a tile. nine: the taps are 3 x 3 with stride and dilation 1.
    """
    chunks = (out[3] * out[4] + planes - 1) // planes
    args = (x, w, bias, y, scratch, room, offsets, planes, layout, out, columns, nine)
    parallel_for(depthwise_chunk, chunks, threads, args)


@kernel(
    touches={
        "w": lambda channels, taps: channels * taps,
        "reversed_taps": lambda channels, taps: channels * taps,
    }
)
def reverse_taps(w, reversed_taps, channels, taps):
    """Writes reversed_taps = w (channels, taps) with the taps of each channel from the last to the first."""
    for channel in range(channels):
        for t in range(taps):
            reversed_taps[channel * taps + t] = w[(channel + 1) * taps - 1 - t]
