"""Refusals of numbers: by a kernel's status words or, on the host, by a check; the primitive makes one exception of both.

A rule never reads a number. ``Primitive.check`` is what the host does where it has no kernel that reports by its status: it
finds by NumPy what such a kernel would write. A device runs no check, and its kernels need no synchronisation to refuse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funcnn.kernels.refusal import number as number
from funcnn.kernels.refusal import word as word


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
