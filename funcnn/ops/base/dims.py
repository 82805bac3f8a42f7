"""Dimensions and shapes: names of axes normalised, sizes as arguments, the shape that shapes broadcast to."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor


@lru_cache(maxsize=4096)
def broadcast(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that ``shapes`` broadcast to. Raises ``ShapeError``."""
    rank = max(map(len, shapes))
    out = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        if len(sizes) > 1:
            listed = " and ".join(map(str, shapes))
            raise ShapeError(f"{name}: shapes {listed} do not broadcast: sizes {sorted(sizes)} at dimension {axis}")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def normalize_dim(name: str, dim: int | np.integer, ndim: int) -> int:
    """Converts a possibly negative dimension to 0..ndim-1 (a 0-d tensor counts as one dimension). Raises ``IndexError``."""
    if type(dim) is not int and (isinstance(dim, bool) or not isinstance(dim, (int, np.integer))):
        raise DTypeError(f"{name}: dim must be an int, got {type(dim).__name__}")
    bound = ndim or 1
    if not -bound <= dim < bound:
        raise IndexError(
            f"{name}: dimension {dim} is out of range for {ndim} dimensions; expected {-bound}..{bound - 1}"
        )
    return int(dim) % bound


def normalize_dims(name: str, dims: Any, ndim: int) -> tuple[int, ...]:
    """Converts None (all), an int or several to sorted distinct dimensions. Raises ``ShapeError`` for a repeated one."""
    if type(dims) is int and -ndim <= dims < ndim:
        return (dims % ndim,)
    if dims is None:
        return tuple(range(ndim))
    if isinstance(dims, (int, np.integer)):
        dim = normalize_dim(name, dims, ndim)
        return (dim,) if ndim else ()
    listed = tuple(dims)
    out = sorted([normalize_dim(name, dim, ndim) for dim in listed])
    if len(set(out)) != len(out):
        raise ShapeError(f"{name}: a dimension appears twice in {listed}")
    return tuple(out) if ndim else ()


def per_dim(name: str, what: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """Returns an int, or ``n`` ints, as one int of at least ``least`` for each spatial dimension. Raises ``ValueError``."""
    if type(value) is int and value >= least:
        return (value,) * n
    listed = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(listed) == 1:
        listed *= n
    for size in listed:
        if not isinstance(size, (int, np.integer)) or size < least:
            break
    else:
        if len(listed) == n:
            return tuple(map(int, listed))
    raise ValueError(f"{name}: {what} must be an int or {n} ints of at least {least}, got {value!r}")


def size_args(sizes: tuple) -> tuple[int, ...]:
    """Returns the sizes of ``f(2, 3)`` or ``f((2, 3))`` as one tuple of ints."""
    listed = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return tuple(map(int, listed))


def numel(shape: tuple[int, ...]) -> int:
    """Counts the elements of a shape."""
    return math.prod(shape)


def count_over(x: Tensor, dim: Any, name: str) -> int:
    """Counts the elements of ``x`` along the dimensions ``dim``."""
    return numel(tuple(x._v.shape[a] for a in normalize_dims(name, dim, x.ndim)))
