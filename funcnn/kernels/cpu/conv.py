"""Convolution and its two gradients over three spatial dimensions; fewer are given as sizes of 1.

Arrays are x (N, C, D, H, W), w (K, C/groups, A, I, J), y (N, K, O, P, Q), C-contiguous. Each kernel walks over pairs of
an output and an input channel and over the kernel's taps; the innermost loop runs along a row of output pixels whose
bounds were found outside, so it has no branch and is vectorised for stride 1. Forward and input gradient add a scaled
row to a row, the weight gradient is a dot product of rows. All do 2 N K (C/groups) A I J O P Q flops; rows of the two
images stay in the first-level cache for the usual sizes.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import kernel


@kernel
def first_pixel(pad, tap, stride):
    """The first output index whose input index ``p * stride + tap - pad`` is not negative."""
    return max(0, -((tap - pad) // stride))


@kernel
def last_pixel(pad, tap, stride, size, outs):
    """One past the last output index whose input index is below ``size``."""
    return min(outs, (size - 1 + pad - tap) // stride + 1)


@kernel
def conv_forward(x, w, y, stride, padding, dilation, groups):
    """y[n, k, o, p, q] = sum over c, a, i, j of w[k, c, a, i, j] * x[n, c, o*s+a*d-pad, ...]."""
    N, K, O, P, Q = y.shape
    D, H, W = x.shape[2:]
    C, A, I, J = w.shape[1:]
    sw = stride[2]
    for n in range(N):
        for k in range(K):
            g = k // (K // groups)
            y[n, k] = 0
            for c in range(C):
                for a in range(A):
                    for i in range(I):
                        for j in range(J):
                            value = w[k, c, a, i, j]
                            ta, ti, tj = a * dilation[0], i * dilation[1], j * dilation[2]
                            q0 = first_pixel(padding[2], tj, sw)
                            q1 = last_pixel(padding[2], tj, sw, W, Q)
                            for o in range(first_pixel(padding[0], ta, stride[0]),
                                           last_pixel(padding[0], ta, stride[0], D, O)):
                                for p in range(first_pixel(padding[1], ti, stride[1]),
                                               last_pixel(padding[1], ti, stride[1], H, P)):
                                    row = x[n, g * C + c, o * stride[0] + ta - padding[0], p * stride[1] + ti - padding[1]]
                                    out = y[n, k, o, p]
                                    base = tj - padding[2]
                                    if sw == 1:
                                        for q in range(q0, q1):
                                            out[q] += value * row[q + base]
                                    else:
                                        for q in range(q0, q1):
                                            out[q] += value * row[q * sw + base]


@kernel
def conv_input_grad(dy, w, dx, stride, padding, dilation, groups):
    """dx = the transpose of ``conv_forward`` in x: each dy[n, k, o, p, q] adds w[k, c, a, i, j] * dy where it was read."""
    N, K, O, P, Q = dy.shape
    D, H, W = dx.shape[2:]
    C, A, I, J = w.shape[1:]
    sw = stride[2]
    for n in range(N):
        dx[n] = 0
        for k in range(K):
            g = k // (K // groups)
            for c in range(C):
                for a in range(A):
                    for i in range(I):
                        for j in range(J):
                            value = w[k, c, a, i, j]
                            ta, ti, tj = a * dilation[0], i * dilation[1], j * dilation[2]
                            q0 = first_pixel(padding[2], tj, sw)
                            q1 = last_pixel(padding[2], tj, sw, W, Q)
                            for o in range(first_pixel(padding[0], ta, stride[0]),
                                           last_pixel(padding[0], ta, stride[0], D, O)):
                                for p in range(first_pixel(padding[1], ti, stride[1]),
                                               last_pixel(padding[1], ti, stride[1], H, P)):
                                    out = dx[n, g * C + c, o * stride[0] + ta - padding[0], p * stride[1] + ti - padding[1]]
                                    row = dy[n, k, o, p]
                                    base = tj - padding[2]
                                    if sw == 1:
                                        for q in range(q0, q1):
                                            out[q + base] += value * row[q]
                                    else:
                                        for q in range(q0, q1):
                                            out[q * sw + base] += value * row[q]


@kernel
def conv_weight_grad(x, dy, dw, stride, padding, dilation, groups):
    """dw[k, c, a, i, j] = sum over n, o, p, q of dy[n, k, o, p, q] * x[n, c, ...]; rows add up in the arrays' type,
    the rows' sums in float64."""
    N, K, O, P, Q = dy.shape
    D, H, W = x.shape[2:]
    C, A, I, J = dw.shape[1:]
    sw = stride[2]
    for k in range(K):
        g = k // (K // groups)
        for c in range(C):
            for a in range(A):
                for i in range(I):
                    for j in range(J):
                        ta, ti, tj = a * dilation[0], i * dilation[1], j * dilation[2]
                        q0 = first_pixel(padding[2], tj, sw)
                        q1 = last_pixel(padding[2], tj, sw, W, Q)
                        base = tj - padding[2]
                        total = np.float64(0)
                        for n in range(N):
                            for o in range(first_pixel(padding[0], ta, stride[0]),
                                           last_pixel(padding[0], ta, stride[0], D, O)):
                                for p in range(first_pixel(padding[1], ti, stride[1]),
                                               last_pixel(padding[1], ti, stride[1], H, P)):
                                    row = x[n, g * C + c, o * stride[0] + ta - padding[0], p * stride[1] + ti - padding[1]]
                                    dout = dy[n, k, o, p]
                                    part = dy.dtype.type(0)
                                    if sw == 1:
                                        for q in range(q0, q1):
                                            part += dout[q] * row[q + base]
                                    else:
                                        for q in range(q0, q1):
                                            part += dout[q] * row[q * sw + base]
                                    total += part
                        dw[k, c, a, i, j] = total
