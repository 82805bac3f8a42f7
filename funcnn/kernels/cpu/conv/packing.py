"""Weights in panels: for each row of a product the elements of a tile's output channels one after the other, between zeros."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer


@device_function
def pack_lanes(w, at, table, count, target, valid, width, stride):
    """Computes target[r, lane] = w[at + stride * lane + table[r]] for ``width`` lanes and ``count`` rows, zero from ``valid`` on.

    What is returned is not 0 where a weight is infinite or NaN.
    """
    bad = w.dtype.type(0)
    source = pointer(w, at)
    for r in range(count):
        place = table[r]
        for lane in range(valid):
            target[r * width + lane] = source[place + lane * stride]
            bad += source[place + lane * stride] * 0
        for lane in range(valid, width):
            target[r * width + lane] = 0
    return bad


@device_function
def pack_panel(chunk, worker, w, table, ends, packed, spoiled, groups, lanes, rows, stride, group):
    """Works on panel (part, g, tile): packed[r, lane] = w[group * g + stride * (tile * rows + lane) + table[r]], zero beyond ``lanes``."""
    tiles = (lanes + rows - 1) // rows
    part, panel = chunk // (groups * tiles), chunk % (groups * tiles)
    g, tile = panel // tiles, panel % tiles
    first, count = ends[part], ends[part + 1] - ends[part]
    target = pointer(packed, (first * groups * tiles + panel * count) * rows)
    at = group * g + stride * tile * rows
    spoiled[chunk] = pack_lanes(
        w, at, pointer(table, first), count, target, min(rows, lanes - tile * rows), rows, stride
    )


@kernel(
    touches={
        "w": lambda table, groups, lanes, stride, group: (
            (groups - 1) * group + (lanes - 1) * stride + int(table.max()) + 1
        ),
        "packed": lambda table, groups, lanes, rows: groups * -(-lanes // rows) * rows * table.size,
        "spoiled": lambda ends, groups, lanes, rows: (ends.size - 1) * groups * -(-lanes // rows),
    }
)
def pack_weights(w, table, ends, packed, spoiled, groups, lanes, rows, stride, group, threads):
    """Packs panels of ``rows`` output channels of the weights, in the order of the product's rows, for one part after the other.

    ends: where the rows of each part end in the table, from 0. ``spoiled``, a number for each panel, is not 0 where a weight is
    infinite or NaN.
    """
    chunks = (ends.size - 1) * groups * ((lanes + rows - 1) // rows)
    args = (w, table, ends, packed, spoiled, groups, lanes, rows, stride, group)
    parallel_for(pack_panel, chunks, threads, args)
