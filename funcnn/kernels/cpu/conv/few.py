"""Convolution of few pixels with many weights: the weights are read once, as they lie, and the pixels are unfolded.

The other products pack the weights in panels, which pays where many pixels share a panel. An image of 4 x 4 with 512
channels has 16 pixels for 9.4 MB of weights: packing takes four times as long as the product. Here the M pixels of the batch
are unfolded to rows of all R taps (c, i, j), one move for 2 K flops, and

- outputs are dot products of rows of weights with rows of pixels (``tile_dots``), in float64 after some hundred elements;
- gradients of inputs are sums over the output channels of rows of weights (``tile_strided``), for a block of input channels
  at a time, whose taps are then added to where they belong;
- gradients of weights are sums over the pixels of their unfolded rows, written where the weights lie.

2 K R M flops each, R K weights read or written once. The largest error in float32 is 2e-7 of the largest output, 4e-7 of the
largest gradient of an input.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.tiles import tile_dots, tile_strided
from funcnn.kernels.cpu.vector.transpose import lanes_of

# Output channels, or pixels, of one running sum: a tile of so many rows of weights fits the first-level cache.
SUM_TERMS = 128


# ---- pixels -------------------------------------------------------------------------------------------------------------
@device_function
def unfold_pixel(chunk, worker, x, unfolded, places, sizes):
    """Works on row ``chunk`` of the unfolded pixels: the elements of all channels that its taps meet, zero where that is padding."""
    inner, _, taps, pixels, volume, _, pitch = sizes
    n, p = chunk // pixels, chunk % pixels
    row, table = pointer(unfolded, chunk * pitch), pointer(places, p * taps)
    for c in range(inner):
        source, target = pointer(x, (n * inner + c) * volume), shift(row, c * taps)
        for t in range(taps):
            at = table[t]
            target[t] = source[at] if at >= 0 else 0
    clear_row(shift(row, inner * taps), pitch - inner * taps)


@device_function
def join_images(chunk, worker, dy, joined, sizes, along, apart):
    """Writes joined[k * along + m * apart] = channel k = ``chunk`` of pixel m of the batch."""
    _, lanes, _, pixels, _, batch, _ = sizes
    for n in range(batch):
        source = pointer(dy, (n * lanes + chunk) * pixels)
        for p in range(pixels):
            joined[chunk * along + (n * pixels + p) * apart] = source[p]


# ---- outputs ------------------------------------------------------------------------------------------------------------
@device_function
def add_rest(w, unfolded, c, first, count, rows, columns, wide):
    """The products of the last elements of some rows, fewer than a vector: ``c`` (rows, columns) of a tile ``wide`` elements wide."""
    for i in range(rows[1]):
        for j in range(columns[1]):
            left, right, total = shift(w, i * rows[0] + first), shift(unfolded, j * columns[0] + first), 0.0
            for r in range(first, count):
                total += left[r - first] * right[r - first]
            c[i * wide + j] += total


@device_function
def few_outputs(chunk, worker, w, bias, y, unfolded, sums, rows, offsets, sizes, tile, deep, piece):
    """Works on output channels ``chunk * deep`` and following, of all pixels."""
    inner, lanes, taps, pixels, _, batch, pitch = sizes
    many, each = tile
    size, count, total = many * each, inner * taps, batch * pixels
    across, low, high = (total + each - 1) // each, chunk * deep, min(lanes, (chunk + 1) * deep)
    panels = (high - low + many - 1) // many
    c = pointer(sums, worker * (deep // many) * across * size)
    for i in range(panels * across * size):
        c[i] = 0
    whole = count // lanes_of(pointer(w, 0)) * lanes_of(pointer(w, 0))
    for start in range(0, whole, piece):
        left = pointer(w, start)
        for m in range(across):
            right, columns = pointer(unfolded, start), pointer(offsets, m * each)
            for k in range(panels):
                target = shift(c, (k * across + m) * size)
                tile_dots(min(piece, whole - start), left, pointer(rows, low + k * many), right, columns, target)
    for k in range(panels):
        here = min(many, high - low - k * many)
        for m in range(across):
            place, some = shift(c, (k * across + m) * size), min(each, total - m * each)
            left, right = pointer(w, (low + k * many) * count), pointer(unfolded, m * each * pitch)
            add_rest(left, right, place, whole, count, (count, here), (pitch, some), each)
            for i in range(here):
                channel = low + k * many + i
                for j in range(some):
                    n, p = (m * each + j) // pixels, (m * each + j) % pixels
                    y[(n * lanes + channel) * pixels + p] = place[i * each + j] + bias[channel]


@kernel(
    touches={
        "x": lambda sizes: sizes[5] * sizes[0] * sizes[4],
        "w": lambda sizes: sizes[1] * sizes[0] * sizes[2],
        "bias": lambda sizes: sizes[1],
        "y": lambda sizes: sizes[5] * sizes[1] * sizes[3],
        "unfolded": lambda sizes: sizes[5] * sizes[3] * sizes[6],
        "sums": lambda sizes, tile, deep, threads: (
            threads * -(-deep // tile[0]) * -(-sizes[5] * sizes[3] // tile[1]) * tile[0] * tile[1]
        ),
        "places": lambda sizes: sizes[2] * sizes[3],
        "rows": lambda sizes, tile: -(-sizes[1] // tile[0]) * tile[0],
        "offsets": lambda sizes, tile: -(-sizes[5] * sizes[3] // tile[1]) * tile[1],
    }
)
def convolve_few(x, w, bias, y, unfolded, sums, places, rows, offsets, sizes, tile, deep, piece, threads):
    """Writes y = bias + w * x. places: which number of a volume of x each tap of each pixel meets, -1 for padding.

    rows, offsets: where rows of weights and of unfolded pixels begin, repeated to whole tiles. sizes: channels of x and of y, taps,
    pixels of an image of y, elements of a volume of x, images, and of an unfolded pixel. deep: channels of a chunk, in
    whole tiles. piece: elements of a row at a time, in whole vectors.
    """
    parallel_for(unfold_pixel, sizes[5] * sizes[3], threads, (x, unfolded, places, sizes))
    args = (w, bias, y, unfolded, sums, rows, offsets, sizes, tile, deep, piece)
    parallel_for(few_outputs, (sizes[1] + deep - 1) // deep, threads, args)


# ---- gradients of inputs --------------------------------------------------------------------------------------------------
@device_function
def sum_rows(joined, w, c, columns, wide, sizes, across, tile):
    """Writes c (pixels, ``wide``) = for ``columns`` taps the sums over all output channels; the last tile begins in the one before."""
    inner, lanes, taps = sizes[0], sizes[1], sizes[2]
    for start in range(0, columns, tile[1]):
        r = min(start, columns - tile[1])
        for k in range(0, lanes, SUM_TERMS):
            source = shift(w, k * inner * taps + r)
            for m in range(0, across, tile[0]):
                factors, target = shift(joined, k * across + m), shift(c, m * wide + r)
                tile_strided(min(SUM_TERMS, lanes - k), factors, across, 1, source, inner * taps, target, wide, k > 0)


@device_function
def few_inputs(chunk, worker, w, bias, dx, joined, scratch, places, sizes, across, tile, each):
    """Input channels ``chunk * each`` and following: the products of all their taps, added to where they belong."""
    inner, _, taps, pixels, volume, batch, _ = sizes
    first, last = chunk * each, min(inner, (chunk + 1) * each)
    before = min(first, max(0, last - each))  # as many channels as fill a tile
    wide, c = each * taps, pointer(scratch, worker * across * each * taps)
    sum_rows(pointer(joined, 0), pointer(w, before * taps), c, (last - before) * taps, wide, sizes, across, tile)
    for n in range(batch):
        for channel in range(first, last):
            target = pointer(dx, (n * inner + channel) * volume)
            for i in range(volume):
                target[i] = bias[channel]
            for p in range(pixels):
                source, table = shift(c, (n * pixels + p) * wide + (channel - before) * taps), pointer(places, p * taps)
                for t in range(taps):
                    if table[t] >= 0:
                        target[table[t]] += source[t]


@kernel(
    touches={
        "dy": lambda sizes: sizes[5] * sizes[1] * sizes[3],
        "w": lambda sizes: sizes[1] * sizes[0] * sizes[2],
        "bias": lambda sizes: sizes[0],
        "dx": lambda sizes: sizes[5] * sizes[0] * sizes[4],
        "joined": lambda sizes, across: sizes[1] * across,
        "scratch": lambda sizes, across, each, threads: threads * across * each * sizes[2],
        "places": lambda sizes: sizes[2] * sizes[3],
    }
)
def few_input_grad(dy, w, bias, dx, joined, scratch, places, sizes, across, tile, each, threads):
    """dx from dy and w. across: pixels of the batch, in whole tiles. each: input channels of a chunk. The others: ``convolve_few``."""
    for k in range(sizes[1]):
        clear_row(pointer(joined, k * across), across)
    parallel_for(join_images, sizes[1], threads, (dy, joined, sizes, across, 1))
    args = (w, bias, dx, joined, scratch, places, sizes, across, tile, each)
    parallel_for(few_inputs, (sizes[0] + each - 1) // each, threads, args)


# ---- gradients of weights -------------------------------------------------------------------------------------------------
@device_function
def sum_pixels(factors, source, place, c, valid, total, count, pitch, tile):
    """A tile of dw, of which ``valid`` rows are written; a tile that is not full comes by way of c."""
    rows, columns = tile
    for m in range(0, total, SUM_TERMS):
        many, a, b = min(SUM_TERMS, total - m), shift(factors, m), shift(source, m * pitch)
        if valid == rows:
            tile_strided(many, a, 1, total, b, pitch, place, count, m > 0)
        else:
            tile_strided(many, a, 1, total, b, pitch, c, columns, m > 0)
    if valid < rows:
        for i in range(valid):
            copy_row(shift(place, i * count), shift(c, i * columns), columns)


@device_function
def few_weights(chunk, worker, joined, unfolded, dw, scratch, sizes, tile, deep):
    """``deep`` tiles of rows of dw, written where they lie: the pixels of some taps are read once for all of them."""
    inner, lanes, taps, pixels, _, batch, pitch = sizes
    rows, columns = tile
    count, total, c = inner * taps, batch * pixels, pointer(scratch, worker * rows * columns)
    for start in range(0, count, columns):
        r = min(start, count - columns)
        for k in range(chunk * deep * rows, min((chunk + 1) * deep * rows, lanes), rows):
            factors, source, place = pointer(joined, k * total), pointer(unfolded, r), pointer(dw, k * count + r)
            sum_pixels(factors, source, place, c, min(rows, lanes - k), total, count, pitch, tile)


@kernel(
    touches={
        "x": lambda sizes: sizes[5] * sizes[0] * sizes[4],
        "dy": lambda sizes: sizes[5] * sizes[1] * sizes[3],
        "dw": lambda sizes: sizes[1] * sizes[0] * sizes[2],
        "joined": lambda sizes, tile: -(-sizes[1] // tile[0]) * tile[0] * sizes[5] * sizes[3],
        "unfolded": lambda sizes: sizes[5] * sizes[3] * sizes[6],
        "scratch": lambda tile, threads: threads * tile[0] * tile[1],
        "places": lambda sizes: sizes[2] * sizes[3],
    }
)
def few_weight_grad(x, dy, dw, joined, unfolded, scratch, places, sizes, tile, deep, threads):
    """dw from x and dy; joined: room for channels of dy in whole tiles. deep: tiles of a chunk. The others: see ``convolve_few``."""
    parallel_for(unfold_pixel, sizes[5] * sizes[3], threads, (x, unfolded, places, sizes))
    total, used = sizes[5] * sizes[3], sizes[1] * sizes[5] * sizes[3]
    clear_row(pointer(joined, used), joined.size - used)
    parallel_for(join_images, sizes[1], threads, (dy, joined, sizes, total, 1))
    args, each = (joined, unfolded, dw, scratch, sizes, tile, deep), deep * tile[0]
    parallel_for(few_weights, (sizes[1] + each - 1) // each, threads, args)
