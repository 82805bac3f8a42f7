"""Resampling of planes by tables: every output row is a weighted sum of input rows, every output column of columns.

Nearest, linear, cubic and antialiased interpolation are such tables, and so are their transposes, the gradients. Columns
have tables as ``table_taps.py`` describes; rows have one (taps, outputs) of where each source row lies and one of weights.

The sum over rows runs along a row; the sum over columns takes elements one by one. So columns are done on the fewer rows: when
the number of rows grows, input rows are widened once each into a ring of the few rows that one output row needs (first
level cache), then combined; when it shrinks, rows are combined first; nearest pixels need no combining. x and y are passed once. A chunk is a run of planes, or
of output rows in a large plane; ``taps`` of 0 leave an axis as it is. Rows get pointers, no arrays: the count of who holds
an array is shared by all threads, and for each of many short rows they would wait for one another.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import copy_row
from funcnn.kernels.cpu.vector.table_taps import weighted_rows, weighted_taps


@device_function
def widened(image, numbers, slots, ring, P, p, taps, W, columns, weights, column_taps, pitch, Q, room, mark):
    """Has the rows that output row p is made of in their slots of the ring, ``numbers[t * P + p]`` being one of them."""
    for t in range(taps):
        r, slot = numbers[t * P + p], slots[t * P + p]
        if r >= 0 and mark[slot] != r:
            mark[slot] = r
            weighted_taps(shift(image, r * W), columns, weights, column_taps, pitch, Q, shift(room, slot * Q))


@device_function
def resize_chunk(
    chunk, worker, x, y, numbers, places, slots, row_weight, row_taps, index, weight, taps, pitch, sizes, scratch, marks, plan
):  # fmt: skip
    """Works on some planes, or some rows of one plane."""
    H, W, P, Q = sizes
    ring, planes, block, room_apart, mark_apart = plan
    numbers, places, slots, row_weight = (
        pointer(numbers, 0),
        pointer(places, 0),
        pointer(slots, 0),
        pointer(row_weight, 0),
    )
    index, weight = pointer(index, 0), pointer(weight, 0)
    blocks = -(-P // block)
    first, p0 = chunk // blocks * planes, chunk % blocks * block
    p1 = min(p0 + block, P)
    room = pointer(scratch, worker * room_apart)
    mark = pointer(marks, worker * mark_apart)
    for m in range(first, min(first + planes, x.size // (H * W))):
        image, result = pointer(x, m * H * W), pointer(y, m * P * Q)
        for s in range(ring):
            mark[s] = -1
        for p in range(p0, p1):
            out, at, by = shift(result, p * Q), shift(places, p), shift(row_weight, p)
            if taps == 0:
                weighted_rows(image, at, by, row_taps, P, W, out)
            elif row_taps == 0:
                weighted_taps(shift(image, p * W), index, weight, taps, pitch, Q, out)
            elif ring < 0 and p > p0 and places[p] == places[p - 1]:
                copy_row(out, shift(result, (p - 1) * Q), Q)
            elif ring < 0:
                weighted_taps(shift(image, places[p]), index, weight, taps, pitch, Q, out)
            elif ring == 0:
                weighted_rows(image, at, by, row_taps, P, W, room)
                weighted_taps(room, index, weight, taps, pitch, Q, out)
            else:
                widened(image, numbers, slots, ring, P, p, row_taps, W, index, weight, taps, pitch, Q, room, mark)
                weighted_rows(room, at, by, row_taps, P, Q, out)


@kernel(
    touches={
        "y": lambda x, sizes: x.size // (sizes[0] * sizes[1]) * sizes[2] * sizes[3],
        "numbers": lambda sizes, row_taps, plan: row_taps * sizes[2] if plan[0] > 0 else 0,
        "places": lambda sizes, row_taps: row_taps * sizes[2],
        "slots": lambda sizes, row_taps, plan: row_taps * sizes[2] if plan[0] > 0 else 0,
        "row_weight": lambda sizes, row_taps: row_taps * sizes[2],
        "index": lambda taps, pitch: taps * pitch,
        "weight": lambda taps, pitch: taps * pitch,
        "scratch": lambda row_taps, taps, sizes, plan, threads: (
            threads * max(plan[3], plan[0] * sizes[3], sizes[1] if plan[0] == 0 and row_taps and taps else 0)
        ),
        "marks": lambda plan, threads: threads * max(plan[4], plan[0]),
    }
)
def resize(
    x, y, numbers, places, slots, row_weight, row_taps, index, weight, taps, pitch, sizes, scratch, marks, plan, threads
):
    """Writes y = the planes of x (M, H, W) resampled to (M, P, Q); both flat.

    Of axis H to P, (row_taps, P) flat: numbers, the source row of each tap, below 0 where there is none; places, where it
    begins in the plane or, with a ring, in that; slots, its slot of the ring; row_weight.
    Of W to Q, a table of so many taps and this pitch: index and weight.
    plan: (ring, planes, block): rows kept of one plane, 0 for combining rows first, below 0 where each row is an input row,
    as it is; planes, or rows of a plane, a chunk. Then the elements of scratch (ring * Q, or W) and of marks (ring) for each
    worker.
    """
    H, W = sizes[:2]
    chunks = -(-(x.size // (H * W)) // plan[1]) * -(-sizes[2] // plan[2])
    args = (
        x, y, numbers, places, slots, row_weight, row_taps, index, weight, taps, pitch, sizes, scratch, marks, plan
    )  # fmt: skip
    parallel_for(resize_chunk, chunks, threads, args)
