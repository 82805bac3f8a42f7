"""The gradients of recurrent weights against NumPy: sizes beside the tiles', sums longer than a block, one thread against two."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu import launching
from funcnn.kernels.cpu.recurrent import launch, weights
from funcnn.kernels.implementation import operand_of
from tests import helpers as h
from tests.plain import compiled_only

SHAPES = [(1, 1, 1, 1, 1), (3, 2, 5, 3, 4), (2, 9, 33, 40, 8), (4, 1, 32, 31, 70)]  # steps, n, inputs, hidden, gates
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def garbage_in_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel reads of its scratch it has written before."""
    h.dirty_scratch(monkeypatch)


def _run(shape: tuple, dtype: str, shared: bool, reverse: bool) -> tuple[list, list]:
    """What the primitive fills, and its inputs: d, d_state, x, y, h0."""
    steps, n, inputs, hidden, gates = shape
    rng = np.random.default_rng(0)
    shapes = [(steps, n, gates), (steps, n, gates), (steps, n, inputs), (steps, n, hidden), (n, hidden)]
    ins = [rng.uniform(-1, 1, s).astype(dtype) for s in shapes]
    ins[1] = ins[0] if shared else ins[1]
    given = [ins[0], *ins[2:]] if shared else ins
    outs = [np.full(s, np.nan, dtype) for s in ((gates, inputs), (gates, hidden), (gates,), (gates,))][: 4 - shared]
    operands, results = (tuple(map(operand_of, arrays)) for arrays in (given, outs))
    plan = launch.recurrent_weights[0].plan(operands, {"reverse": reverse})
    launching.Runner(plan, operands, results)(given, outs)
    return outs, ins


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_numpy(dtype: str, shared: bool, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BLOCK_TERMS", 5)
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
def test_same_bits_for_any_number_of_threads(dtype: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BLOCK_TERMS", 64)
    found = []
    for threads in (1, 2):
        h.on_workers(monkeypatch, threads)
        found.append([a.tobytes() for a in _run((5, 20, 40, 50, 200), dtype, shared, False)[0]])
    assert found[0] == found[1]
