"""Max pooling of integers, tap by tap on NumPy: exact for every dtype, where the kernels are floating-point."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np


def max_pool(
    ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool, indices: bool
) -> None:
    """The primitive: of equal elements the first wins; padding never does."""
    x, y = ins[0], outs[0]
    space, reached = x.shape[2:], []
    for n, o, k, s, p, d in zip(space, y.shape[2:], size, stride, padding, dilation, strict=True):
        reached.append((p, max(0, (o - 1) * s + (k - 1) * d + 1 - n - p)))
    places = np.arange(np.prod(space, dtype=np.int64)).reshape(space)
    wide = np.pad(x, [(0, 0), (0, 0), *reached], constant_values=np.iinfo(x.dtype).min)
    where = np.pad(places, reached, constant_values=-1)
    best, at = np.full(y.shape, np.iinfo(x.dtype).min, x.dtype), np.full(y.shape, -1, np.int64)
    for tap in product(*map(range, size)):
        cut: Any = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, s, o in zip(tap, dilation, stride, y.shape[2:], strict=True)
        )
        number, place = wide[(..., *cut)], where[cut]
        wins = (number > best) | ((at < 0) & (place >= 0))
        np.copyto(best, number, where=wins)
        np.copyto(at, np.broadcast_to(place, at.shape), where=wins)
    np.copyto(y, best)
    if indices:
        np.copyto(outs[1], at, casting="unsafe")
