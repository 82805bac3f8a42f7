"""Winograd's convolution with 3 x 3 kernels and stride 1: F(4x4, 3x3) with a quarter, F(2x2, 3x3) with 4/9 of the products.

A dilated convolution is a plain one of each phase of the image: rows a, a + dilation, ... and columns likewise.

The image is copied once with channels last, padded to whole patches, so that every transform (``sandwich``) works on vectors
of channels. A block of patches then goes through three phases, each in parallel: the patches of all channels become
V (f, t, c), one matrix for each of the f = (m + 2)^2 places (GAP numbers apart); the products M_f = V_f U_f with the transformed weights
U (f, panel, c, lane); and M (f, t, k) becomes patches of y, plus the bias. A block is as large as keeps V and M in the cache.

The weight gradient is the same bilinear form turned: dU_f = V_f^T (A dy A^T)_f summed over all patches t, then G^T dU G.
The input gradient is a forward pass with the weights flipped. Errors are a few 1e-6 of the largest output in float32. A
product of infinities or NaN spoils the whole patch: ``spoiled`` says where, and the caller computes that another way.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.rows import clear_row
from funcnn.kernels.cpu.sandwich import (
    from_products_2,
    from_products_4,
    from_weights_2,
    from_weights_4,
    spread_outputs_2,
    spread_outputs_4,
    to_products_2,
    to_products_4,
    to_weights_2,
    to_weights_4,
)
from funcnn.kernels.cpu.tiles import tile_strided
from funcnn.kernels.cpu.turn import turn_tile
from funcnn.kernels.cpu.vector import pointer, shift

GAP = 16  # numbers between matrices f: else the 36 places of a patch fall into few sets of the first-level cache


# ---- channels last ----------------------------------------------------------------------------------------------------
@device_function
def turn_row(chunk, worker, x, image, sizes, padded, before, apart):
    """Row h of image n: (C, W) to (W, C) between zeros; images are the phases of x, whose rows and columns lie ``apart``."""
    C, H, W = sizes
    Hp, Wp, Cp, lanes = padded
    image_n, h = chunk // Hp, chunk % Hp
    n, a, b = image_n // (apart[0] * apart[1]), image_n // apart[1] % apart[0], image_n % apart[1]
    h = h * apart[0] + a - before[0]
    step, column = apart[1], b - before[1]
    first = max(0, -(column // step))
    last = max(first, min(Wp, (W - 1 - column) // step + 1))
    target = pointer(image, chunk * Wp * Cp)
    if h < 0 or h >= H:
        clear_row(target, Wp * Cp)
        return
    clear_row(target, first * Cp)
    clear_row(shift(target, last * Cp), (Wp - last) * Cp)
    for c in range(0, C, lanes):
        source = pointer(x, ((n * C + c) * H + h) * W + first * step + column)
        row = pointer(image, (chunk * Wp + first) * Cp + c)
        if step == 1 and c + lanes <= C:
            for w in range(0, last - first, lanes):
                turn_tile(shift(source, w), H * W, shift(row, w * Cp), Cp, min(lanes, last - first - w))
        else:
            for w in range(last - first):
                for i in range(min(lanes, C - c)):
                    row[w * Cp + i] = source[i * H * W + w * step]


# ---- the phases ---------------------------------------------------------------------------------------------------------
@device_function
def make_products(chunk, worker, image, V, m, first, many, tiles, padded, channel, channels, width, outputs):
    """Patches ``first + chunk * many ...`` of the image, transformed for ``channels`` channels into V (f, tiles, width).

    outputs: patches are m x m of a cotangent, else (m + 2) x (m + 2) of an input.
    """
    Hp, Wp, Cp, across, down, lanes, last = padded
    for t in range(chunk * many, min((chunk + 1) * many, min(tiles, last - first))):
        n, rest = (first + t) // (across * down), (first + t) % (across * down)
        base = ((n * Hp + rest // across * m) * Wp + rest % across * m) * Cp + channel
        for c in range(0, channels, lanes):
            source, target = pointer(image, base + c), pointer(V, t * width + c)
            if outputs:
                if m == 4:
                    spread_outputs_4(source, Wp * Cp, Cp, target, tiles * width + GAP)
                else:
                    spread_outputs_2(source, Wp * Cp, Cp, target, tiles * width + GAP)
            elif m == 4:
                to_products_4(source, Wp * Cp, Cp, target, tiles * width + GAP)
            else:
                to_products_2(source, Wp * Cp, Cp, target, tiles * width + GAP)


@device_function
def multiply(chunk, worker, V, U, M, place, tile, channels, tiles, count, width, panels, apart):
    """M_f = V_f U_f for one f and one panel of output channels."""
    rows, columns = tile
    f, k = chunk // panels, chunk % panels
    b = pointer(U, place + chunk * channels * columns)
    for t in range(0, count, rows):
        a, c = (
            pointer(V, f * (tiles * width + GAP) + t * width),
            pointer(M, f * (tiles * apart + GAP) + t * apart + k * columns),
        )
        tile_strided(channels, a, 1, width, b, columns, c, apart, False)


@device_function
def make_outputs(
    chunk, worker, M, y, bias, scratch, spoiled, m, first, many, tiles, padded, channel, channels, width, sizes, apart
):
    """Patches of y from M (f, tiles, width), with the bias; ``spoiled`` is not 0 where one is not finite."""
    across, down, lanes, last = padded[3:]
    K, P, Q = sizes
    Y, turned = pointer(scratch, worker * 32 * lanes), pointer(scratch, (worker * 2 + 1) * 16 * lanes)
    for t in range(chunk * many, min((chunk + 1) * many, min(tiles, last - first))):
        image_n, rest = (first + t) // (across * down), (first + t) % (across * down)
        p, q = rest // across * m, rest % across * m
        n, a, b = image_n // (apart[0] * apart[1]), image_n // apart[1] % apart[0], image_n % apart[1]
        rows = min(m, (P - a + apart[0] - 1) // apart[0] - p)
        columns = min(m, (Q - b + apart[1] - 1) // apart[1] - q)
        bad = spoiled[first + t]
        for k in range(0, channels, lanes):
            source = pointer(M, t * width + k)
            if m == 4:
                from_products_4(source, 6 * (tiles * width + GAP), tiles * width + GAP, Y, lanes)
            else:
                from_products_2(source, 4 * (tiles * width + GAP), tiles * width + GAP, Y, lanes)
            for i in range(m * m * lanes):
                bad += Y[i] * 0
            if m == 4:
                for pixel in range(0, 16, lanes):
                    turn_tile(shift(Y, pixel * lanes), lanes, shift(turned, pixel), 16, lanes)
            for i in range(min(lanes, channels - k)):
                add = bias[channel + k + i]
                target = pointer(y, ((n * K + channel + k + i) * P + p * apart[0] + a) * Q + q * apart[1] + b)
                if m == 4 and columns == 4 and apart[1] == 1:
                    for r in range(rows):
                        for s in range(4):
                            target[r * apart[0] * Q + s] = turned[i * 16 + r * 4 + s] + add
                else:
                    for r in range(rows):
                        for s in range(columns):
                            target[r * apart[0] * Q + s * apart[1]] = Y[(r * m + s) * lanes + i] + add
        spoiled[first + t] = bad


@device_function
def transform_weights(chunk, worker, packed, U, m, channels, panels, columns, lanes):
    """The nine taps of one (group, panel, channel) to the places f of U (group, f, panel, channel, lane)."""
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


@kernel
def winograd_weights(packed, U, m, groups, channels, panels, columns, lanes, threads):
    """U (group, f, panel, channel, lane) from weights packed in panels (group, panel, channel, tap, lane)."""
    parallel_for(
        transform_weights, groups * panels * channels, threads, (packed, U, m, channels, panels, columns, lanes)
    )


@kernel
def winograd_forward(
    x, U, bias, y, image, V, M, scratch, spoiled, m, groups, tile, tiles, many, sizes, before, apart, padded, threads
):
    """y (N, K, P, Q) from x (N, C, H, W) and transformed weights, ``tiles`` patches at a time, ``many`` in a chunk.

    sizes: C, H, W. apart: the dilation, down and across. padded: the image's height, width and channels, patches across and
    down, lanes of a vector, all patches.
    """
    N, K, P, Q = y.shape
    C, k = sizes[0] // groups, K // groups
    places, last = (m + 2) * (m + 2), padded[6]
    width, panels = (C + padded[5] - 1) // padded[5] * padded[5], (k + tile[1] - 1) // tile[1]
    row = panels * tile[1]
    parallel_for(
        turn_row,
        N * apart[0] * apart[1] * padded[0],
        threads,
        (x, image, sizes, (padded[0], padded[1], padded[2], padded[5]), before, apart),
    )
    for first in range(0, last, tiles):
        count = min(tiles, last - first)
        chunks = (count + many - 1) // many
        for g in range(groups):
            args = (image, V, m, first, many, tiles, padded, g * C, C, width, False)
            parallel_for(make_products, chunks, threads, args)
            place = g * places * panels * C * tile[1]
            products = (V, U, M, place, tile, C, tiles, count, width, panels, row)
            parallel_for(multiply, places * panels, threads, products)
            outputs = (M, y, bias, scratch, spoiled, m, first, many, tiles, padded, g * k, k, row, (K, P, Q), apart)
            parallel_for(make_outputs, chunks, threads, outputs)


# ---- the weight gradient --------------------------------------------------------------------------------------------------
@device_function
def multiply_transposed(chunk, worker, V, D, dU, tile, channels, tiles, count, width, apart, blocks, more):
    """dU_f (+)= V_f^T D_f for one f and one tile of input channels."""
    rows, columns = tile
    f, c = chunk // blocks, chunk % blocks * rows
    for k in range(0, apart, columns):
        a, b = pointer(V, f * (tiles * width + GAP) + c), pointer(D, f * (tiles * apart + GAP) + k)
        tile_strided(
            count, a, width, 1, b, apart, pointer(dU, f * (blocks * rows * apart + GAP) + c * apart + k), apart, more
        )


@device_function
def make_weights(chunk, worker, dU, dw, scratch, m, group, k, channels, apart, wide, lanes):
    """G^T dU G of one input channel, for all output channels of a group."""
    taps = pointer(scratch, worker * 9 * lanes)
    for start in range(0, k, lanes):
        source = pointer(dU, chunk * apart + start)
        if m == 4:
            from_weights_4(source, 6 * (wide * apart + GAP), wide * apart + GAP, taps, lanes)
        else:
            from_weights_2(source, 4 * (wide * apart + GAP), wide * apart + GAP, taps, lanes)
        for i in range(min(lanes, k - start)):
            target = pointer(dw, ((group * k + start + i) * channels + chunk) * 9)
            for tap in range(9):
                target[tap] = taps[tap * lanes + i]


@kernel
def winograd_weight_grad(
    x,
    dy,
    dw,
    image,
    other,
    V,
    D,
    dU,
    scratch,
    m,
    groups,
    tile,
    tiles,
    many,
    sizes,
    before,
    apart,
    padded,
    around,
    threads,
):
    """dw (K, C, 3, 3) from x and dy; ``image`` and ``other`` hold them with channels last, padded to whole patches."""
    N, K, P, Q = dy.shape
    C, k = sizes[0] // groups, K // groups
    places, last, lanes = (m + 2) * (m + 2), padded[6], padded[5]
    width, row = (C + lanes - 1) // lanes * lanes, (k + tile[1] - 1) // tile[1] * tile[1]
    blocks = (C + tile[0] - 1) // tile[0]
    images = N * apart[0] * apart[1]
    parallel_for(
        turn_row,
        images * padded[0],
        threads,
        (x, image, sizes, (padded[0], padded[1], padded[2], padded[5]), before, apart),
    )
    parallel_for(
        turn_row,
        images * around[0],
        threads,
        (dy, other, (K, P, Q), (around[0], around[1], around[2], lanes), (0, 0), apart),
    )
    for g in range(groups):
        for first in range(0, last, tiles):
            count = min(tiles, last - first)
            chunks = (count + many - 1) // many
            inputs = (image, V, m, first, many, tiles, padded, g * C, C, width, False)
            parallel_for(make_products, chunks, threads, inputs)
            cotangents = (other, D, m, first, many, tiles, around, g * k, k, row, True)
            parallel_for(make_products, chunks, threads, cotangents)
            products = (V, D, dU, tile, C, tiles, count, width, row, blocks, first > 0)
            parallel_for(multiply_transposed, places * blocks, threads, products)
        weights = (dU, dw, scratch, m, g, k, C, row, blocks * tile[0], lanes)
        parallel_for(make_weights, C, threads, weights)
