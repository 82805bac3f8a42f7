"""Elements picked by index, from anywhere along one axis: y[r, k, j] = x[r, index[r, k, j], j] (``geometry.py``).

Where a line has one index, it is copied as a whole (rows of a table); else each element is picked by its own, in vectors. Every
chunk writes a part of y, in order. Elements are moved as they are, so that one kernel serves all dtypes of a size. What an
index outside is given means nothing: the status words say so, and the position of the first.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.indexing.geometry import (
    COUNT,
    INDEX_COUNT,
    INDEX_LINE,
    LEAST,
    LENGTH,
    LINE,
    OUTSIDE,
    WRAP,
    X_LINE,
    X_PLACE,
    Y_COUNT,
    Y_LINE,
    bounds,
    chunks,
    index_size,
    refuse_first,
    row_starts,
    x_size,
    y_size,
)
from funcnn.kernels.cpu.vector.instructions import outlined, pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row


@apart_function
def pick(source, step, index, index_step, target, target_step, count, apart, limits, zero):
    """target[j] = source[index[j] * apart + j * step], or zero; whether an index is refused."""
    outlined()
    length, least, wrap = limits
    bad = 0
    for j in range(count):
        v = index[j * index_step]
        at = v + wrap if v < 0 else v
        inside = (at >= 0) & (at < length)
        value = source[(at if inside else 0) * apart + j * step]
        target[j * target_step] = value if inside else zero
        bad |= (v < least) | (v >= length)
    return bad


@apart_function
def copy_bytes(target, source, count):
    """target = source, for elements that vectors of numbers do not have."""
    for j in range(count):
        target[j] = source[j]


@apart_function
def clear_bytes(target, count):
    """target = 0, for those elements."""
    for j in range(count):
        target[j] = 0


def _lines(source, index, index_step, target, down, places, width, apart, limits):
    """Copies whole lines, each to where its one index says, or zeros; whether an index is refused."""
    outlined()
    length, least, wrap = limits
    bad = 0
    for k in range(places[0], places[1]):
        v = index[k * index_step]
        bad |= (v < least) | (v >= length)
        place = v + wrap if v < 0 else v
        if 0 <= place < length:
            copy_line(shift(target, k * down), shift(source, place * apart), width)  # noqa: F821, helpers that the template is given
        else:
            clear_line(shift(target, k * down), width)  # noqa: F821
    return bad


def _chunk(chunk, worker, x, index, y, table, status):
    """A chunk of a gather."""
    rows, places, line = bounds(table, chunk, table[COUNT])
    limits, zero, bad = (table[LENGTH], table[LEAST], table[WRAP]), x.dtype.type(0), 0
    apart, step, along, down = table[X_PLACE], table[X_LINE], table[Y_LINE], table[Y_COUNT]
    to_next, across, width = table[INDEX_COUNT], table[INDEX_LINE], line[1] - line[0]
    whole = across == 0 and step == 1 and along == 1
    for row in range(rows[0], rows[1]):
        at, where, to = row_starts(table, row)
        source = pointer(x, at + line[0] * step)
        if table[LINE] == 1:
            picks, target = pointer(index, where + places[0] * to_next), pointer(y, to + places[0] * down)
            bad |= pick(source, 0, picks, to_next, target, down, places[1] - places[0], apart, limits, zero)
        elif whole:
            picks, target = pointer(index, where), pointer(y, to + line[0])
            bad |= copy_lines(source, picks, to_next, target, down, places, width, apart, limits)  # noqa: F821
        else:
            for k in range(places[0], places[1]):
                picks, target = (
                    pointer(index, where + k * to_next + line[0] * across),
                    pointer(y, to + k * down + line[0] * along),
                )
                bad |= pick(source, step, picks, across, target, along, width, apart, limits, zero)
    if bad:
        status[0] = OUTSIDE


def _gather(x, index, y, table, status, threads):
    """y = elements of x, all flat."""
    if status[0] == 0:
        rows, places, lines = chunks(table, table[COUNT])
        parallel_for(body, rows * places * lines, threads, (x, index, y, table, status))  # noqa: F821
        if status[0] != 0:
            refuse_first(index, table, status)


def _made(name, copy_line, clear_line):
    copy_lines = kernel_from(_lines, name + "_lines", copy_line=copy_line, clear_line=clear_line)
    body = kernel_from(_chunk, name + "_chunk", copy_lines=copy_lines)
    return kernel_from(_gather, name, Facts({"x": x_size, "index": index_size, "y": y_size}), body=body)


gather_numbers = _made("gather_numbers", copy_row, clear_row)
gather_bytes = _made("gather_bytes", copy_bytes, clear_bytes)
gather_short = _made("gather_short", copy_row, clear_row)  # by indices of 32 bits, as pooling notes its places
