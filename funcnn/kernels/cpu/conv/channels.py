"""Depthwise convolution with channels along the vector: any stride, dilation and size of a plane, forward and back.

``depthwise`` fills vectors with neighbouring pixels, which a plane of 7 x 7 or a stride leaves half empty. Here a chunk
transposes some rows of a vector of planes to (pixels, channels) between zeros, makes outputs of the same form from them with
``tile_channels``, and transposes these back. Every element goes through two transpositions in registers, about one shuffle each, and
every multiply-add is of a whole vector: 2 N K P Q R flops, x read and y written once.

The gradient of the input is the same with other tables: for each phase of the stride the taps that reach it, over the
cotangent. Taps are summed in runs of at most RUN_PRODUCTS; the largest error in float32 is 1.4e-7 of the largest output.

A vector holds neighbouring channels of an image, the last vector beginning in the one before; where an image has fewer, of
neighbouring images.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.channel_tile import tile_channels
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import RUN_PRODUCTS
from funcnn.kernels.cpu.vector.transpose import lanes_of, transpose


def in_vector(packed):
    """Returns how many elements a vector holds."""
    return vector_bytes() // packed.itemsize


def vectors(packed, planes):
    """Vectors of the planes of an image."""
    return -(-planes[0] // in_vector(packed))


@device_function
def first_plane(block, planes, lanes):
    """Returns the first plane of a vector of them."""
    return max(0, min(block * lanes, planes - lanes))


@device_function
def pack_channels(chunk, worker, w, bias, table, packed, spoiled, planes, channels, many):
    """Works on the vectors of block ``chunk // many``: of the bias, then of the weights for each tap. ``spoiled``: see ``pack_lanes``."""
    target = pointer(packed, 0)
    lanes, taps, bad = lanes_of(target), w.size // (channels * many), w.dtype.type(0)
    first, m = first_plane(chunk // many, planes, lanes), chunk % many
    target = pointer(packed, chunk * (table.size + 1) * lanes)
    for lane in range(lanes):
        channel = (first + lane) % channels * many + m
        target[lane] = bias[channel]
        source = pointer(w, channel * taps)
        for t in range(table.size):
            target[(t + 1) * lanes + lane] = source[table[t]]
            bad += source[table[t]] * 0
    spoiled[chunk] = bad


@device_function
def transpose_rows(x, apart, image, first, rows, layout):
    """Rows ``first`` and following, of the padded planes at x, which are ``apart``, as (pixels, channels)."""
    height, width, above, left, pitch = layout
    lanes = lanes_of(x)
    for r in range(rows):
        row, at = shift(image, r * pitch * lanes), first + r - above
        if 0 <= at < height:
            clear_row(row, left * lanes)
            transpose(shift(x, at * width), apart, shift(row, left * lanes), lanes, lanes, width)
            clear_row(shift(row, (left + width) * lanes), (pitch - left - width) * lanes)
        else:
            clear_row(row, pitch * lanes)


@device_function
def sum_taps(count, start, weights, offsets, image, step, apart, c, further, beside, length):
    """``tile_channels`` in runs of at most RUN_PRODUCTS taps; of none the outputs are what they start with."""
    lanes = lanes_of(image)
    if count == 0:
        for j in range(length):
            for i in range(lanes):
                c[j * further + i] = start[i]
                c[beside + j * further + i] = start[i]
    runs = (count + RUN_PRODUCTS - 1) // RUN_PRODUCTS
    for run in range(runs):
        t = count * run // runs
        many, a, places = count * (run + 1) // runs - t, shift(weights, t * lanes), shift(offsets, t)
        tile_channels(many, start, a, image, places, step, apart, c, further, beside, length, run > 0)


@device_function
def part_rows(image, panel, offsets, c, part, rows, steps, longest):
    """The outputs of one part, ``rows`` rows of them: two rows side by side, of a last single one two halves of a run.

    part: its first tap, how many, and the columns of its outputs. steps: from one output to the next, of rows and of pixels
    in the image, then in c.
    """
    lanes = lanes_of(image)
    first, count, columns = part
    weights, places = shift(panel, (1 + first) * lanes), shift(offsets, first)
    for p in range(0, rows, 2):
        pair = p + 1 < rows
        reach = longest if pair else 2 * longest
        pieces = (columns + reach - 1) // reach
        for i in range(pieces):
            q = columns * i // pieces
            together = columns * (i + 1) // pieces - q
            length = together if pair else (together + 1) // 2
            apart, beside = (
                (steps[0], steps[2]) if pair else ((together - length) * steps[1], (together - length) * steps[3])
            )
            source, target = shift(image, p * steps[0] + q * steps[1]), shift(c, p * steps[2] + q * steps[3])
            sum_taps(count, panel, weights, places, source, steps[1], apart, target, steps[3], beside, length)


@device_function
def channels_chunk(
    chunk, worker, x, packed, offsets, y, scratch, parts, layout, out, planes, bands, strides, taps, longest
):  # fmt: skip
    """Works on a band of rows of one vector of planes of an image."""
    per_image, many, _ = planes
    P, Q, (high, reach) = out[0], out[1], (bands[1], bands[2])
    image = pointer(scratch, worker * bands[3])
    lanes, pitch = lanes_of(image), layout[4]
    c, blocks = shift(image, bands[4]), (per_image + lanes - 1) // lanes
    band, rest = chunk % bands[0], chunk // bands[0]
    block, n = rest % blocks, rest // blocks
    plane, from_row = n * per_image + first_plane(block, per_image, lanes), band * high
    count = (min(high, out[2] - from_row) - 1) * strides[0] + reach
    transpose_rows(
        pointer(x, plane * layout[0] * layout[1]), layout[0] * layout[1], image, from_row * strides[0], count, layout
    )
    steps = (strides[0] * pitch * lanes, strides[1] * lanes, strides[2] * Q * lanes, strides[3] * lanes)
    top = from_row * strides[2]
    bottom = min(top + high * strides[2], P)
    for m in range(many):
        panel = pointer(packed, (block * many + m) * (taps + 1) * lanes)
        for i in range(parts.shape[0]):
            target = shift(c, (parts[i, 2] * Q + parts[i, 3]) * lanes)
            part, rows = (parts[i, 0], parts[i, 1], parts[i, 5]), min(high, parts[i, 4] - from_row)
            part_rows(image, panel, pointer(offsets, 0), target, part, rows, steps, longest)
        transpose(c, lanes, pointer(y, (plane * many + m) * P * Q + top * Q), many * P * Q, (bottom - top) * Q, lanes)


@kernel(
    touches={
        "w": lambda table, planes: planes[2] * planes[1] * (int(table.max(initial=-1)) + 1),
        "bias": lambda planes: planes[1] * planes[2],
        "packed": lambda packed, table, planes: (
            vectors(packed, planes) * planes[1] * (table.size + 1) * in_vector(packed)
        ),
        "spoiled": lambda packed, planes: vectors(packed, planes) * planes[1],
    }
)
def pack_channel_weights(w, bias, table, packed, spoiled, planes, threads):
    """Vectors of the bias and of the weights for each tap, by the vectors of planes that they are for.

    table: of each tap its place in a channel's weights. spoiled: a number for each vector of planes and output of each, not 0
    where a weight is infinite or NaN. planes: see ``convolve_channels``.
    """
    lanes = lanes_of(pointer(packed, 0))
    blocks = (planes[0] + lanes - 1) // lanes
    packing = (w, bias, table, packed, spoiled, planes[0], planes[2], planes[1])
    parallel_for(pack_channels, blocks * planes[1], threads, packing)


@kernel(
    touches={
        "x": lambda layout, planes, images: images * planes[0] * layout[0] * layout[1],
        "packed": lambda packed, offsets, planes: (
            vectors(packed, planes) * planes[1] * (offsets.size + 1) * in_vector(packed)
        ),
        "y": lambda out, planes, images: images * planes[0] * planes[1] * out[0] * out[1],
        "scratch": lambda bands, threads: threads * bands[3],
    }
)
def convolve_channels(
    x, packed, offsets, y, scratch, parts, layout, out, planes, bands, strides, images, longest, threads
):
    """y (images, planes * many, P, Q) from x (images, planes, H, W) and packed bias and weights.

    offsets: of each tap its place in a plane of (pixels, channels). parts: of each its first tap, how many, the row and column
    of its first output, rows and columns of its outputs. layout: height and width of x, zeros above and left of it, pixels
    from row to row. out: P, Q, the most rows of a part. planes: of an image, outputs of each, and channels (planes are those
    of several images if there are more). bands: how many, rows of a part in one, rows that one row of outputs reads,
    elements of a thread's scratch, and of the image in it. strides: rows and pixels from one output to the next, in x and in y.
    """
    lanes = lanes_of(pointer(packed, 0))
    blocks = (planes[0] + lanes - 1) // lanes
    args = (x, packed, offsets, y, scratch, parts, layout, out, planes, bands, strides, offsets.size, longest)
    parallel_for(channels_chunk, images * blocks * bands[0], threads, args)
