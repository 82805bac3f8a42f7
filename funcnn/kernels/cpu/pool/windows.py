"""The windows of pooling: tables along depth, height and width, for images of one to three dimensions."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np


def three(value: tuple, fill: int) -> Any:
    """Returns one number for each of the three dimensions that kernels know."""
    return (fill,) * (3 - len(value)) + tuple(value)


class Windows(NamedTuple):
    """Tables over D, H and W one after another; see ``kernels.cpu.pool.avg``."""

    bounds: np.ndarray  # (1, outputs, 2): start and end of each window in the input
    covers: np.ndarray  # (inputs, 2): the first window over each pixel, and the last plus 1
    extents: np.ndarray  # (outputs,): factors of the divisor


def _windows(space: tuple, starts: list, ends: list, extents: list) -> Windows:
    covers = [
        np.stack([np.searchsorted(end, np.arange(s), "right"), np.searchsorted(start, np.arange(s), "right")], 1)
        for s, start, end in zip(space, starts, ends, strict=True)
    ]
    bounds = np.stack([np.concatenate(starts), np.concatenate(ends)], 1)
    return Windows(bounds[None].astype(np.int64), np.concatenate(covers).astype(np.int64), np.concatenate(extents))


@lru_cache(maxsize=256)
def windows(
    space: tuple, out: tuple, size: tuple, stride: tuple, padding: tuple, include: bool, divisor: int
) -> Windows:
    """Returns windows of one size; ``divisor`` (0: none) replaces the extents, which count padding where ``include`` says so."""
    starts, ends, extents = [], [], []
    for s, o, k, t, p in zip(space, out, size, stride, padding, strict=True):
        start = np.arange(o) * t - p
        end = np.minimum(start + k, s + p)
        inside = np.clip(start, 0, s), np.clip(end, 0, s)
        starts.append(inside[0])
        ends.append(inside[1])
        extents.append(np.maximum(end - start if include else inside[1] - inside[0], 1))
    if divisor:
        extents = [np.full(o, divisor if axis == 0 else 1) for axis, o in enumerate(out)]
    return _windows(space, starts, ends, extents)


@lru_cache(maxsize=256)
def adaptive_windows(space: tuple, out: tuple) -> Windows:
    """Returns window i of o over s pixels: floor(i s / o) to ceil((i + 1) s / o)."""
    starts = [np.arange(o) * s // o for s, o in zip(space, out, strict=True)]
    ends = [-(-np.arange(1, o + 1) * s // o) for s, o in zip(space, out, strict=True)]
    return _windows(space, starts, ends, [end - start for start, end in zip(starts, ends, strict=True)])


@lru_cache(maxsize=256)
def windows_of(space: tuple, out: tuple, how: tuple) -> Windows:
    """Returns windows in the dimensions that a call names; how: (size, stride, padding, include, divisor), or () for adaptive."""
    space, out = three(space, 1), three(out, 1)
    if not how:
        return adaptive_windows(space, out)
    size, stride, padding, include, divisor = how
    return windows(space, out, three(size, 1), three(stride, 1), three(padding, 0), include, divisor)


def is_whole(space: tuple, out: tuple, how: tuple) -> bool:
    """Whether there is one window, the image, which is divided by its size; ``how`` as in ``windows_of``."""
    if not how:
        return prod(out) == 1
    size, _, padding, _, divisor = how
    return prod(out) == 1 and divisor == 0 and size == space and not any(padding)


@lru_cache(maxsize=256)
def pooled_sizes(
    space: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool
) -> tuple[int, ...]:
    """Returns output sizes; with ``ceil_mode`` a last window may run over the edge, if it starts inside input or left padding."""
    out = []
    for s, k, t, p, d in zip(space, size, stride, padding, dilation, strict=True):
        reach = s + 2 * p - d * (k - 1) - 1
        count = (-(-reach // t) if ceil_mode else reach // t) + 1
        out.append(count - 1 if ceil_mode and (count - 1) * t >= s + p else count)
    return tuple(out)
