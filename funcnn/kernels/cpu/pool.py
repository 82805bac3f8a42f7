"""Pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

Each output pixel walks over its window once, one comparison or addition a tap, and is written once; neighbouring windows
find their rows in the first-level cache, so an image is read once from memory. Maxima note the flat index of the winner in
the input image (8 bytes a pixel); the gradient scatters to it, and the scatter's transpose gathers. Gradients zero an
image and add to it in the order of output pixels. With ceil_mode the caller gives a larger output, and windows run over
the right edge: they see what is there.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel


@kernel
def max_pool_forward(x, y, argmax, size, stride, padding, dilation):
    """y = the largest of each window, argmax = its flat index; the first of equals; NaN wins; padding never does.
    A dilated window that touches nothing but padding gives -inf and index -1, which the two kernels below pass over."""
    M, O, P, Q = y.shape
    D, H, W = x.shape[1:]
    for m in range(M):
        for o in range(O):
            for p in range(P):
                for q in range(Q):
                    best = -np.inf
                    where = -1
                    for a in range(size[0]):
                        d = o * stride[0] - padding[0] + a * dilation[0]
                        if d < 0 or d >= D:
                            continue
                        for i in range(size[1]):
                            h = p * stride[1] - padding[1] + i * dilation[1]
                            if h < 0 or h >= H:
                                continue
                            for j in range(size[2]):
                                w = q * stride[2] - padding[2] + j * dilation[2]
                                if w < 0 or w >= W:
                                    continue
                                value = x[m, d, h, w]
                                if where < 0 or value > best or np.isnan(value):
                                    best = value
                                    where = (d * H + h) * W + w
                    y[m, o, p, q] = best
                    argmax[m, o, p, q] = where


@kernel
def pool_scatter(dy, argmax, dx):
    """dx = 0, then dx[m].flat[argmax] += dy: the gradient of ``max_pool_forward``."""
    for m in range(dy.shape[0]):
        source, index, out = dy[m].ravel(), argmax[m].ravel(), dx[m].ravel()
        out[:] = 0
        for q in range(source.size):
            if index[q] >= 0:
                out[index[q]] += source[q]


@kernel
def pool_gather(x, argmax, y):
    """y = x[m].flat[argmax]: the transpose of ``pool_scatter``."""
    for m in range(x.shape[0]):
        source, index, out = x[m].ravel(), argmax[m].ravel(), y[m].ravel()
        for q in range(out.size):
            out[q] = source[index[q]] if index[q] >= 0 else source.dtype.type(0)


@device_function
def window(p, size, stride, padding, length):
    """Start and end of a window in the input, and its extent where it covers input or padding."""
    start = p * stride - padding
    end = min(start + size, length + padding)
    return max(start, 0), max(min(end, length), 0), end - start


@device_function
def divisor(inside, whole, count_include_pad, divisor_override):
    """What a window's sum is divided by, given its pixels inside the image and with padding; never 0."""
    if divisor_override != 0:
        return divisor_override
    return max(whole if count_include_pad else inside, 1)


@kernel
def avg_pool_forward(x, y, size, stride, padding, count_include_pad, divisor_override):
    """y = the mean of each window; the divisor counts padding or not, or is given (0: not given)."""
    M, O, P, Q = y.shape
    D, H, W = x.shape[1:]
    for m in range(M):
        for o in range(O):
            d0, d1, de = window(o, size[0], stride[0], padding[0], D)
            for p in range(P):
                h0, h1, he = window(p, size[1], stride[1], padding[1], H)
                for q in range(Q):
                    w0, w1, we = window(q, size[2], stride[2], padding[2], W)
                    total = x.dtype.type(0)
                    for d in range(d0, d1):
                        for h in range(h0, h1):
                            for w in range(w0, w1):
                                total += x[m, d, h, w]
                    inside = (d1 - d0) * (h1 - h0) * (w1 - w0)
                    y[m, o, p, q] = total / divisor(inside, de * he * we, count_include_pad, divisor_override)


@kernel
def avg_pool_grad(dy, dx, size, stride, padding, count_include_pad, divisor_override):
    """dx = the transpose of ``avg_pool_forward``: each dy is shared out over its window."""
    M, O, P, Q = dy.shape
    D, H, W = dx.shape[1:]
    for m in range(M):
        dx[m] = 0
        for o in range(O):
            d0, d1, de = window(o, size[0], stride[0], padding[0], D)
            for p in range(P):
                h0, h1, he = window(p, size[1], stride[1], padding[1], H)
                for q in range(Q):
                    w0, w1, we = window(q, size[2], stride[2], padding[2], W)
                    inside = (d1 - d0) * (h1 - h0) * (w1 - w0)
                    share = dy[m, o, p, q] / divisor(inside, de * he * we, count_include_pad, divisor_override)
                    for d in range(d0, d1):
                        for h in range(h0, h1):
                            for w in range(w0, w1):
                                dx[m, d, h, w] += share
