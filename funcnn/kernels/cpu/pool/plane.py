"""Pooling of small planes by tables: windows of any bounds, and of any number of dimensions, as vectors of outputs.

A row of a small plane has no whole vector of windows, and a plane has hardly one. So the windows of ``group`` planes that
follow one another are one run of outputs, whose taps a table (``table_taps.py``) names by their place in that group: vectors
are full, whatever the shape, and no number is divided, compared or addressed by itself. What is left of the planes goes by
a second table for one of them, which follows the first in the same array. The gradient of a mean is such a table, too.

Each output costs one load a tap, so for large planes, whose rows fill vectors, ``max.py`` and ``avg.py`` are faster.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.table_taps import mean_taps, peak_taps, place_taps, weighted_taps

TOUCHES = {
    "x": lambda x, sizes: x.size // sizes[1] * sizes[1],
    "y": lambda x, sizes: x.size // sizes[1] * sizes[2],
    "index": lambda sizes: sizes[0] * (sizes[4] + sizes[5]),
}


@device_function
def next_planes(m, last, sizes):
    """Returns how many planes go from plane m on, where their table begins in a row of both, and its pitch."""
    if m + sizes[3] <= last:
        return sizes[3], 0, sizes[4]
    return 1, sizes[4], sizes[5]


@kernel(touches={**TOUCHES, "divisors": lambda sizes: sizes[4] + sizes[5]})
def plane_means(x, y, index, divisors, sizes, planes, threads):
    """Writes y = the sum of each window, divided by its divisor.

    sizes: (taps, pixels of a plane, its outputs, group, pitch, pitch of the table for one plane). ``planes`` make a chunk.
    """
    parallel_for(means_of, -(-(x.size // sizes[1]) // planes), threads, (x, y, index, divisors, sizes, planes))


@device_function
def means_of(chunk, worker, x, y, index, divisors, sizes, planes):
    """Works on the planes of a chunk of ``plane_means``."""
    taps, pixels, outputs = sizes[:3]
    m, last = chunk * planes, min((chunk + 1) * planes, x.size // pixels)
    while m < last:
        count, start, pitch = next_planes(m, last, sizes)
        table, parts = pointer(index, taps * start), pointer(divisors, start)
        mean_taps(pointer(x, m * pixels), table, parts, taps, pitch, count * outputs, pointer(y, m * outputs))
        m += count


@kernel(touches={**TOUCHES, "weights": lambda sizes: sizes[0] * (sizes[4] + sizes[5])})
def plane_sums(x, y, index, weights, sizes, planes, threads):
    """Writes y = the sum of what the table names, each element times its weight; for ``sizes`` see ``plane_means``."""
    parallel_for(sums_of, -(-(x.size // sizes[1]) // planes), threads, (x, y, index, weights, sizes, planes))


@device_function
def sums_of(chunk, worker, x, y, index, weights, sizes, planes):
    """Works on the planes of a chunk of ``plane_sums``."""
    taps, pixels, outputs = sizes[:3]
    m, last = chunk * planes, min((chunk + 1) * planes, x.size // pixels)
    while m < last:
        count, start, pitch = next_planes(m, last, sizes)
        table, factors = pointer(index, taps * start), pointer(weights, taps * start)
        weighted_taps(pointer(x, m * pixels), table, factors, taps, pitch, count * outputs, pointer(y, m * outputs))
        m += count


@kernel(touches=TOUCHES)
def plane_peaks(x, y, index, sizes, planes, threads):
    """Writes y = the largest of each window, NaN where one is; for ``sizes`` see ``plane_means``."""
    parallel_for(peaks_of, -(-(x.size // sizes[1]) // planes), threads, (x, y, index, sizes, planes))


@device_function
def peaks_of(chunk, worker, x, y, index, sizes, planes):
    """Works on the planes of a chunk of ``plane_peaks``."""
    taps, pixels, outputs = sizes[:3]
    m, last = chunk * planes, min((chunk + 1) * planes, x.size // pixels)
    while m < last:
        count, start, pitch = next_planes(m, last, sizes)
        table = pointer(index, taps * start)
        peak_taps(pointer(x, m * pixels), table, taps, pitch, count * outputs, pointer(y, m * outputs))
        m += count


@kernel(
    touches={
        **TOUCHES,
        "argmax": lambda x, sizes: x.size // sizes[1] * sizes[2],
        "bases": lambda sizes: sizes[4] + sizes[5],
    }
)
def plane_maxima(x, y, argmax, index, bases, sizes, planes, threads):
    """``plane_peaks``, and argmax = the flat index in the plane, of equals the first, of NaN the last.

    bases: where in a group the plane of each output begins.
    """
    chunks = -(-(x.size // sizes[1]) // planes)
    parallel_for(maxima_of, chunks, threads, (x, y, argmax, index, bases, sizes, planes))


@device_function
def maxima_of(chunk, worker, x, y, argmax, index, bases, sizes, planes):
    """Works on the planes of a chunk of ``plane_maxima``."""
    taps, pixels, outputs = sizes[:3]
    m, last = chunk * planes, min((chunk + 1) * planes, x.size // pixels)
    while m < last:
        count, start, pitch = next_planes(m, last, sizes)
        table, corners = pointer(index, taps * start), pointer(bases, start)
        best, where = pointer(y, m * outputs), pointer(argmax, m * outputs)
        place_taps(pointer(x, m * pixels), table, corners, taps, pitch, count * outputs, best, where)
        m += count
