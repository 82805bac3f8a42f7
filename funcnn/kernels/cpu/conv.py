"""Convolution and its two gradients over three spatial dimensions; fewer are given as sizes of 1.

Arrays are x (N, C, D, H, W), w (K, C/groups, A, I, J), y (N, K, O, P, Q), C-contiguous; ``padding`` is that of the low
side, the high side follows from the output's size. All three kernels are matrix products on patches. For one image and
one group, output pixels t = (o, p, q) are taken in tiles; ``unfold`` copies what the taps r = (c, a, i, j) read into a
matrix of r by t (zeros in the padding), and ``dots`` multiplies:

    forward        y[k, t]    = sum over r of w[k, r] patch[t, r]      unfold by columns, then the product
    input grad     patch[r, t] = sum over k of w[k, r] dy[k, t]        the product, then ``fold`` adds patches to dx
    weight grad    dw[k, r]   = sum over t of dy[k, t] patch[r, t]     unfold by rows, then the product

``dots`` runs along the contiguous axis of both operands in 4 x 4 blocks: 8 loads for 16 multiply-adds, no stores and so
no aliasing checks, hence it is vectorised whatever stride and dilation are. Operands are padded with zeros to
multiples of 4 rows and 16 columns. Each does 2 N K (C/groups) A I J O P Q flops and moves the images about once per
tile's taps. A tile of patches is held under half a megabyte, to stay in the second-level cache.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel


@device_function
def ceil_to(n, unit):
    """``n`` rounded up to a multiple of ``unit``."""
    return (n + unit - 1) // unit * unit


@device_function
def tile_size(taps, pixels):
    """How many pixels' patches are held at once."""
    return max(1, min(pixels, max(32, min(256, 131072 // max(taps, 1)))))


@device_function
def dots(a, b, depth, out):
    """out[m, n] = sum over r < depth of a[m, r] * b[n, r]; the row counts of a and b are multiples of 4."""
    for m in range(0, a.shape[0], 4):
        a0, a1, a2, a3 = a[m], a[m + 1], a[m + 2], a[m + 3]
        for n in range(0, b.shape[0], 4):
            b0, b1, b2, b3 = b[n], b[n + 1], b[n + 2], b[n + 3]
            zero = a.dtype.type(0)
            s00, s01, s02, s03 = zero, zero, zero, zero
            s10, s11, s12, s13 = zero, zero, zero, zero
            s20, s21, s22, s23 = zero, zero, zero, zero
            s30, s31, s32, s33 = zero, zero, zero, zero
            for r in range(depth):
                x0, x1, x2, x3 = a0[r], a1[r], a2[r], a3[r]
                y0, y1, y2, y3 = b0[r], b1[r], b2[r], b3[r]
                s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
                s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
                s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
                s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
            out[m, n], out[m, n + 1], out[m, n + 2], out[m, n + 3] = s00, s01, s02, s03
            out[m + 1, n], out[m + 1, n + 1], out[m + 1, n + 2], out[m + 1, n + 3] = s10, s11, s12, s13
            out[m + 2, n], out[m + 2, n + 1], out[m + 2, n + 2], out[m + 2, n + 3] = s20, s21, s22, s23
            out[m + 3, n], out[m + 3, n + 1], out[m + 3, n + 2], out[m + 3, n + 3] = s30, s31, s32, s33


@device_function
def first_pixel(offset, stride):
    """The first output index q whose input index q * stride + offset is not negative."""
    return max(0, -(offset // stride))


@device_function
def last_pixel(offset, stride, size):
    """One past the last output index whose input index is below ``size``."""
    return (size - 1 - offset) // stride + 1


@device_function
def unfold(x, patch, start, stop, taps, pixels, stride, padding, dilation):
    """patch[r, t - start] = what tap r reads for output pixel t of x (C, D, H, W); 0 in the padding."""
    C, D, H, W = x.shape
    A, I, J = taps
    P, Q = pixels[1:]
    sw = stride[2]
    for r in range(C * A * I * J):
        c, a, i, j = r // (A * I * J), r // (I * J) % A, r // J % I, r % J
        base = j * dilation[2] - padding[2]
        first, last = first_pixel(base, sw), last_pixel(base, sw, W)
        t, o, p, q0 = start, start // (P * Q), start // Q % P, start % Q
        while t < stop:  # one piece of an output row after the other, counting up as divisions cost more than the copy
            q1 = min(Q, q0 + stop - t)
            d = o * stride[0] + a * dilation[0] - padding[0]
            h = p * stride[1] + i * dilation[1] - padding[1]
            out = patch[r, t - start : t - start + q1 - q0]
            if d < 0 or d >= D or h < 0 or h >= H:
                out[:] = 0
            else:
                lo = min(max(q0, first), q1)
                hi = max(min(q1, last), lo)
                out[: lo - q0] = 0
                row = x[c, d, h]
                for q in range(lo, hi):
                    out[q - q0] = row[q * sw + base]
                out[hi - q0 :] = 0
            t, p, q0 = t + q1 - q0, p + 1, 0
            if p == P:
                o, p = o + 1, 0


@device_function
def fold(patch, dx, start, stop, taps, pixels, stride, padding, dilation):
    """The transpose of ``unfold``: adds patch[r, t - start] to dx (C, D, H, W) where tap r reads for pixel t."""
    C, D, H, W = dx.shape
    A, I, J = taps
    P, Q = pixels[1:]
    sw = stride[2]
    for r in range(C * A * I * J):
        c, a, i, j = r // (A * I * J), r // (I * J) % A, r // J % I, r % J
        base = j * dilation[2] - padding[2]
        first, last = first_pixel(base, sw), last_pixel(base, sw, W)
        t, o, p, q0 = start, start // (P * Q), start // Q % P, start % Q
        while t < stop:
            q1 = min(Q, q0 + stop - t)
            d = o * stride[0] + a * dilation[0] - padding[0]
            h = p * stride[1] + i * dilation[1] - padding[1]
            if 0 <= d < D and 0 <= h < H:
                source = patch[r, t - start : t - start + q1 - q0]
                row = dx[c, d, h]
                for q in range(max(q0, first), min(q1, last)):
                    row[q * sw + base] += source[q - q0]
            t, p, q0 = t + q1 - q0, p + 1, 0
            if p == P:
                o, p = o + 1, 0


@kernel
def conv_forward(x, w, y, stride, padding, dilation, groups):
    """y[n, k, o, p, q] = sum over c, a, i, j of w[k, c, a, i, j] * x[n, c, o*s+a*d-pad, ...]."""
    K, C, taps, pixels = w.shape[0] // groups, w.shape[1], w.shape[2:], y.shape[2:]
    R, T = C * taps[0] * taps[1] * taps[2], pixels[0] * pixels[1] * pixels[2]
    tile, depth = tile_size(R, T), ceil_to(R, 16)
    flat_w, flat_y = w.reshape(groups * K, R), y.reshape(x.shape[0], groups * K, T)
    rows = np.zeros((ceil_to(K, 4), depth), x.dtype)
    patch = np.zeros(
        (ceil_to(tile, 4), depth + 16), x.dtype
    )  # + 16: a power of two as row length would thrash the cache
    out = np.empty((rows.shape[0], patch.shape[0]), x.dtype)
    for g in range(groups):
        rows[:K, :R] = flat_w[g * K : (g + 1) * K]
        for n in range(x.shape[0]):
            for t in range(0, T, tile):
                end = min(T, t + tile)
                unfold(x[n, g * C : (g + 1) * C], patch.T, t, end, taps, pixels, stride, padding, dilation)
                dots(rows, patch, depth, out)
                flat_y[n, g * K : (g + 1) * K, t:end] = out[:K, : end - t]


@kernel
def conv_input_grad(dy, w, dx, stride, padding, dilation, groups):
    """dx = the transpose of ``conv_forward`` in x: each dy[n, k, o, p, q] adds w[k, c, a, i, j] * dy where it was read."""
    K, C, taps, pixels = w.shape[0] // groups, w.shape[1], w.shape[2:], dy.shape[2:]
    R, T = C * taps[0] * taps[1] * taps[2], pixels[0] * pixels[1] * pixels[2]
    tile, depth = tile_size(R, T), ceil_to(K, 16)
    flat_w, flat_dy = w.reshape(groups * K, R), dy.reshape(dx.shape[0], groups * K, T)
    rows = np.zeros((ceil_to(R, 4), depth), dy.dtype)
    columns = np.zeros((ceil_to(tile, 4), depth), dy.dtype)
    patch = np.empty((rows.shape[0], columns.shape[0]), dy.dtype)
    dx[:] = 0
    for g in range(groups):
        rows[:R, :K] = flat_w[g * K : (g + 1) * K].T
        for n in range(dx.shape[0]):
            for t in range(0, T, tile):
                end = min(T, t + tile)
                columns[: end - t, :K] = flat_dy[n, g * K : (g + 1) * K, t:end].T
                dots(rows, columns, depth, patch)
                fold(patch, dx[n, g * C : (g + 1) * C], t, end, taps, pixels, stride, padding, dilation)


@kernel
def conv_weight_grad(x, dy, dw, stride, padding, dilation, groups):
    """dw[k, c, a, i, j] = sum over n, o, p, q of dy[n, k, o, p, q] * x[n, c, ...]; tiles add up in the arrays' type,
    the tiles' sums in float64."""
    K, C, taps, pixels = dw.shape[0] // groups, dw.shape[1], dw.shape[2:], dy.shape[2:]
    R, T = C * taps[0] * taps[1] * taps[2], pixels[0] * pixels[1] * pixels[2]
    tile = tile_size(R, T)
    flat_dw, flat_dy = dw.reshape(groups * K, R), dy.reshape(x.shape[0], groups * K, T)
    rows = np.zeros((ceil_to(K, 4), ceil_to(tile, 16)), x.dtype)
    patch = np.zeros((ceil_to(R, 4), rows.shape[1]), x.dtype)
    out = np.empty((rows.shape[0], patch.shape[0]), x.dtype)
    total = np.empty((K, R), np.float64)
    for g in range(groups):
        total[:] = 0
        for n in range(x.shape[0]):
            for t in range(0, T, tile):
                end = min(T, t + tile)
                rows[:K, : end - t] = flat_dy[n, g * K : (g + 1) * K, t:end]
                unfold(x[n, g * C : (g + 1) * C], patch, t, end, taps, pixels, stride, padding, dilation)
                rows[:, end - t :] = 0  # both: 0 times a NaN left by the previous tile is NaN
                patch[:, end - t :] = 0
                dots(rows, patch, ceil_to(end - t, 16), out)
                total += out[:K, :R]
        flat_dw[g * K : (g + 1) * K] = total
