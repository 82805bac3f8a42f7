"""How random numbers are drawn on NumPy: of few words, for which a call of a kernel costs more. The bits are the kernels'.

A key is a pair of words; a stream of it gives as many words as are asked for (``kernels.philox``). Stream 0 gives what is
drawn from a key, stream 1 its children, and stream 2 the keys that ``fold_in`` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels import philox
from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.random import launch
from funcnn.kernels.cpu.random.launch import BITS, CHILDREN, DROPOUT, FOLD, NORMAL, UNIFORM, WORDS, level
from funcnn.kernels.implementation import NUMPY, Implementation, host

WORDS_IN_PYTHON = 64  # up to so many are computed in Python integers
KEYS = "Python's integers cost less than a launch for few keys"


def fill_words(keys: np.ndarray, stream: int, out: np.ndarray) -> None:
    """Fills a row of ``out`` (K, ...) from each key."""
    if not out.size:
        return
    rows = out.reshape(keys.size // 2, -1)
    words = philox.words_python if rows.shape[1] <= WORDS_IN_PYTHON else philox.words_numpy
    for (k0, k1), row in zip(keys.reshape(-1, 2), rows, strict=True):
        row[:] = words(int(k0), int(k1), stream, row.size)


def units(keys: np.ndarray, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """Returns uniform numbers in [0, 1), (K, *shape): 24 bits of a word in float32, 53 bits of two words in float64."""
    words = fresh((keys.size // 2, *shape, dtype.itemsize // 4), np.uint32)
    fill_words(keys, BITS, words)
    if dtype == np.float32:
        return (words[..., 0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return ((words[..., 0] >> np.uint32(5)) * 2.0**26 + (words[..., 1] >> np.uint32(6))) * 2.0**-53


def normals(keys: np.ndarray, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """Returns standard normal numbers, (K, n), by the Box-Muller transform (1958): the cosines first, then the sines."""
    count = prod(shape)
    pair = units(keys, (2, -(-count // 2)), dtype)
    radius = np.sqrt(np.log(1 - pair[:, 0]) * -2)  # 1 - u is never 0
    angle = pair[:, 1] * dtype.type(2.0 * np.pi)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]


def _bits(ins: list, outs: list, shape: tuple) -> None:
    fill_words(ins[0], BITS, outs[0])


def _drawn(kernel: Implementation, plain: Callable) -> tuple[Implementation, ...]:
    """The implementations of numbers drawn from a key: a kernel for many, NumPy for few."""

    def few(ins: list, outs: list, shape: tuple, dtype: np.dtype) -> None:
        outs[0][...] = plain(ins[0], shape, dtype).reshape(outs[0].shape)

    return kernel, host("numpy", few, NUMPY)


def _split(ins: list, outs: list, num: int) -> None:
    fill_words(ins[0], CHILDREN, outs[0])


def _fold_in(ins: list, outs: list) -> None:
    for key, data, row in zip(ins[0].reshape(-1, 2), ins[1].reshape(-1), outs[0].reshape(-1, 2), strict=True):
        low, high = int(data) & philox.MASK, int(data) >> 32 & philox.MASK
        row[:] = philox.block(int(key[0]), int(key[1]), low, high, FOLD, 0)[:2]


def _dropout(ins: list, outs: list, p: float) -> None:
    x, keys = ins
    words: Any = fresh(x.shape, np.uint32)
    fill_words(keys, BITS, words)
    np.multiply(x, np.where(words > level(p), x.dtype.type(1.0 / (1.0 - p)), x.dtype.type(0)), outs[0])


RANDOM_BITS = (WORDS, host("numpy", _bits, NUMPY))
RANDOM_UNIFORM, RANDOM_NORMAL = _drawn(UNIFORM, units), _drawn(NORMAL, normals)
SPLIT = (launch.SPLIT, host("numpy", _split, NUMPY))
FOLD_IN = (launch.FOLD_IN, host("numpy", _fold_in, KEYS))
RANDOM_DROPOUT = (DROPOUT, host("numpy", _dropout, NUMPY))
