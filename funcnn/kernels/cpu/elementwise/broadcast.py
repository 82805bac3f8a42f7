"""Loops over arrays of different shapes, in parallel: a vector along one axis of another array, and a choice by a mask.

``strip``: the array is (A, B, C), flat, and meets a vector of B elements: a bias along the last axis (C = 1), a channel's
scale (C pixels), a number for each row (A = 1). A chunk goes from run to run: of C elements that meet one, or, where C is 1,
of B that meet the whole vector. An element is read and one written for each, as in the loops of ``elementwise``, whose chunks these are.

``select`` moves three numbers and a byte an element.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.elementwise.activation import prelu_scalar
from funcnn.kernels.cpu.elementwise.loops import (
    CHUNK_ELEMENTS,
    add_scalar,
    begin,
    chunks,
    div_scalar,
    mul_scalar,
    one_or_all,
    sub_scalar,
)
from funcnn.kernels.cpu.vector.instructions import pointer, shift


def _strip_chunk(chunk, worker, x, y, out, inner):
    at, last = chunk * CHUNK_ELEMENTS, min((chunk + 1) * CHUNK_ELEMENTS, out.size)
    length = inner if inner > 1 else y.size  # of a run
    while at < last:
        skip = at % length
        n = min(length - skip, last - at)
        p, q = pointer(x, at), pointer(out, at)
        if inner > 1:
            number = y[at // inner % y.size]
            for i in range(n):
                q[i] = scalar(p[i], number)  # noqa: F821, a helper that the template is given
        else:
            r = pointer(y, skip)
            for i in range(n):
                q[i] = scalar(p[i], r[i])  # noqa: F821
        at += n


def _strip(x, y, out, inner, threads):
    """Writes out = f(x, y) for x (A, B, C) and y (B,), all flat; ``inner`` is C."""
    parallel_for(body, chunks(out), threads, (x, y, out, inner))  # noqa: F821


STRIP = Facts({"x": lambda out: out.size, "y": lambda: 1})  # places in y are counted round and round


def strip(name, scalar):
    """Returns the kernel ``(x, y, out, inner, threads)`` of a scalar function of two numbers."""
    return kernel_from(_strip, name, STRIP, body=kernel_from(_strip_chunk, name + "_chunk", scalar=scalar))


add_strip, sub_strip = strip("add_strip", add_scalar), strip("sub_strip", sub_scalar)
prelu_strip = strip("prelu_strip", prelu_scalar)
mul_strip, div_strip = strip("mul_strip", mul_scalar), strip("div_strip", div_scalar)


@device_function
def select_chunk(chunk, worker, condition, x, y, out):
    """Works on one chunk of ``select``."""
    start = chunk * CHUNK_ELEMENTS
    m, p, r = pointer(condition, start), pointer(x, begin(chunk, x, out)), pointer(y, begin(chunk, y, out))
    q = shift(pointer(out, 0), start)
    for i in range(min(CHUNK_ELEMENTS, out.size - start)):
        q[i] = p[i] if m[i] else r[i]


@kernel(touches={"condition": lambda out: out.size, "x": one_or_all, "y": lambda y, out: one_or_all(y, out)})
def select(condition, x, y, out, threads):
    """Writes out = x where the condition holds, else y; all flat, x or y possibly a block of equal elements (see ``begin``)."""
    parallel_for(select_chunk, chunks(out), threads, (condition, x, y, out))
