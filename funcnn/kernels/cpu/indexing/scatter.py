"""Elements put at places by index, along one axis: x[r, index[r, k, j], j] (op)= y[r, k, j] (``geometry.py``).

A chunk owns a part of x: rows, a range of places, a part of the lines. It starts that part (zeros, a number, a copy of another
array, or what is there), then goes through all indices of its rows in order and puts what falls into it. So no element has
two writers, of several with one place the last one stays, or they are added in their order, for any number of threads.
Indices are read once for each range of places; there are several only where that costs less than what is put.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function, kernel_from
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
    START,
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
from funcnn.kernels.cpu.vector.instructions import outlined, pointer

THERE, ZEROS, NUMBER, COPY = range(4)  # how x starts


@apart_function
def copy_run(target, source, count):
    """target = source."""
    outlined()
    for i in range(count):
        target[i] = source[i]


@apart_function
def fill_run(target, count, number):
    """target = number."""
    outlined()
    for i in range(count):
        target[i] = number


@apart_function
def clear_run(target, count):
    """target = 0: LLVM makes a call of it that does not first read the memory."""
    outlined()
    for i in range(count):
        target[i] = 0


@device_function
def start_line(start, base, x, at, count, number):
    """``count`` neighbours of x as they start."""
    if start == COPY:
        copy_run(pointer(x, at), pointer(base, at), count)
    elif start == ZEROS:
        clear_run(pointer(x, at), count)
    else:
        fill_run(pointer(x, at), count, number)


@device_function
def start_part(base, x, table, at, places, line):
    """The part of x that a chunk owns of a row."""
    start, apart, width = table[START], table[X_PLACE], line[1] - line[0]
    if start == THERE:
        return
    number = base[0] if start == NUMBER else x.dtype.type(0)
    if width == apart and table[X_LINE] == 1:
        first = at + places[0] * apart + line[0]  # a part of the line where there is one place
        start_line(start, base, x, first, (places[1] - places[0]) * width, number)
        return
    if apart == 1:
        for j in range(line[0], line[1]):
            start_line(start, base, x, at + places[0] + j * table[X_LINE], places[1] - places[0], number)
        return
    for place in range(places[0], places[1]):
        first = at + place * apart + line[0] * table[X_LINE]
        if table[X_LINE] == 1:
            start_line(start, base, x, first, width, number)
        else:
            for j in range(width):
                start_line(start, base, x, first + j * table[X_LINE], 1, number)


def _elements(target, apart, index, index_step, source, source_step, count, places, limits):
    """target[index[k] * apart] (op)= source[k] for the places of a range; whether an index is refused."""
    outlined()
    length, least, wrap = limits
    first, last = places
    bad = False
    for k in range(count):
        v = index[k * index_step]
        place = v + wrap if v < 0 else v
        if first <= place < last:
            put(target, place * apart, source[k * source_step])  # noqa: F821, a helper that the template is given
        elif v < least or v >= length:
            bad = True
    return bad


def _neighbours(target, index, source, count, places, limits):
    """``elements`` of contiguous arrays, most of whose indices name a place of the range."""
    outlined()
    length, least, wrap = limits
    first, last = places
    bad = False
    for k in range(count):
        v = index[k]
        if v >= first and v < last:
            put(target, v, source[k])  # noqa: F821
            continue
        place = v + wrap if v < 0 else v
        if first <= place < last:
            put(target, place, source[k])  # noqa: F821
        elif v < least or v >= length:
            bad = True
    return bad


def _line(target, step, source, source_step, count):
    """target (op)= source along a line."""
    outlined()
    if step == 1 and source_step == 1:
        for j in range(count):
            put(target, j, source[j])  # noqa: F821
    else:
        for j in range(count):
            put(target, j * step, source[j * source_step])  # noqa: F821


def _crossed(target, step, apart, index, index_step, source, source_step, count, places, limits):
    """target[index[j] * apart + j * step] (op)= source[j] along a line each of whose elements has its index."""
    outlined()
    length, least, wrap = limits
    first, last = places
    bad = False
    for j in range(count):
        v = index[j * index_step]
        place = v + wrap if v < 0 else v
        if first <= place < last:
            put(target, place * apart + j * step, source[j * source_step])  # noqa: F821
        elif v < least or v >= length:
            bad = True
    return bad


def _chunk(chunk, worker, base, index, y, x, table, status):
    """A chunk of a scatter."""
    rows, places, line = bounds(table, chunk, table[LENGTH])
    limits, bad = (table[LENGTH], table[LEAST], table[WRAP]), False
    apart, step, along, count = table[X_PLACE], table[X_LINE], table[Y_LINE], table[COUNT]
    width = line[1] - line[0]
    to_next, across, down = table[INDEX_COUNT], table[INDEX_LINE], table[Y_COUNT]
    for row in range(rows[0], rows[1]):
        at, where, here = row_starts(table, row)
        start_part(base, x, table, at, places, line)
        target = pointer(x, at + line[0] * step)
        if table[LINE] == 1:
            picks, source = pointer(index, where), pointer(y, here)
            if to_next == 1 and down == 1 and apart == 1:
                bad |= neighbours(target, picks, source, count, places, limits)  # noqa: F821
            else:
                bad |= elements(target, apart, picks, to_next, source, down, count, places, limits)  # noqa: F821
            continue
        for k in range(count):
            picks, source = (
                pointer(index, where + k * to_next + line[0] * across),
                pointer(y, here + k * down + line[0] * along),
            )
            if across != 0:
                bad |= crossed(target, step, apart, picks, across, source, along, width, places, limits)  # noqa: F821
                continue
            v = picks[0]
            place = v + limits[2] if v < 0 else v
            if v < limits[1] or v >= limits[0]:
                bad = True
            elif places[0] <= place < places[1]:
                put_line(pointer(x, at + place * apart + line[0] * step), step, source, along, width)  # noqa: F821
    if bad:
        status[0] = OUTSIDE


def _scatter(base, index, y, x, table, status, threads):
    """x = what it starts as (``base`` is read where that is a number or a copy), with y put at its places; all flat."""
    if status[0] == 0:
        rows, places, lines = chunks(table, table[LENGTH])
        parallel_for(body, rows * places * lines, threads, (base, index, y, x, table, status))  # noqa: F821
        if status[0] != 0:
            refuse_first(index, table, status)


@device_function
def _set(target, at, value):
    target[at] = value


@device_function
def _add(target, at, value):
    target[at] += value


@device_function
def _multiply(target, at, value):
    target[at] *= value


@device_function
def _either(target, at, value):
    target[at] |= value


@device_function
def _both(target, at, value):
    target[at] &= value


def _base_size(table, base):
    return x_size(table) if table[START] == COPY else min(base.size, 1)


def _made(name, put):
    helpers = {
        "neighbours": kernel_from(_neighbours, name + "_neighbours", put=put),
        "elements": kernel_from(_elements, name + "_elements", put=put),
        "put_line": kernel_from(_line, name + "_line", put=put),
        "crossed": kernel_from(_crossed, name + "_crossed", put=put),
    }
    facts = Facts({"base": _base_size, "index": index_size, "y": y_size, "x": x_size})
    return kernel_from(_scatter, name, facts, body=kernel_from(_chunk, name + "_chunk", **helpers))


scatter_set = _made("scatter_set", _set)
scatter_add = _made("scatter_add", _add)
scatter_add_short = _made("scatter_add_short", _add)  # by indices of 32 bits, as pooling notes its places
scatter_multiply = _made("scatter_multiply", _multiply)
scatter_either = _made("scatter_either", _either)  # the sum of bools, which lie in memory as bytes
scatter_both = _made("scatter_both", _both)  # their product
