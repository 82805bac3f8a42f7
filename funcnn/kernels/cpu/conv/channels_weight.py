"""The weight gradient of a depthwise convolution with channels along the vector: see ``channels``.

The tile is that of the outputs with other operands: the cotangent's pixels, transposed to (pixels, channels), stand for the weights,
the taps of a kernel's rows for the pixels. A chunk has a vector of planes of some images, takes some of their rows at a
time, and sums up to PIECE_PIXELS pixels in the data's type, these in float64. The chunks' sums are joined in their order. The
largest error in float32 is 3e-7 of the largest gradient.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.channels import first_plane, in_vector, part_rows, transpose_rows, vectors
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.transpose import lanes_of, transpose

PIECE_PIXELS = 128  # of a sum in the data's type


@device_function
def add_pieces(image, panel, places, pixels, c, total, kernel, steps, longest):
    """``total`` (taps, lanes) += the sums over ``pixels`` of the cotangent behind the zeros of ``panel``; c has room for them."""
    numbers = kernel[0] * kernel[1] * lanes_of(image)
    for at in range(0, pixels, PIECE_PIXELS):
        part_rows(image, panel, places, c, (at, min(PIECE_PIXELS, pixels - at), kernel[1]), kernel[0], steps, longest)
        for i in range(numbers):
            total[i] += c[i]


@device_function
def channels_weight_chunk(
    chunk, worker, x, dy, places, sums, scratch, layout, out, planes, bands, strides, kernel, images, each, longest
):  # fmt: skip
    """Works on the sums of images ``chunk // blocks * each`` and following for a vector of planes: (outputs of each, taps, lanes)."""
    per_image, many, _ = planes
    count, high, reach, room, inside = bands
    image = pointer(scratch, worker * room)
    lanes, pitch, pixels = lanes_of(image), layout[4], out[0] * out[1]
    panel, blocks = shift(image, inside), (per_image + lanes - 1) // lanes
    cotangent, c = shift(panel, lanes), shift(panel, (1 + high * out[1]) * lanes)
    size, first = kernel[0] * kernel[1] * lanes, first_plane(chunk % blocks, per_image, lanes)
    steps = (kernel[2] * pitch * lanes, kernel[3] * lanes, kernel[1] * lanes, lanes)
    clear_row(panel, lanes)
    clear_row(pointer(sums, chunk * many * size), many * size)
    for n in range(chunk // blocks * each, min((chunk // blocks + 1) * each, images)):
        plane = n * per_image + first
        for band in range(count):
            p, rows = band * high, min(high, out[0] - band * high)
            source, apart = pointer(x, plane * layout[0] * layout[1]), layout[0] * layout[1]
            transpose_rows(source, apart, image, p * strides[0], (rows - 1) * strides[0] + reach, layout)
            for m in range(many):
                source = pointer(dy, (plane * many + m) * pixels + p * out[1])
                transpose(source, many * pixels, cotangent, lanes, lanes, rows * out[1])
                total = pointer(sums, (chunk * many + m) * size)
                add_pieces(image, panel, pointer(places, 0), rows * out[1], c, total, kernel, steps, longest)


@device_function
def join_planes(chunk, worker, sums, dw, planes, groups, taps, lanes):
    """Works on the weights of input channel ``chunk``: sums of all groups of images, and of all planes that are this channel's."""
    per_image, many, channels = planes
    blocks = (per_image + lanes - 1) // lanes
    for m in range(many):
        for t in range(taps):
            total = 0.0
            for group in range(groups):
                for plane in range(chunk, per_image, channels):
                    lane = plane - first_plane(plane // lanes, per_image, lanes)
                    total += sums[(((group * blocks + plane // lanes) * many + m) * taps + t) * lanes + lane]
            dw[(chunk * many + m) * taps + t] = total


@kernel(
    touches={
        "x": lambda layout, planes, images: images * planes[0] * layout[0] * layout[1],
        "dy": lambda out, planes, images: images * planes[0] * planes[1] * out[0] * out[1],
        "places": lambda out, bands: bands[1] * out[1],
        "dw": lambda planes, kernel: planes[1] * planes[2] * kernel[0] * kernel[1],
        "sums": lambda x, planes, kernel, images, each: (
            -(-images // each) * vectors(x, planes) * planes[1] * kernel[0] * kernel[1] * in_vector(x)
        ),
        "scratch": lambda bands, threads: threads * bands[3],
    }
)
def channels_weight_grad(
    x, dy, places, dw, sums, scratch, layout, out, planes, bands, strides, kernel, images, each, longest, threads
):  # fmt: skip
    """dw (channels * many, taps) from x (images, planes, H, W) and dy (images, planes * many, P, Q).

    places: where each pixel of a band meets the first tap in a plane of (pixels, channels). kernel: rows and columns of taps,
    and their distances. each: images of a chunk. bands: as of ``convolve_channels``; the scratch of a thread is the image, a
    vector of zeros and the cotangent, and a vector for each tap. The others: see there.
    """
    lanes, groups = lanes_of(pointer(x, 0)), (images + each - 1) // each
    blocks = (planes[0] + lanes - 1) // lanes
    args = (x, dy, places, sums, scratch, layout, out, planes, bands, strides, kernel, images, each, longest)
    parallel_for(channels_weight_chunk, groups * blocks, threads, args)
    parallel_for(join_planes, planes[2], threads, (sums, dw, planes, groups, kernel[0] * kernel[1], lanes))
