"""Winograd's convolution with 3 x 3 kernels and stride 1: F(4x4, 3x3) with a quarter, F(2x2, 3x3) with 4/9 of the products.

A dilated convolution is a plain one of each phase of the image: rows a, a + dilation, ... and columns likewise.

The image is copied once with channels last, padded to whole patches, so that every transform (``sandwich``) works on
vectors of channels. A block of patches then goes through three phases, each in parallel: the patches of all channels
become V (f, t, c), one matrix for each of the f = (m + 2)^2 places (GAP_ELEMENTS elements apart); the products M_f = V_f U_f with
the transformed weights U (f, panel, c, lane); and M (f, t, k) becomes patches of y, plus the bias. A block is as large
as keeps V and M in the cache.

With taps in depth too, M_f sums the products with the planes that the taps reach; a block is then a whole volume.

The weight gradient is the same bilinear form transposed: dU_f = V_f^T (A dy A^T)_f summed over all patches t, then G^T dU G.
The input gradient is a forward pass with the weights flipped.

Channels are summed SUM_TERMS at a time, and the sums added up: in float32 the largest error is 1.0e-6 to 1.3e-6 of the largest
output for 64 to 512 channels, that of plain sums in runs 3e-7 to 4e-7 (``python -m benchmarks.conv_errors``). A
product of infinities or NaN spoils the whole patch: ``spoiled`` says where, and the plan gives way to another.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv import winograd_touches as touched
from funcnn.kernels.cpu.conv.winograd_transform import (
    from_outputs_2,
    from_outputs_4,
    from_products_2,
    from_products_4,
    from_weights_2,
    from_weights_4,
    to_products_2,
    to_products_4,
    to_weights_2,
    to_weights_4,
)
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import tile_strided
from funcnn.kernels.cpu.vector.transpose import transpose

# Elements between matrices f: else the 36 places of a patch fall into few sets of the first-level cache.
GAP_ELEMENTS = 16
SUM_TERMS = 40  # channels, or for weight gradients patches, of one running sum: such sums are added up


# ---- channels last ----------------------------------------------------------------------------------------------------
@device_function
def phase_of(image, apart):
    """(plane, row phase, column phase) of an image."""
    return image // (apart[0] * apart[1]), image // apart[1] % apart[0], image % apart[1]


@device_function
def transpose_row(chunk, worker, x, image, sizes, padded, before, apart):
    """Works on row h of an image: (C, W) to (W, C) between zeros. Images: (n, d), phases, whose rows and columns lie ``apart``."""
    C, D, H, W = sizes
    Hp, Wp, Cp, lanes = padded
    plane, a, b = phase_of(chunk // Hp, apart)
    h = chunk % Hp * apart[0] + a - before[0]
    step, column = apart[1], b - before[1]
    first = max(0, -(column // step))
    last = max(first, min(Wp, (W - 1 - column) // step + 1))
    target = pointer(image, chunk * Wp * Cp)
    if h < 0 or h >= H:
        clear_row(target, Wp * Cp)
        return
    clear_row(target, first * Cp)
    clear_row(shift(target, last * Cp), (Wp - last) * Cp)
    source = pointer(x, (plane // D * C * D + plane % D) * H * W + h * W + first * step + column)
    row = pointer(image, (chunk * Wp + first) * Cp)
    if step == 1:
        transpose(source, D * H * W, row, Cp, C, last - first)
    else:
        for c in range(0, C, lanes):
            for w in range(last - first):
                for i in range(c, min(c + lanes, C)):
                    row[w * Cp + i] = source[i * D * H * W + w * step]


# ---- the phases ---------------------------------------------------------------------------------------------------------
@device_function
def make_products(chunk, worker, image, V, m, block, many, padded, channel, channels, width, step, outputs):
    """Patches ``chunk * many ...`` of a block, transformed for ``channels`` channels into V (f, patches, width).

    block: its first patch, and how many. step: from one f to the next. outputs: patches are m x m of a cotangent, else
    (m + 2) x (m + 2) of an input.
    """
    Hp, Wp, Cp, across, down, lanes = padded
    for t in range(chunk * many, min((chunk + 1) * many, block[1])):
        n, rest = (block[0] + t) // (across * down), (block[0] + t) % (across * down)
        base = ((n * Hp + rest // across * m) * Wp + rest % across * m) * Cp + channel
        for c in range(0, channels, lanes):
            source, target = pointer(image, base + c), pointer(V, t * width + c)
            if outputs:
                if m == 4:
                    from_outputs_4(source, Wp * Cp, Cp, target, step)
                else:
                    from_outputs_2(source, Wp * Cp, Cp, target, step)
            elif m == 4:
                to_products_4(source, Wp * Cp, Cp, target, step)
            else:
                to_products_2(source, Wp * Cp, Cp, target, step)


@device_function
def multiply(chunk, worker, V, U, M, place, tile, channels, width, row, steps, depth, patches):
    """Writes M_f = V_f U_f for one f and one panel of output channels, plane by plane of ``patches``, summed over taps in depth."""
    rows, columns = tile
    planes, goal, taps, before, dilation = depth
    panels, blocks = row // columns, (channels + SUM_TERMS - 1) // SUM_TERMS
    f, k = chunk // panels, chunk % panels
    for d in range(goal):
        for t in range(0, patches, rows):
            c, more = pointer(M, f * steps[1] + (d * patches + t) * row + k * columns), False
            for tap in range(taps):
                plane = d + tap * dilation - before
                if 0 <= plane < planes:
                    a = pointer(V, f * steps[0] + (plane * patches + t) * width)
                    b = pointer(U, place + (chunk * taps + tap) * channels * columns)
                    for block in range(blocks):
                        first = channels * block // blocks
                        many = channels * (block + 1) // blocks - first
                        tile_strided(many, shift(a, first), 1, width, shift(b, first * columns), columns, c, row, more)
                        more = True
            if not more:
                for i in range(rows):
                    clear_row(shift(c, i * row), columns)


@device_function
def make_outputs(
    chunk, worker, M, y, bias, scratch, spoiled, m, block, many, padded, channel, channels, width, step, out, apart
):
    """Patches of y from M (f, patches, width), with the bias; ``spoiled`` is not 0 where one is not finite."""
    across, down, lanes = padded[3:]
    K, D, P, Q = out
    Y, transposed = pointer(scratch, worker * 32 * lanes), pointer(scratch, (worker * 2 + 1) * 16 * lanes)
    for t in range(chunk * many, min((chunk + 1) * many, block[1])):
        image, rest = (block[0] + t) // (across * down), (block[0] + t) % (across * down)
        p, q = rest // across * m, rest % across * m
        plane, a, b = phase_of(image, apart)
        rows = min(m, (P - a + apart[0] - 1) // apart[0] - p)
        columns = min(m, (Q - b + apart[1] - 1) // apart[1] - q)
        bad = spoiled[block[0] + t]
        for k in range(0, channels, lanes):
            source = pointer(M, t * width + k)
            if m == 4:
                from_products_4(source, 6 * step, step, Y, lanes)
            else:
                from_products_2(source, 4 * step, step, Y, lanes)
            for i in range(m * m * lanes):
                bad += Y[i] * 0
            if m == 4:
                transpose(Y, lanes, transposed, 16, 16, lanes)
            for i in range(min(lanes, channels - k)):
                add = bias[channel + k + i]
                at = ((plane // D * K + channel + k + i) * D + plane % D) * P * Q
                target = pointer(y, at + (p * apart[0] + a) * Q + q * apart[1] + b)
                if m == 4 and columns == 4 and apart[1] == 1:
                    for r in range(rows):
                        for s in range(4):
                            target[r * apart[0] * Q + s] = transposed[i * 16 + r * 4 + s] + add
                else:
                    for r in range(rows):
                        for s in range(columns):
                            target[r * apart[0] * Q + s * apart[1]] = Y[(r * m + s) * lanes + i] + add
        spoiled[block[0] + t] = bad


@device_function
def transform_weights(chunk, worker, packed, U, m, channels, panels, columns, lanes):
    """Works on the nine taps of one (group, panel, channel) to the places f of U (group, f, panel, channel, lane)."""
    places = (m + 2) * (m + 2)
    rest, c = chunk // channels, chunk % channels
    g, k = rest // panels, rest % panels
    for i in range(0, columns, lanes):
        source = pointer(packed, chunk * 9 * columns + i)
        target = pointer(U, ((g * places * panels + k) * channels + c) * columns + i)
        if m == 4:
            to_weights_4(source, 3 * columns, columns, target, panels * channels * columns)
        else:
            to_weights_2(source, 3 * columns, columns, target, panels * channels * columns)


@kernel(touches=touched.WEIGHTS)
def winograd_weights(packed, U, m, groups, channels, panels, columns, lanes, threads):
    """U (group, f, panel, channel, lane) from weights packed in panels (group, panel, channel, tap, lane)."""
    parallel_for(
        transform_weights, groups * panels * channels, threads, (packed, U, m, channels, panels, columns, lanes)
    )


@kernel(touches=touched.FORWARD)
def winograd_forward(
    x, U, bias, y, image, V, M, scratch, spoiled, m, groups, tile, blocks, many, sizes, out, depth, before, apart, padded,
    threads,
):  # fmt: skip
    """y (N, K, D, P, Q) from x (N, C, D, H, W) and transformed weights, a block of patches at a time, ``many`` in a chunk.

    blocks: patches of a block of x and of y, and of all x and all y. sizes: C, D, H, W. out: K, D, P, Q. depth: planes of x
    and y that a product sums over, its taps in depth, padding and dilation there. apart: the dilation, down and across.
    padded: the image's height, width and channels, patches across and down, lanes of a vector.
    """
    lanes, C, k = padded[5], sizes[0] // groups, out[0] // groups
    width, row = (C + lanes - 1) // lanes * lanes, (k + tile[1] - 1) // tile[1] * tile[1]
    steps = ((V.size - tile[1]) // ((m + 2) * (m + 2)), (M.size - tile[1]) // ((m + 2) * (m + 2)))
    rows = (x, image, sizes, (padded[0], padded[1], padded[2], lanes), before, apart)
    parallel_for(transpose_row, blocks[2] // (padded[3] * padded[4]) * padded[0], threads, rows)
    for block in range((blocks[2] + blocks[0] - 1) // blocks[0]):
        given = (block * blocks[0], min(blocks[0], blocks[2] - block * blocks[0]))
        made = (block * blocks[1], min(blocks[1], blocks[3] - block * blocks[1]))
        for g in range(groups):
            args = (image, V, m, given, many, padded, g * C, C, width, steps[0], False)
            parallel_for(make_products, (given[1] + many - 1) // many, threads, args)
            place = g * (m + 2) * (m + 2) * depth[2] * C * row
            products = (V, U, M, place, tile, C, width, row, steps, depth, made[1] // depth[1])
            parallel_for(multiply, (m + 2) * (m + 2) * (row // tile[1]), threads, products)
            outputs = (M, y, bias, scratch, spoiled, m, made, many, padded, g * k, k, row, steps[1], out, apart)
            parallel_for(make_outputs, (made[1] + many - 1) // many, threads, outputs)


# ---- the weight gradient --------------------------------------------------------------------------------------------------
@device_function
def multiply_transposed(chunk, worker, V, D, dU, tile, width, row, steps, wide, depth, patches, more):
    """Writes dU_f (+)= V_f^T D_f for one f, one tap in depth and one tile of input channels, summed over planes of ``patches``."""
    rows, columns = tile
    planes, goal, taps, before, dilation = depth
    c, rest = chunk % (wide // rows) * rows, chunk // (wide // rows)
    f, tap = rest // taps, rest % taps
    low, high = max(0, before - tap * dilation), min(goal, planes + before - tap * dilation)
    for k in range(0, row, columns):
        target = pointer(dU, f * steps[2] + (tap * wide + c) * row + k)
        for d in range(low, high):
            a = pointer(V, f * steps[0] + (d + tap * dilation - before) * patches * width + c)
            b = pointer(D, f * steps[1] + d * patches * row + k)
            for t in range(0, patches, SUM_TERMS):
                many, done = min(SUM_TERMS, patches - t), more or d > low or t > 0
                tile_strided(many, shift(a, t * width), width, 1, shift(b, t * row), row, target, row, done)
        if high <= low and not more:
            for i in range(rows):
                clear_row(shift(target, i * row), columns)


@device_function
def make_weights(chunk, worker, dU, dw, scratch, m, first, k, channels, taps, row, wide, step, lanes):
    """G^T dU G of one tap in depth and one input channel, for the ``k`` output channels of a group from ``first`` on."""
    tap, c = chunk // channels, chunk % channels
    nine = pointer(scratch, worker * 9 * lanes)
    for start in range(0, k, lanes):
        source = pointer(dU, (tap * wide + c) * row + start)
        if m == 4:
            from_weights_4(source, 6 * step, step, nine, lanes)
        else:
            from_weights_2(source, 4 * step, step, nine, lanes)
        for i in range(min(lanes, k - start)):
            target = pointer(dw, (((first + start + i) * channels + c) * taps + tap) * 9)
            for j in range(9):
                target[j] = nine[j * lanes + i]


@kernel(touches=touched.WEIGHT_GRAD)
def winograd_weight_grad(
    x, dy, dw, image, other, V, D, dU, scratch, m, groups, tile, blocks, many, sizes, out, depth, before, apart, padded,
    around, threads,
):  # fmt: skip
    """dw (K, C, taps, 3, 3) from x and dy; ``image`` and ``other`` hold them with channels last, padded to whole patches."""
    places, lanes = (m + 2) * (m + 2), padded[5]
    C, k = sizes[0] // groups, out[0] // groups
    width, row = (C + lanes - 1) // lanes * lanes, (k + tile[1] - 1) // tile[1] * tile[1]
    wide = (C + tile[0] - 1) // tile[0] * tile[0]
    steps = ((V.size - tile[1]) // places, (D.size - tile[1]) // places, dU.size // places)
    rows = (x, image, sizes, (padded[0], padded[1], padded[2], lanes), before, apart)
    parallel_for(transpose_row, blocks[2] // (padded[3] * padded[4]) * padded[0], threads, rows)
    rows = (dy, other, out, (around[0], around[1], around[2], lanes), (0, 0), apart)
    parallel_for(transpose_row, blocks[3] // (padded[3] * padded[4]) * around[0], threads, rows)
    for g in range(groups):
        for block in range((blocks[2] + blocks[0] - 1) // blocks[0]):
            given = (block * blocks[0], min(blocks[0], blocks[2] - block * blocks[0]))
            made = (block * blocks[1], min(blocks[1], blocks[3] - block * blocks[1]))
            inputs = (image, V, m, given, many, padded, g * C, C, width, steps[0], False)
            parallel_for(make_products, (given[1] + many - 1) // many, threads, inputs)
            cotangents = (other, D, m, made, many, around, g * k, k, row, steps[1], True)
            parallel_for(make_products, (made[1] + many - 1) // many, threads, cotangents)
            products = (V, D, dU, tile, width, row, steps, wide, depth, made[1] // depth[1], block > 0)
            parallel_for(multiply_transposed, places * depth[2] * (wide // tile[0]), threads, products)
        weights = (dU, dw, scratch, m, g * k, k, C, depth[2], row, wide, steps[2], lanes)
        parallel_for(make_weights, depth[2] * C, threads, weights)
