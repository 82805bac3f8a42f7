"""The gradients of recurrent weights against NumPy: sizes beside the tiles', sums longer than a block, one thread against two."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.recurrent import weights as kernels
from funcnn.kernels.cpu.vector.tiles import strided_shape
from tests.plain import compiled_only

SHAPES = [(1, 1, 1, 1, 1), (3, 2, 5, 3, 4), (2, 9, 33, 40, 8), (4, 1, 32, 31, 70)]  # steps, n, inputs, hidden, gates
DTYPES = ["float32", "float64"]


def _run(shape: tuple, dtype: str, shared: bool, reverse: bool, threads: int = 1, block: int = 5) -> tuple[list, list]:
    """What the kernel fills, and its inputs: d, d_state, x, y, h0."""
    steps, n, inputs, hidden, gates = shape
    rng = np.random.default_rng(0)
    shapes = [(steps, n, gates), (steps, n, gates), (steps, n, inputs), (steps, n, hidden), (n, hidden)]
    ins = [rng.uniform(-1, 1, s).astype(dtype) for s in shapes]
    ins[1] = ins[0] if shared else ins[1]
    tile = high, wide = strided_shape(np.dtype(dtype).itemsize)
    deep = high * kernels.TILES
    factors = np.full((-(-inputs // wide) - (-hidden // wide)) * wide * steps * n, np.nan, dtype)
    panels = np.full(threads * (deep * min(block, steps * n) + high * wide), np.nan, dtype)
    outs = [np.full(s, np.nan, dtype) for s in ((gates, inputs), (gates, hidden), (gates,), (gates,))]
    outs = outs[:3] if shared else outs
    totals = np.full(threads * deep, np.nan)
    kernels.weights_grad(
        *ins[:2], shared, *ins[2:], reverse, tile, block, threads, factors, panels, totals, *outs[:3], outs[-1]
    )
    return outs, ins


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_numpy(dtype: str, shared: bool, reverse: bool) -> None:
    tol = 1e-5 if dtype == "float32" else 1e-13
    for shape in SHAPES:
        got, ins = _run(shape, dtype, shared, reverse)
        d, d_state, x, y, h0 = (a.astype(np.float64) for a in ins)
        before = np.concatenate([y[1:], h0[None]] if reverse else [h0[None], y[:-1]])
        flat = [a.reshape(-1, a.shape[-1]) for a in (d, d_state, x, before)]
        expected = [flat[0].T @ flat[2], flat[1].T @ flat[3], flat[0].sum(0), flat[1].sum(0)]
        for a, e in zip(got, expected, strict=False):
            np.testing.assert_allclose(a, e, tol, tol * 10)


@compiled_only
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(dtype: str, shared: bool) -> None:
    one, two = (_run((5, 20, 40, 50, 200), dtype, shared, False, threads, 64)[0] for threads in (1, 2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))
