"""What only looks at numbers: the first bad one is told, for any number of threads, and others go through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu.elementwise import looking
from funcnn.kernels.cpu.softmax import binary
from funcnn.kernels.refusal import number

CASES = [
    (looking.look_at_classes, (5, -100), [0, 4, -100, 3], [5, -1, 7]),
    (looking.look_at_probabilities, (), [0.0, 1.0, 0.3, np.nan], [1.5, -0.1]),
    (looking.look_at_chances, (), [0.0, 1.0, 0.3], [np.nan, 1.5, -0.1]),
    (looking.look_at_deviations, (), [0.0, 3.0, np.inf], [np.nan, -1e-30]),
]


def words(kernel: Any, x: np.ndarray, params: tuple) -> list[int]:
    """The status words, the same for one and two threads."""
    found = []
    for threads in (1, 2):
        status = np.zeros(4, np.int64)
        kernel(x, params, 3, status, threads)
        found.append(status.tolist())
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(("kernel", "params", "good", "bad"), CASES, ids=[case[0].__name__ for case in CASES])
def test_the_first_bad_number_is_told(
    kernel: Any, params: tuple, good: list, bad: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in ("int64", "int32") if params else ("float32", "float64"):
        x = np.resize(np.array(good, dtype), 2 * looking.CHUNK_ELEMENTS + 5)
        assert words(kernel, x, params) == [0] * 4
        assert words(kernel, x[:0].copy(), params) == [0] * 4
        for value in bad:
            wrong = x.copy()
            wrong[[looking.CHUNK_ELEMENTS + 2, -1]] = value, bad[0]
            told = words(kernel, wrong, params)
            assert told[:3] == [1, 3, looking.CHUNK_ELEMENTS + 2]
            np.testing.assert_array_equal(number(tuple(told), x.dtype), x.dtype.type(value))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_row_of_bad_weights_is_told(dtype: str) -> None:
    good = np.array([[0, 1, 2], [1e-20, 0, 0]], dtype)
    for row in ([0, 0, 0], [1, -1, 3], [1, np.nan, 1], [1, np.inf, 1]):
        status = np.zeros(4, np.int64)
        looking.look_at_weights(np.concatenate([good, np.array([row, row], dtype)]).ravel(), 4, 3, status)
        assert status.tolist() == [1, 0, 2, 0]
    status = np.zeros(4, np.int64)
    looking.look_at_weights(good.ravel(), 2, 3, status)
    assert not status.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy(dtype: str) -> None:
    rng = np.random.default_rng(0)
    p, t = rng.random(300).astype(dtype), rng.random(300).astype(dtype)
    p[:4], t[:4] = [0, 1, 0, 1], [0, 1, 1, 0]
    out = np.empty_like(p)
    binary.binary_cross_entropy(p, t, out, (), 1)
    with np.errstate(divide="ignore"):
        wide = p.astype("float64")
        expected = (t - 1) * np.maximum(np.log1p(-wide), -100) - t * np.maximum(np.log(wide), -100)
    np.testing.assert_allclose(out, expected, 3e-6 if dtype == "float32" else 1e-14)
