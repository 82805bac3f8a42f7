"""The kernels of unfold and fold against a loop over windows and taps, on one and on two threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.sampling import fold

# (H, W), kernel, stride, padding, dilation
CASES = [
    ((5, 6), (3, 3), (1, 1), (1, 1), (1, 1)), ((5, 7), (2, 3), (2, 3), (0, 2), (2, 1)), ((4, 4), (1, 1), (3, 2), (0, 0), (1, 1)),
    ((5, 1), (1, 2), (1, 1), (0, 3), (1, 6)),  # columns that no window meets
    ((2, 3), (2, 2), (1, 2), (3, 4), (1, 3)), ((1, 1), (1, 1), (1, 1), (0, 0), (1, 1)), ((6, 5), (4, 2), (5, 1), (2, 0), (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("run", [1, 3, 100])
def test_windows_and_their_transpose(case, run, dtype):
    (h, w), size, stride, padding, dilation = case
    reach = [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in zip((h, w), size, padding, dilation, strict=True)]
    p, q = (r // t + 1 for r, t in zip(reach, stride, strict=True))
    rng, m = np.random.default_rng(0), 3
    x, g = rng.normal(size=(m, h, w)).astype(dtype), rng.normal(size=(m, *size, p, q)).astype(dtype)
    expected, total = np.zeros_like(g), np.zeros((m, h, w))
    for i, j, a, b in product(range(size[0]), range(size[1]), range(p), range(q)):
        y, z = a * stride[0] - padding[0] + i * dilation[0], b * stride[1] - padding[1] + j * dilation[1]
        if 0 <= y < h and 0 <= z < w:
            expected[:, i, j, a, b] = x[:, y, z]
            total[:, y, z] += g[:, i, j, a, b]
    seen = []
    for threads in (1, 2):
        columns, image = np.full_like(g, np.nan), np.full_like(x, np.nan)
        how = (h, w, p, q), size, stride, padding, dilation, run, threads
        fold.unfold(x.ravel(), columns.ravel(), *how)
        fold.fold(g.ravel(), image.ravel(), *how)
        np.testing.assert_array_equal(columns, expected)
        np.testing.assert_allclose(image, total, 1e-5 if dtype == "float32" else 1e-13, 1e-6)
        seen.append((columns.tobytes(), image.tobytes()))
    assert seen[0] == seen[1]
