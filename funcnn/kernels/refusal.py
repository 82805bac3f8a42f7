"""Refusals of numbers by what runs: a kernel's status words, or what a function of NumPy's finds that stands in for one."""

from __future__ import annotations

from typing import Any

import numpy as np

_FLOAT = np.dtype(np.float64)


class Refused(Exception):
    """Says that operands were refused: ``words`` are the status words, ``meaning`` is what the plan says of their code."""

    def __init__(self, meaning: str, words: tuple[int, ...]):
        super().__init__(meaning, words)
        self.meaning, self.words = meaning, words


def word(value: Any) -> int:
    """Returns a number as a status word: an integer as it is, of a float the bits in float64."""
    return int(_FLOAT.type(value).view(np.int64)) if value.dtype.kind == "f" else int(value)


def number(words: tuple[int, ...], dtype: np.dtype) -> Any:
    """Returns the value that status words tell of, an element of an array of ``dtype``."""
    return dtype.type(np.int64(words[3]).view(_FLOAT) if dtype.kind == "f" else words[3])


def refuse_where(bad: np.ndarray, operand: int, values: np.ndarray, meaning: str) -> None:
    """Raises ``Refused`` for the first element where ``bad`` holds, as a kernel's status words tell of it."""
    if bad.any():
        position = int(bad.argmax())
        raise Refused(meaning, (1, operand, position, word(values[np.unravel_index(position, values.shape)])))


def refuse_outside(index: np.ndarray, low: int, high: int, operand: int) -> None:
    """Raises ``Refused`` for the first index that is not in [low, high)."""
    if index.size and (index.min() < low or index.max() >= high):
        refuse_where((index < low) | (index >= high), operand, index, "an index is out of range")
