"""The recurrent kernels against loops over NumPy, and one thread against two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu.recurrent import gru, lstm, rnn
from funcnn.kernels.cpu.recurrent import tasks as recurrent
from tests.plain import compiled_only

SHAPES = [(1, 1, 1), (3, 2, 5), (2, 5, 33), (3, 17, 20), (2, 1, 70), (2, 0, 3)]
DTYPES = ["float32", "float64"]


def _arrays(rng: np.random.Generator, dtype: str, *shapes: tuple) -> list[np.ndarray]:
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def _setting(n: int, hidden: int, gates: int, slots: int, dtype: str, threads: int, inputs: int = 0) -> tuple:
    itemsize = np.dtype(dtype).itemsize
    tiles, units = recurrent.blocking(n, itemsize)
    rows = -(-hidden // units) * units * gates
    strips = [np.full(rows * width, np.nan, dtype) for width in ((hidden, inputs) if inputs else (hidden,))]
    scratch = np.full((threads, -(-n // tiles) * slots * units), np.nan, dtype)
    return tiles, units, threads, np.zeros(3, np.int64), *strips, scratch


def _outs(dtype: str, *shapes: tuple) -> list[np.ndarray]:
    return [np.full(shape, np.nan, dtype) for shape in shapes]


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _run(mode: str, steps: int, n: int, hidden: int, dtype: str, reverse: bool, threads: int = 1) -> tuple[list, list]:
    """Everything that the two kernels of a mode fill, and all their inputs."""
    rng = np.random.default_rng(0)
    gates = {"lstm": 4, "gru": 3}.get(mode, 1)
    sequence, state, width = (steps, n, hidden), (n, hidden), (steps, n, gates * hidden)
    x, w_ih = _arrays(rng, dtype, (steps, n, 3), (gates * hidden, 3))
    h0, c0, dh, dc = _arrays(rng, dtype, *[state] * 4)
    w, b, b_hh, dy = _arrays(rng, dtype, (gates * hidden, hidden), *[(gates * hidden,)] * 2, sequence)
    slots = {"lstm": 4, "gru": 4}.get(mode, 1)
    there = (reverse, *_setting(n, hidden, gates, slots, dtype, threads, 3))
    again = (reverse, *_setting(n, hidden, gates, 1, dtype, threads))
    if mode == "lstm":
        outs = _outs(dtype, sequence, state, state, width, sequence)
        back = _outs(dtype, width, state, state)
        lstm.lstm_forward(x, w_ih, h0, c0, w, b, *there, *outs)
        lstm.lstm_backward(dy, dh, dc, outs[3], outs[4], c0, w, *again, *back)
    elif mode == "gru":
        outs = _outs(dtype, sequence, state, width, sequence)
        back = _outs(dtype, width, width, state)
        gru.gru_forward(x, w_ih, h0, w, b, b_hh, *there, *outs)
        gru.gru_backward(dy, dh, outs[2], outs[3], outs[0], h0, w, *again, *back)
    else:
        outs, back = _outs(dtype, sequence, state), _outs(dtype, width, state)
        rnn.rnn_forward(x, w_ih, h0, w, b, mode == "relu", *there, *outs)
        rnn.rnn_backward(dy, dh, outs[0], w, mode == "relu", *again, *back)
    return [*outs, *back], [x @ w_ih.T, h0, c0, w, b, b_hh, dy, dh, dc]


def _naive(mode: str, reverse: bool, gx: Any, h: Any, c: Any, w: Any, b: Any, b_hh: Any) -> list[np.ndarray]:
    """y and the last states, step by step."""
    ys = []
    for x in gx[::-1] if reverse else gx:
        a = h @ w.T
        if mode == "lstm":
            i, f, g, o = np.split(x + b + a, 4, -1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        elif mode == "gru":
            (xr, xz, xn), (r, z, m) = np.split(x + b, 3, -1), np.split(a + b_hh, 3, -1)
            z = _sigmoid(xz + z)
            h = (1 - z) * np.tanh(xn + _sigmoid(xr + r) * m) + z * h
        else:
            h = np.maximum(x + b + a, 0) if mode == "relu" else np.tanh(x + b + a)
        ys.append(h)
    return [np.stack(ys[::-1] if reverse else ys), h, *([c] if mode == "lstm" else [])]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["lstm", "gru", "tanh", "relu"])
def test_against_numpy(mode: str, dtype: str) -> None:
    tol = {"rtol": 2e-5, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    for shape in SHAPES:
        for reverse in (False, True):
            got, ins = _run(mode, *shape, dtype, reverse)
            assert not any(np.isnan(a).any() for a in got)
            wide = [a.astype(np.float64) for a in ins]
            expected = _naive(mode, reverse, *wide[:6])
            for a, e in zip(got, expected, strict=False):
                np.testing.assert_allclose(a, e, **tol)
            _check_slope(mode, reverse, wide, got, 1e-3 if dtype == "float32" else 1e-6)


def _check_slope(mode: str, reverse: bool, ins: list, got: list, tolerance: float) -> None:
    """The gradients of gx and of the first states along random directions, against differences."""
    dy, dh, dc = ins[6:]
    states = 2 if mode == "lstm" else 1
    gradients = [got[-1 - states] if mode != "gru" else got[-3], *got[-states:]]
    rng = np.random.default_rng(1)
    ways = [rng.normal(size=a.shape) for a in ins[: 1 + states]]

    def loss(step: float) -> float:
        moved = [a + step * way for a, way in zip(ins, ways, strict=False)]
        outs = _naive(mode, reverse, *moved, *ins[1 + states : 6])
        return sum((o * g).sum() for o, g in zip(outs, (dy, dh, dc), strict=False))

    eps = 1e-6
    expected = (loss(eps) - loss(-eps)) / (2 * eps)
    slope = sum((g.astype(np.float64) * way).sum() for g, way in zip(gradients, ways, strict=True))
    assert abs(slope - expected) <= tolerance * (1 + abs(expected)) * 10


@compiled_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["lstm", "gru", "tanh", "relu"])
def test_same_bits_for_any_number_of_threads(mode: str, dtype: str) -> None:
    for shape in [(3, 20, 130), (4, 1, 200)]:
        one, two = (_run(mode, *shape, dtype, False, threads)[0] for threads in (1, 2))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def test_blocks_depend_on_the_shape_alone() -> None:
    for n in range(60):
        tiles, units = recurrent.blocking(n, 4)
        heights = {n * (i + 1) // tiles - n * i // tiles for i in range(tiles)}
        assert max(heights) <= recurrent.most_rows(4) and units % 4 == 0
        assert n <= recurrent.FEW or min(heights) >= recurrent.FEW
