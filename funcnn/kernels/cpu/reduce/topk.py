"""The indices of the k first of each row, (ROWS, N) contiguous, where k is small: one pass that compares with the k-th best.

Few elements get in: of N in random order about k log(N / k). The rest cost a load and a comparison that the CPU foresees.
The best so far are kept in order by insertion; of equals the first stands first. NaN counts as the largest.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer

CHUNK_ELEMENTS = 1 << 15  # of a chunk of rows at least


@device_function
def ahead(a, b, largest):
    """Whether a comes before b, from the largest or from the smallest on."""
    if largest:
        return a > b or (np.isnan(a) and not np.isnan(b))
    return a < b or (np.isnan(b) and not np.isnan(a))


@device_function
def place_in(row, best, i, count, largest):
    """Puts index i, which is ahead of all beyond, into the ``count`` best in order; beyond them one falls out."""
    at = count
    while at > 0 and ahead(row[i], row[best[at - 1]], largest):
        best[at] = best[at - 1]
        at -= 1
    best[at] = i


@device_function
def top_chunk(chunk, worker, x, best, n, k, group, largest):
    """Finds the first of some rows, one after another."""
    for r in range(chunk * group, min((chunk + 1) * group, x.size // n)):
        row, places = pointer(x, r * n), pointer(best, r * k)
        for i in range(k):
            place_in(row, places, i, i, largest)
        last = row[places[k - 1]]
        for i in range(k, n):
            if ahead(row[i], last, largest):
                place_in(row, places, i, k - 1, largest)
                last = row[places[k - 1]]


@kernel(touches={"best": lambda x, n, k: x.size // n * k})
def top_rows(x, best, n, k, largest, threads):
    """Writes the indices of the k largest, or smallest, of each row of x (ROWS, n) to best (ROWS, k), in order; flat, k > 0."""
    group = (CHUNK_ELEMENTS + n - 1) // n
    parallel_for(top_chunk, (x.size // n + group - 1) // group, threads, (x, best, n, k, group, largest))
