"""What gathering and scattering know of their arrays: one table of numbers, whose places have the names below.

Both move elements between an array x, at places that an index names, and an array y, in order: ``y[r, k, j]`` stands beside
``x[r, index[r, k, j], j]`` for each row r, each of ``COUNT`` places k and each of ``LINE`` elements j of a line. The arrays
are flat memory. A step says how far apart two neighbours lie, 0 where they are one element; rows run over any number of
axes, each with a size and a step in x, index and y.

An index below ``LEAST`` or from ``LENGTH`` on is refused. To one below 0 ``WRAP`` is added; what is below 0 then names no
place: it reads a zero and writes nothing.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer

ROWS, COUNT, LINE, LENGTH, LEAST, WRAP, OPERAND = range(7)
X_PLACE, X_LINE, INDEX_COUNT, INDEX_LINE, Y_COUNT, Y_LINE = range(7, 13)
RUN_ROWS, RUN_COUNT, RUN_LINE = range(
    13, 16
)  # how much of each makes a chunk; a scatter's RUN_COUNT counts places of x
START, AXES, SEEN = range(16, 19)  # how a scatter starts; axes of rows; axes of the index as an operand
HEAD = 19  # then size and steps (x, index, y) of each axis of rows, then size and step of each axis of the index
OUTSIDE = 1  # the status code
BLOCK_ELEMENTS = 1 << 13  # elements of an index in a chunk


def reach(table, line, place, axis):
    """How many elements of an array are touched, by the positions of its steps: along a line, to a place, along an axis."""
    count = table[LENGTH] if place == X_PLACE else table[COUNT]
    last = (table[LINE] - 1) * table[line] + (count - 1) * table[place]
    last += sum((table[at] - 1) * table[at + axis] for at in range(HEAD, HEAD + 4 * int(table[AXES]), 4))
    return int(last) + 1


def x_size(table):
    """How many elements of x are touched."""
    return reach(table, X_LINE, X_PLACE, 1)


def index_size(table):
    """How many elements of the index are touched."""
    return reach(table, INDEX_LINE, INDEX_COUNT, 2)


def y_size(table):
    """How many elements of y are touched."""
    return reach(table, Y_LINE, Y_COUNT, 3)


@device_function
def chunks(table, count):
    """How many chunks there are along rows, along ``count`` (places of x or of y) and along lines."""
    rows = (table[ROWS] + table[RUN_ROWS] - 1) // table[RUN_ROWS]
    places = (count + table[RUN_COUNT] - 1) // table[RUN_COUNT]
    return rows, places, (table[LINE] + table[RUN_LINE] - 1) // table[RUN_LINE]


@device_function
def bounds(table, chunk, count):
    """Where a chunk begins and ends along rows, along ``count`` and along lines."""
    _, places, lines = chunks(table, count)
    r, k, j = chunk // lines // places, chunk // lines % places, chunk % lines
    first = r * table[RUN_ROWS], k * table[RUN_COUNT], j * table[RUN_LINE]
    return (
        (first[0], min(first[0] + table[RUN_ROWS], table[ROWS])),
        (first[1], min(first[1] + table[RUN_COUNT], count)),
        (first[2], min(first[2] + table[RUN_LINE], table[LINE])),
    )


@device_function
def row_starts(table, row):
    """Where a row begins in x, in the index and in y."""
    x, index, y = 0, 0, 0
    for axis in range(table[AXES] - 1, -1, -1):
        at = HEAD + 4 * axis
        step = row
        if axis > 0:
            step = row % table[at]
            row //= table[at]
        x += step * table[at + 1]
        index += step * table[at + 2]
        y += step * table[at + 3]
    return x, index, y


@device_function
def refuse_first(index, table, status):
    """Writes down the first index that is refused: its position counts elements of the operand, repeated ones, too."""
    at = 0
    while table[LEAST] <= index[at] < table[LENGTH]:
        at += 1
    axes, place, rest = HEAD + 4 * table[AXES], 0, at
    for axis in range(table[SEEN] - 1, -1, -1):
        place += rest % table[axes + 2 * axis] * table[axes + 2 * axis + 1]
        rest //= table[axes + 2 * axis]
    status[0], status[1], status[2], status[3] = OUTSIDE, table[OPERAND], place, index[at]


# ---- checks alone -----------------------------------------------------------------------------------------------------
@device_function
def check_block(chunk, worker, index, table, status):
    """A block of ``check_places``."""
    block, low, high = pointer(index, chunk * BLOCK_ELEMENTS), table[LEAST], table[LENGTH]
    bad = 0
    for i in range(min(BLOCK_ELEMENTS, index.size - chunk * BLOCK_ELEMENTS)):
        bad |= (block[i] < low) | (block[i] >= high)
    if bad:
        status[0] = OUTSIDE


@kernel(touches={"table": lambda table: HEAD + 4 * int(table[AXES]) + 2 * int(table[SEEN])})
def check_places(index, table, status, threads):
    """Refuses an index outside, where no element is moved. Once an index is refused, the next ones are not looked at."""
    if status[0] == 0:
        parallel_for(check_block, (index.size + BLOCK_ELEMENTS - 1) // BLOCK_ELEMENTS, threads, (index, table, status))
        if status[0] != 0:
            refuse_first(index, table, status)


# ---- several indices as one -------------------------------------------------------------------------------------------
@device_function
def join_block(chunk, worker, index, table, joined, step, first, status):
    """A block of ``join_indices``."""
    length, low, wrap = table[LENGTH], table[LEAST], table[WRAP]
    bad = 0
    for row in range(chunk * table[RUN_ROWS], min((chunk + 1) * table[RUN_ROWS], table[ROWS])):
        _, at, to = row_starts(table, row)
        source, target = pointer(index, at), pointer(joined, to)
        for j in range(table[LINE]):
            v = source[j * table[INDEX_LINE]]
            bad |= (v < low) | (v >= length)
            place = (v + wrap if v < 0 else v) * step
            target[j] = place if first else target[j] + place
    if bad:
        status[0] = OUTSIDE


@kernel(touches={"index": index_size, "joined": y_size})
def join_indices(index, table, joined, step, first, status, threads):
    """joined (+)= index * step, of an index that may be repeated along axes: the places of several indices as one.

    Once an index is refused, the next ones are not looked at.
    """
    if status[0] == 0:
        parallel_for(join_block, chunks(table, 1)[0], threads, (index, table, joined, step, first, status))
        if status[0] != 0:
            refuse_first(index, table, status)
