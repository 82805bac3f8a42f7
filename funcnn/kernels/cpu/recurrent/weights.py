"""The gradients of a recurrent layer's weights and biases, all steps at once: sums over steps and rows of products.

    dw_ih = d' x;  dw = d' h;  db = 1' d

d (steps n, gates hidden) are the gradients of the gates, x (steps n, inputs), h (steps n, hidden) the states before each step:
h0, then y but for its last. A task is a panel of gates. It copies its columns of d once, adds them up for the biases, and
multiplies them with x and with h; elements of d are read eight from a row, so nothing is transposed. Panels of x
and h are packed before, for all tasks. So d, the largest array, is read once, and results are written as they lie.

2 steps n gates hidden (inputs + hidden) flops. Sums longer than BLOCK_TERMS are cut, so that a task's panel and one of x stay in the
second-level cache.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.tiles import tile_strided

PANEL_TILES = 4  # register tiles across a task's panel of gates
BLOCK_TERMS = 1024  # terms of a sum at a time


@device_function
def pack_factor(chunk, worker, packed, x, y, h0, reverse, wide):
    """Works on panel ``chunk`` of x and then of the states before each step: (steps n, wide), zeros beyond their width."""
    steps, n, inputs = x.shape
    hidden = y.shape[2]
    of_x = (inputs + wide - 1) // wide
    width, first = (inputs, chunk * wide) if chunk < of_x else (hidden, (chunk - of_x) * wide)
    have = min(wide, width - first)
    for t in range(steps):
        before = t + 1 if reverse else t - 1
        source = pointer(h0, first)
        if chunk < of_x:
            source = pointer(x, t * n * width + first)
        elif 0 <= before < steps:
            source = pointer(y, before * n * width + first)
        target = pointer(packed, (chunk * steps + t) * n * wide)
        for row in range(n):
            copy_row(shift(target, row * wide), shift(source, row * width), have)
            clear_row(shift(target, row * wide + have), wide - have)


@device_function
def take_gates(panel, d, first, start, count, deep, total):
    """Copies ``count`` rows of the ``deep`` gates from ``first`` on, zeros beyond the last; adds them to ``total``."""
    width = d.shape[2]
    have = min(deep, width - first)
    for k in range(count):
        row = shift(panel, k * deep)
        copy_row(row, pointer(d, (start + k) * width + first), have)
        clear_row(shift(row, have), deep - have)
        for j in range(have):
            total[j] += row[j]


@device_function
def multiply_panel(panel, count, tile, deep, b, c, out, rows, columns, width, add):
    """Writes ``out (+)= panel' b`` for ``rows`` gates and ``columns`` of a factor; tiles that reach beyond go through ``c``."""
    high, wide = tile
    for i in range(0, rows, high):
        there = min(high, rows - i)
        if there == high and columns == wide:
            tile_strided(count, shift(panel, i), deep, 1, b, wide, shift(out, i * width), width, add)
        else:
            tile_strided(count, shift(panel, i), deep, 1, b, wide, c, wide, False)
            for r in range(there):
                to, row = shift(out, (i + r) * width), shift(c, r * wide)
                if add:
                    for j in range(columns):
                        to[j] += row[j]
                else:
                    copy_row(to, row, columns)


@device_function
def weights_task(task, worker, d, d_state, factors, panels, totals, tile, block, sizes, dw_ih, dw, db, db_state):
    """A panel of gates: of d, for x and, if ``d_state`` is the same, for the states; or of ``d_state``, for the states."""
    high, wide = tile
    tasks, shared, inputs, hidden, deep = sizes
    count, width = d.shape[0] * d.shape[1], d.shape[2]
    of_states = task >= tasks
    first = (task - tasks if of_states else task) * deep
    rows, terms = min(deep, width - first), min(block, count)
    of_x, of_h = (inputs + wide - 1) // wide, (hidden + wide - 1) // wide
    low, end = of_x if of_states else 0, of_x + of_h if of_states or shared else of_x
    total = pointer(totals, worker * deep)
    for j in range(deep):
        total[j] = 0
    panel = pointer(panels, worker * (deep * terms + high * wide))
    c = shift(panel, deep * terms)
    for start in range(0, count, block):
        size = min(block, count - start)
        take_gates(panel, d_state if of_states else d, first, start, size, deep, total)
        for p in range(low, end):
            b = pointer(factors, (p * count + start) * wide)
            if p < of_x:
                out = pointer(dw_ih, first * inputs + p * wide)
                multiply_panel(
                    panel, size, tile, deep, b, c, out, rows, min(wide, inputs - p * wide), inputs, start > 0
                )
            else:
                at = (p - of_x) * wide
                out = pointer(dw, first * hidden + at)
                multiply_panel(panel, size, tile, deep, b, c, out, rows, min(wide, hidden - at), hidden, start > 0)
    for j in range(rows):
        if of_states:
            db_state[first + j] = total[j]
        else:
            db[first + j] = total[j]


@kernel(
    touches={
        "d_state": lambda d: d.size,
        "x": lambda d, x: d.shape[0] * d.shape[1] * x.shape[2],
        "y": lambda d, y: d.shape[0] * d.shape[1] * y.shape[2],
        "h0": lambda d, y: d.shape[1] * y.shape[2],
        "factors": lambda d, x, y, tile: (
            (-(-x.shape[2] // tile[1]) - (-y.shape[2] // tile[1])) * tile[1] * d.shape[0] * d.shape[1]
        ),
        "panels": lambda d, tile, block, threads: (
            threads * (tile[0] * PANEL_TILES * min(d.shape[0] * d.shape[1], block) + tile[0] * tile[1])
        ),
        "totals": lambda tile, threads: threads * tile[0] * PANEL_TILES,
        "dw_ih": lambda d, x: d.shape[2] * x.shape[2],
        "dw": lambda d, y: d.shape[2] * y.shape[2],
        "db": lambda d: d.shape[2],
        "db_state": lambda d, shared: 0 if shared else d.shape[2],
    }
)
def weights_grad(
    d, d_state, shared, x, y, h0, reverse, tile, block, threads, factors, panels, totals, dw_ih, dw, db, db_state
):
    """Fills dw_ih (gates hidden, inputs), dw (gates hidden, hidden) and db of all sums; db_state too unless ``shared``.

    shared: d_state, what reached the products with the states, is d itself. tile: of ``tile_strided``. block: BLOCK_TERMS.
    Scratch: factors for the panels of x and h; panels for one of gates and a tile for each thread; totals, float64.
    """
    wide, deep = tile[1], tile[0] * PANEL_TILES
    inputs, hidden = x.shape[2], y.shape[2]
    parallel_for(
        pack_factor, (inputs + wide - 1) // wide + (hidden + wide - 1) // wide, threads,
        (factors, x, y, h0, reverse, wide),
    )  # fmt: skip
    tasks = (d.shape[2] + deep - 1) // deep
    sizes = (tasks, shared, inputs, hidden, deep)
    args = (d, d_state, factors, panels, totals, tile, block, sizes, dw_ih, dw, db, db_state)
    parallel_for(weights_task, tasks if shared else 2 * tasks, threads, args)
