"""Arrays and settings of a convolution of any number of dimensions as its kernels take them, which know three: (D, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np


def three(value: tuple, fill: int = 1) -> Any:
    """The numbers of (D, H, W), ``fill`` for dimensions that there are not."""
    return (fill,) * (3 - len(value)) + tuple(value)


def where_of(stride: tuple, padding: tuple, dilation: tuple) -> tuple:
    """The three for (D, H, W), whatever number of dimensions they are given for."""
    return three(stride), three(padding, 0), three(dilation)


def volume(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N, C, D, H, W)."""
    return np.ascontiguousarray(array).reshape(*array.shape[:2], *three(array.shape[2:]))


def bias_of(ins: list, y: np.ndarray) -> np.ndarray:
    """The third input, or zeros, for y (N, K, ...)."""
    return np.ascontiguousarray(ins[2]) if len(ins) > 2 else np.zeros(y.shape[1], y.dtype)
