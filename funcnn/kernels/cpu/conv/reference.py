"""Convolution of (N, C, D, H, W) arrays and its two gradients as the definition has them, one tap at a time.

What the fast ways are tested against, and what takes the calls that they do not serve: a tap meets only the outputs for
which it lies inside the input, so an infinite or undefined weight never meets a zero of the padding and makes NaN of it.
2 N K P Q R flops like the others, but every multiply-add loads two numbers and stores one: 5 to 20 % of their speed.
Sums are kept in float64, so that the largest error is the last rounding: 5e-8 of the largest output in float32.

One loop nest serves all three. For one tap, one plane of x and one plane of y it goes through the rows that meet; what is
done with a row of each is the only difference. A chunk owns what it writes: a plane of y, a plane of dx, the taps of one
(output, input) pair of channels in dw.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import clear_row

FORWARD, INPUT, WEIGHT = 0, 1, 2  # y += w x, x += w y, and the sum of x y


@device_function
def meeting(size, out, at, stride):
    """First and last + 1 of the outputs o whose element ``o * stride + at`` lies in [0, size)."""
    return max(0, -(at // stride)), min(out, (size - 1 - at) // stride + 1)


@device_function
def row_pair(x, y, w, what, at, first, last, stride):
    """Works on the outputs ``first`` to ``last`` of a row of y, which meet ``x[o * stride + at]``; returns the sum for WEIGHT."""
    total = w * 0
    if what == FORWARD:
        for o in range(first, last):
            y[o] += w * x[o * stride + at]
    elif what == INPUT:
        for o in range(first, last):
            x[o * stride + at] += w * y[o]
    else:
        for o in range(first, last):
            total += x[o * stride + at] * y[o]
    return total


@device_function
def plane_pair(x, x_plane, y, y_plane, w, what, tap, geometry):
    """Works on all rows of a plane of x and a plane of y that meet at a tap (d, h, w); returns the sum for WEIGHT."""
    (D, H, W), (O, P, Q), stride, before, apart = geometry
    d0, h0, w0 = tap[0] * apart[0] - before[0], tap[1] * apart[1] - before[1], tap[2] * apart[2] - before[2]
    total = 0.0
    first, last = meeting(W, Q, w0, stride[2])
    top, bottom = meeting(H, P, h0, stride[1])
    front, back = meeting(D, O, d0, stride[0])
    for o in range(front, back):
        for p in range(top, bottom):
            row = ((x_plane * D + o * stride[0] + d0) * H + p * stride[1] + h0) * W
            total += row_pair(
                pointer(x, row), pointer(y, ((y_plane * O + o) * P + p) * Q), w, what, w0, first, last, stride[2]
            )
    return total


@device_function
def tap_at(r, kernel):
    """Returns the r-th tap (d, h, w) of a kernel."""
    return r // (kernel[1] * kernel[2]), r // kernel[2] % kernel[1], r % kernel[2]


@device_function
def put_sums(target, sums, size, add):
    """Writes target = sums + ``add``, rounded once."""
    for i in range(size):
        target[i] = sums[i] + add


@device_function
def forward_plane(chunk, worker, x, w, bias, y, sums, kernel, channels, geometry):
    """Plane ``chunk`` of y, (n, k) in one: every input channel of its group, every tap."""
    inner, lanes, groups = channels
    taps, size = kernel[0] * kernel[1] * kernel[2], geometry[1][0] * geometry[1][1] * geometry[1][2]
    n, k = chunk // (lanes * groups), chunk % (lanes * groups)
    clear_row(pointer(sums, worker * size), size)
    for c in range(inner):
        for r in range(taps):
            weight = float(w[(k * inner + c) * taps + r])
            plane = (n * groups + k // lanes) * inner + c
            plane_pair(x, plane, sums, worker, weight, FORWARD, tap_at(r, kernel), geometry)
    put_sums(pointer(y, chunk * size), pointer(sums, worker * size), size, bias[k])


def _touches(x: str, y: str, biased: str) -> dict[str, Callable]:
    """Returns what each kernel touches of the arrays like x and like y, of the weights, and of a number for each channel."""
    taps: dict[str, Callable] = {
        x: lambda batch, channels, geometry: batch * channels[2] * channels[0] * prod(geometry[0]),
        y: lambda batch, channels, geometry: batch * channels[2] * channels[1] * prod(geometry[1]),
        "w" if biased else "dw": lambda channels, kernel: prod(channels) * prod(kernel),
    }
    if biased:
        taps["bias"] = lambda channels: channels[2] * channels[1 if biased == "lanes" else 0]
        taps["sums"] = lambda geometry, threads: threads * prod(geometry[1 if biased == "lanes" else 0])
    return taps


@kernel(reads=("x",), touches=_touches("x", "y", "lanes"))
def reference_forward(x, w, bias, y, sums, kernel, channels, batch, geometry, threads):
    """Writes y = w * x + bias; x, w and y flat. sums: a plane of y in float64 for each thread.

    channels: inputs and outputs of a group, groups. geometry: sizes of a plane of x, of y, stride, padding and dilation, each
    of (D, H, W).
    """
    parallel_for(
        forward_plane, batch * channels[1] * channels[2], threads, (x, w, bias, y, sums, kernel, channels, geometry)
    )


@device_function
def input_plane(chunk, worker, dy, w, bias, dx, sums, kernel, channels, geometry):
    """Plane ``chunk`` of dx, (n, c) in one: every output channel of its group, every tap."""
    inner, lanes, groups = channels
    taps, size = kernel[0] * kernel[1] * kernel[2], geometry[0][0] * geometry[0][1] * geometry[0][2]
    n, g, c = chunk // (inner * groups), chunk // inner % groups, chunk % inner
    clear_row(pointer(sums, worker * size), size)
    for k in range(g * lanes, (g + 1) * lanes):
        for r in range(taps):
            weight = float(w[(k * inner + c) * taps + r])
            plane_pair(sums, worker, dy, n * groups * lanes + k, weight, INPUT, tap_at(r, kernel), geometry)
    put_sums(pointer(dx, chunk * size), pointer(sums, worker * size), size, bias[g * inner + c])


@kernel(reads=("dy",), touches=_touches("dx", "dy", "inner"))
def reference_input_grad(dy, w, bias, dx, sums, kernel, channels, batch, geometry, threads):
    """dx from dy and w, plus a number for each of its channels; the arguments are those of ``reference_forward``."""
    parallel_for(
        input_plane, batch * channels[0] * channels[2], threads, (dy, w, bias, dx, sums, kernel, channels, geometry)
    )


@device_function
def weight_taps(chunk, worker, x, dy, dw, kernel, channels, batch, geometry):
    """Works on the taps of pair ``chunk`` = (k, c): all images summed in float64."""
    inner, lanes, groups = channels
    taps = kernel[0] * kernel[1] * kernel[2]
    k, c = chunk // inner, chunk % inner
    for r in range(taps):
        total = 0.0
        for n in range(batch):
            planes = (n * groups + k // lanes) * inner + c, n * groups * lanes + k
            total += plane_pair(x, planes[0], dy, planes[1], dw.dtype.type(0), WEIGHT, tap_at(r, kernel), geometry)
        dw[chunk * taps + r] = total


@kernel(reads=("x", "dy"), touches=_touches("x", "dy", ""))
def reference_weight_grad(x, dy, dw, kernel, channels, batch, geometry, threads):
    """dw from x and dy; the arguments are those of ``reference_forward``."""
    chunks = channels[0] * channels[1] * channels[2]
    parallel_for(weight_taps, chunks, threads, (x, dy, dw, kernel, channels, batch, geometry))
