"""Local response normalisation across channels of (N, C, S) arrays.

    base[c] = k + alpha / size * sum(x[j]^2 for j in c - size // 2 .. c + (size - 1) // 2),  y = x * base^-beta

Work is cut into images and blocks of ``width`` columns of S, so every loop has unit stride and a block stays in the cache
while the window moves over it. One power an element each way; the window's sum is taken anew for each channel, which costs
``size`` additions but keeps all digits. Backward: ``dx = dy * base^-beta - 2 alpha beta / size * x * sum(t)`` over the
channels whose window holds this one, ``t = dy * x * base^(-beta - 1)``.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.powers import pow


@device_function
def _block(chunk, x, width):
    """Returns the offset of a chunk's first channel, and its columns."""
    blocks = (x.shape[2] + width - 1) // width
    column = chunk % blocks * width
    return chunk // blocks * x.shape[1] * x.shape[2] + column, min(width, x.shape[2] - column)


@device_function
def _forward(chunk, worker, x, y, base, kept, size, alpha, beta, k, width):
    kind, C, S = x.dtype.type, x.shape[1], x.shape[2]
    start, n = _block(chunk, x, width)
    share, power, k = kind(alpha / size), kind(-beta), kind(k)
    for c in range(C):
        b = pointer(base, start + c * S if kept else worker * width)
        for i in range(n):
            b[i] = kind(0)
        for j in range(max(0, c - size // 2), min(C, c + (size - 1) // 2 + 1)):
            p = pointer(x, start + j * S)
            for i in range(n):
                b[i] += p[i] * p[i]
        p, q = pointer(x, start + c * S), pointer(y, start + c * S)
        for i in range(n):
            b[i] = k + share * b[i]
        for i in range(n):
            q[i] = p[i] * pow(b[i], power)


@kernel(touches={"y": lambda x: x.size, "base": lambda x, kept, width, threads: x.size if kept else width * threads})
def local_response(x, y, base, kept, size, alpha, beta, k, width, threads):
    """Writes y and base, for x (N, C, S); ``base`` of one channel for each worker unless it is ``kept``."""
    chunks = x.shape[0] * ((x.shape[2] + width - 1) // width)
    parallel_for(_forward, chunks, threads, (x, y, base, kept, size, alpha, beta, k, width))


@device_function
def _backward(chunk, worker, dy, x, base, dx, scratch, size, alpha, beta, width):
    kind, C, S = x.dtype.type, x.shape[1], x.shape[2]
    start, n = _block(chunk, x, width)
    room = worker * (C + 1) * width
    power, share = kind(-beta), kind(-2.0 * alpha * beta / size)
    for c in range(C):
        g, p, b = pointer(dy, start + c * S), pointer(x, start + c * S), pointer(base, start + c * S)
        q, t = pointer(dx, start + c * S), pointer(scratch, room + c * width)
        for i in range(n):
            q[i] = g[i] * pow(b[i], power)
        for i in range(n):
            t[i] = q[i] * p[i] / b[i]
    total = pointer(scratch, room + C * width)
    for c in range(C):
        for i in range(n):
            total[i] = kind(0)
        for j in range(max(0, c - (size - 1) // 2), min(C, c + size // 2 + 1)):
            t = pointer(scratch, room + j * width)
            for i in range(n):
                total[i] += t[i]
        p, q = pointer(x, start + c * S), pointer(dx, start + c * S)
        for i in range(n):
            q[i] += share * p[i] * total[i]


@kernel(
    touches={
        "dy": lambda x: x.size,
        "base": lambda x: x.size,
        "dx": lambda x: x.size,
        "scratch": lambda x, width, threads: threads * (x.shape[1] + 1) * width,
    }
)
def local_response_grad(dy, x, base, dx, scratch, size, alpha, beta, width, threads):
    """Writes dx; scratch holds (C + 1) * width elements for each worker."""
    chunks = x.shape[0] * ((x.shape[2] + width - 1) // width)
    parallel_for(_backward, chunks, threads, (dy, x, base, dx, scratch, size, alpha, beta, width))
