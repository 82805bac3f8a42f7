"""Sliding windows of planes as columns (im2col), and the sum of such columns back into planes (col2im): transposes.

Planes (M, H, W); columns (M, kh * kw, P * Q), entry (i * kw + j, p * Q + q) being pixel (p * sh - ph + i * dh,
q * sw - pw + j * dw). Each side is written once, a row at a time, while the row that it reads or sums is in the first-level
cache; chunks are runs of rows over all planes. Cost: the columns' bytes, once.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row


@device_function
def meeting(offset, stride, width, count):
    """Returns the windows [first, last) whose pixel ``q * stride + offset`` lies in [0, width)."""
    first = max(0, -(offset // stride)) if offset < 0 else 0
    last = min(count, (width - 1 - offset) // stride + 1) if offset < width else 0
    return min(first, count), max(last, min(first, count))


@device_function
def unfold_chunk(chunk, worker, x, columns, sizes, size, stride, padding, dilation, run):
    """``run`` rows of windows, of all rows of all planes."""
    H, W, P, Q = sizes
    for row in range(chunk * run, min((chunk + 1) * run, x.size // (H * W) * P)):
        m, p = row // P, row % P
        for i in range(size[0]):
            h = p * stride[0] - padding[0] + i * dilation[0]
            for j in range(size[1]):
                out = pointer(columns, ((m * size[0] + i) * size[1] + j) * P * Q + p * Q)
                offset = j * dilation[1] - padding[1]
                first, last = meeting(offset, stride[1], W, Q) if 0 <= h < H else (Q, Q)
                clear_row(out, first)
                if last > first:
                    source = pointer(x, (m * H + h) * W + first * stride[1] + offset)
                    if stride[1] == 1:
                        copy_row(shift(out, first), source, last - first)
                    else:
                        for q in range(last - first):
                            out[first + q] = source[q * stride[1]]
                clear_row(shift(out, last), Q - last)


@kernel(
    touches={
        "columns": lambda x, sizes, size: x.size // (sizes[0] * sizes[1]) * size[0] * size[1] * sizes[2] * sizes[3]
    }
)
def unfold(x, columns, sizes, size, stride, padding, dilation, run, threads):
    """Writes columns = every window of the planes x; both flat. sizes: (H, W, P, Q). ``run`` rows of windows a chunk."""
    rows = x.size // (sizes[0] * sizes[1]) * sizes[2]
    args = (x, columns, sizes, size, stride, padding, dilation, run)
    parallel_for(unfold_chunk, -(-rows // run), threads, args)


@device_function
def fold_chunk(chunk, worker, columns, y, sizes, size, stride, padding, dilation, run):
    """``run`` rows of pixels, of all rows of all planes."""
    H, W, P, Q = sizes
    for row in range(chunk * run, min((chunk + 1) * run, y.size // W)):
        m, h = row // H, row % H
        out = pointer(y, row * W)
        clear_row(out, W)
        for i in range(size[0]):
            reach = h + padding[0] - i * dilation[0]
            p = reach // stride[0]
            if reach < 0 or p >= P or p * stride[0] != reach:
                continue
            for j in range(size[1]):
                offset = j * dilation[1] - padding[1]
                first, last = meeting(offset, stride[1], W, Q)
                if last > first:
                    source = pointer(columns, ((m * size[0] + i) * size[1] + j) * P * Q + p * Q + first)
                    target = pointer(y, row * W + first * stride[1] + offset)
                    if stride[1] == 1:
                        for q in range(last - first):
                            target[q] += source[q]
                    else:
                        for q in range(last - first):
                            target[q * stride[1]] += source[q]


@kernel(
    touches={
        "columns": lambda y, sizes, size: y.size // (sizes[0] * sizes[1]) * size[0] * size[1] * sizes[2] * sizes[3]
    }
)
def fold(columns, y, sizes, size, stride, padding, dilation, run, threads):
    """Writes y = the sum of the windows that hold each pixel; both flat. sizes: (H, W, P, Q). ``run`` rows of pixels a chunk."""
    args = (columns, y, sizes, size, stride, padding, dilation, run)
    parallel_for(fold_chunk, -(-(y.size // sizes[1]) // run), threads, args)
