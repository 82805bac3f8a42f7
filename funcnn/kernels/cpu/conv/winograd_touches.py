"""How much of their arguments the kernels of ``winograd.py`` touch (``facts.py``)."""

from __future__ import annotations

from collections.abc import Callable

Touches = dict[str, Callable[..., int]]


def up(count: int, step: int) -> int:
    """Returns the next whole number of steps."""
    return -(-count // step) * step


WEIGHTS: Touches = {
    "packed": lambda groups, channels, panels, columns: groups * panels * channels * 9 * columns,
    "U": lambda m, groups, channels, panels, columns: groups * panels * channels * (m + 2) ** 2 * columns,
}

FORWARD: Touches = {
    "x": lambda blocks, sizes, apart, padded: (
        blocks[2] // (padded[3] * padded[4]) // (apart[0] * apart[1]) * sizes[0] * sizes[2] * sizes[3]
    ),
    "y": lambda blocks, out, apart, padded: (
        blocks[3] // (padded[3] * padded[4]) // (apart[0] * apart[1]) * out[0] * out[2] * out[3]
    ),
    "U": lambda m, groups, tile, sizes, out, depth: (m + 2) ** 2 * depth[2] * sizes[0] * up(out[0] // groups, tile[1]),
    "bias": lambda out: out[0],
    "image": lambda blocks, padded: blocks[2] // (padded[3] * padded[4]) * padded[0] * padded[1] * padded[2],
    "V": lambda m, groups, tile, blocks, sizes, padded: (
        (m + 2) ** 2 * min(blocks[0], blocks[2]) * up(sizes[0] // groups, padded[5]) + tile[1]
    ),
    "M": lambda m, groups, tile, blocks, out: (
        (m + 2) ** 2 * min(blocks[1], blocks[3]) * up(out[0] // groups, tile[1]) + tile[1]
    ),
    "scratch": lambda padded, threads: threads * 32 * padded[5],
    "spoiled": lambda blocks: blocks[3],
}

WEIGHT_GRAD: Touches = {
    "x": lambda blocks, sizes, apart, padded: (
        blocks[2] // (padded[3] * padded[4]) // (apart[0] * apart[1]) * sizes[0] * sizes[2] * sizes[3]
    ),
    "dy": lambda blocks, out, apart, padded: (
        blocks[3] // (padded[3] * padded[4]) // (apart[0] * apart[1]) * out[0] * out[2] * out[3]
    ),
    "dw": lambda groups, sizes, out, depth: out[0] * (sizes[0] // groups) * depth[2] * 9,
    "image": lambda blocks, padded: blocks[2] // (padded[3] * padded[4]) * padded[0] * padded[1] * padded[2],
    "other": lambda blocks, padded, around: blocks[3] // (padded[3] * padded[4]) * around[0] * around[1] * around[2],
    "V": lambda m, groups, tile, blocks, sizes, padded: (
        (m + 2) ** 2 * min(blocks[0], blocks[2]) * up(sizes[0] // groups, padded[5]) + tile[1]
    ),
    "D": lambda m, groups, tile, blocks, out: (
        (m + 2) ** 2 * min(blocks[1], blocks[3]) * up(out[0] // groups, tile[1]) + tile[1]
    ),
    "dU": lambda m, groups, tile, sizes, out, depth: (
        (m + 2) ** 2 * depth[2] * up(sizes[0] // groups, tile[0]) * up(out[0] // groups, tile[1])
    ),
    "scratch": lambda padded, threads: threads * 9 * padded[5],
}
