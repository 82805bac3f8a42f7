"""Uniform, normal and dropout kernels against what NumPy makes of the same words; one thread and two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from funcnn.kernels.cpu.random import draw
from funcnn.kernels.philox import block, words_numpy

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
KEYS = np.array([[1, 2], [3, 0xFFFFFFFF]], np.uint32)
COUNTS = pytest.mark.parametrize("count", [0, 1, 2, 7, draw.SPAN_ELEMENTS + 1, 2 * draw.CHUNK_ELEMENTS + 333])


def units(count, dtype):
    """(keys, count) uniform numbers."""
    size = np.dtype(dtype).itemsize // 4
    words = np.stack([words_numpy(int(a), int(b), 5, size * count) for a, b in KEYS])
    if size == 1:
        return (words >> 8).astype(np.float32) * np.float32(2**-24)
    return ((words[:, ::2] >> 5) * 2.0**26 + (words[:, 1::2] >> 6)) * 2.0**-53


def run(kernel, count, dtype, *args, threads=1):
    out = np.full((len(KEYS), count), 7, dtype)
    scratch = np.zeros((threads, draw.SCRATCH_WORDS), np.uint32)
    kernel(KEYS, *args[:1], out, 5, *args[1:], scratch, threads)
    return out


@COUNTS
def test_words(count):
    got = run(draw.words, count, np.uint32)
    np.testing.assert_array_equal(got, [words_numpy(int(a), int(b), 5, count) for a, b in KEYS])
    np.testing.assert_array_equal(run(draw.words, count, np.uint32, threads=2), got)


@COUNTS
@DTYPES
def test_uniform(count, dtype):
    got = run(draw.uniform, count, dtype)
    np.testing.assert_array_equal(got, units(count, dtype))
    np.testing.assert_array_equal(run(draw.uniform, count, dtype, threads=2), got)


@COUNTS
@DTYPES
def test_normal(count, dtype):
    half = (count + 1) // 2
    u, v = units(2 * half, dtype).astype(np.longdouble).reshape(2, 2, half).transpose(1, 0, 2)
    radius, angle = np.sqrt(-2 * np.log(1 - u)), 2 * np.longdouble(math.pi) * v
    want = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]
    got = run(draw.normal, count, dtype)
    tolerance = 3e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(got, want.astype(dtype), tolerance, tolerance)
    np.testing.assert_array_equal(run(draw.normal, count, dtype, threads=2), got)


@COUNTS
@DTYPES
def test_dropout(count, dtype):
    x = np.random.default_rng(0).standard_normal((len(KEYS), count)).astype(dtype)
    scale = x.dtype.type(1 / 0.7)
    level = np.uint32((int(0.3 * 2**24) << 8) + 255)
    got = run(draw.dropout, count, dtype, x, level, scale)
    words = np.stack([words_numpy(int(a), int(b), 5, count) for a, b in KEYS])
    np.testing.assert_array_equal(got, np.where(words > level, x * scale, 0))
    np.testing.assert_array_equal(run(draw.dropout, count, dtype, x, level, scale, threads=2), got)


def test_data_is_folded_into_keys():
    data = np.array([5, -(1 << 40)])
    out = np.zeros((2, 2), np.uint32)
    draw.fold(KEYS, data, out, 2)
    halves = [(int(d) & 0xFFFFFFFF, int(d) >> 32 & 0xFFFFFFFF) for d in data]
    assert out.tolist() == [
        list(block(int(a), int(b), *half, 2, 0)[:2]) for (a, b), half in zip(KEYS, halves, strict=True)
    ]
