"""Channels moved into space and back, and channels dealt anew: reshapes and permutations."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.base.promote import operand
from funcnn.ops.movement.views import apart, permute, reshape, transpose


def _prepared(name: str, input: Any, what: str, factor: Any, least: int) -> tuple[Tensor, int]:
    """The input and the factor. Raises ``ShapeError`` or ``ValueError``."""
    x = operand(name, input)
    if isinstance(factor, bool) or not isinstance(factor, (int, np.integer)) or factor < 1:
        raise ValueError(f"{name}: {what} must be a positive int, got {factor!r}")
    if x.ndim < least:
        raise ShapeError(f"{name}: expected at least {least} dimensions, got shape {tuple(x.shape)}")
    return x, int(factor)


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """(*, C * r * r, H, W) to (*, C, H * r, W * r): sub-pixel convolution (Shi et al., arXiv:1609.05158)."""
    x, r = _prepared("pixel_shuffle", input, "upscale_factor", upscale_factor, 3)
    *lead, channels, h, w = x._v.shape
    if channels % (r * r):
        raise ShapeError(
            f"pixel_shuffle: upscale_factor {r} needs channels in multiples of {r * r}, got shape {tuple(x.shape)}"
        )
    k, c = len(lead), channels // (r * r)
    parts = permute(reshape(x, (*lead, c, r, r, h, w)), (*range(k + 1), k + 3, k + 1, k + 4, k + 2))
    return apart(reshape(parts, (*lead, c, h * r, w * r)), x)


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """(*, C, H * r, W * r) to (*, C * r * r, H, W): the inverse of ``pixel_shuffle``."""
    x, r = _prepared("pixel_unshuffle", input, "downscale_factor", downscale_factor, 3)
    *lead, c, height, width = x._v.shape
    if height % r or width % r:
        raise ShapeError(
            f"pixel_unshuffle: downscale_factor {r} needs height and width in multiples of it, got shape {tuple(x.shape)}"
        )
    k, h, w = len(lead), height // r, width // r
    parts = permute(reshape(x, (*lead, c, h, r, w, r)), (*range(k + 1), k + 2, k + 4, k + 1, k + 3))
    return apart(reshape(parts, (*lead, c * r * r, h, w)), x)


def channel_shuffle(input: Any, groups: int) -> Tensor:
    """(N, C, *) with the channels of ``groups`` runs dealt in turn (Zhang et al., ShuffleNet, arXiv:1707.01083)."""
    x, g = _prepared("channel_shuffle", input, "groups", groups, 3)
    n, c, *space = x._v.shape
    if c % g:
        raise ShapeError(f"channel_shuffle: {g} groups do not divide the channels of shape {tuple(x.shape)}")
    return apart(reshape(transpose(reshape(x, (n, g, c // g, *space)), 1, 2), (n, c, *space)), x)
