"""Refusals of numbers: by a kernel's status words or, on the host, by a check; the primitive makes one exception of both.

A rule never reads a number. ``Primitive.check`` is what the host does where it has no kernel that reports by its status: it
finds by NumPy what such a kernel would write. A device runs no check, and its kernels need no synchronisation to refuse.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_FLOAT = np.dtype(np.float64)


class Refusal(NamedTuple):
    """What was refused: a meaning, and the words that a kernel writes (``kernels.launch.STATUS_WORDS``).

    words: code, operand, position in the order of elements, value (``number`` reads it).
    """

    meaning: str
    words: tuple[int, ...]


def first(bad: np.ndarray, operand: int, values: np.ndarray, meaning: str) -> Refusal | None:
    """The refusal of the first element where ``bad`` holds; None where it holds nowhere."""
    if not bad.any():
        return None
    position = int(bad.argmax())
    return Refusal(meaning, (1, operand, position, word(values[np.unravel_index(position, values.shape)])))


def outside(index: np.ndarray, low: int, high: int, operand: int) -> Refusal | None:
    """The refusal of the first index that is not in [low, high)."""
    if not index.size or (index.min() >= low and index.max() < high):
        return None
    return first((index < low) | (index >= high), operand, index, "an index is out of range")


def word(value: Any) -> int:
    """A number as a status word: an integer as it is, of a float the bits in float64."""
    return int(_FLOAT.type(value).view(np.int64)) if value.dtype.kind == "f" else int(value)


def number(words: tuple[int, ...], dtype: np.dtype) -> Any:
    """The value that status words tell of, an element of an array of ``dtype``."""
    return dtype.type(np.int64(words[3]).view(_FLOAT) if dtype.kind == "f" else words[3])
