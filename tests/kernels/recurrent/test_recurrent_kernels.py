"""The recurrent kernels against loops over NumPy, and one thread against two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu import launching
from funcnn.kernels.cpu.recurrent import launch
from funcnn.kernels.cpu.recurrent import tasks as recurrent
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import INPUT, Array
from tests import helpers as h
from tests.plain import compiled_only

SHAPES = [(1, 1, 1), (3, 2, 5), (2, 5, 33), (3, 17, 20), (2, 1, 70), (2, 0, 3)]
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def garbage_in_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel reads of its scratch it has written before."""
    h.dirty_scratch(monkeypatch)


def _arrays(rng: np.random.Generator, dtype: str, *shapes: tuple) -> list[np.ndarray]:
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def _launch(ways: tuple, ins: list, outs: list, **params: bool) -> None:
    """Fill the outputs by the only implementation."""
    operands, results = (tuple(map(operand_of, arrays)) for arrays in (ins, outs))
    launching.Runner(ways[0].plan(operands, params), operands, results)(ins, outs)


def _outs(dtype: str, *shapes: tuple) -> list[np.ndarray]:
    return [np.full(shape, np.nan, dtype) for shape in shapes]


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _inputs(mode: str, steps: int, n: int, hidden: int, dtype: str, models: tuple = ()) -> list[np.ndarray]:
    """x, w_ih, h0, c0, w, b, b_hh, dy, dh, dc."""
    rows = {"lstm": 4, "gru": 3}.get(mode, 1) * hidden
    state, sequence = (n, hidden), (steps, n, hidden)
    shapes = [(steps, n, 3), (rows, 3), state, state, (rows, hidden), (rows,), (rows,), sequence, state, state]
    return _arrays(np.random.default_rng(0), dtype, *[(*models, *shape) for shape in shapes])


def _made(mode: str, ins: list, reverse: bool) -> list[np.ndarray]:
    """Everything that the two primitives of a mode fill."""
    x, w_ih, h0, c0, w, b, b_hh, dy, dh, dc = ins
    sequence, state, width, dtype = dy.shape, h0.shape, (*dy.shape[:-1], w.shape[-2]), dy.dtype.name
    if mode == "lstm":
        outs, given = _outs(dtype, sequence, state, state, width, sequence), [x, w_ih, h0, c0, w, b]
        back = _outs(dtype, width, state, state)
        _launch(launch.lstm_ways, given, outs, reverse=reverse)
        _launch(launch.lstm_grad, [dy, dh, dc, *outs[3:], *given], back, reverse=reverse)
    elif mode == "gru":
        outs, given = _outs(dtype, sequence, state, width, sequence), [x, w_ih, h0, w, b, b_hh]
        back = _outs(dtype, width, width, state)
        _launch(launch.gru_ways, given, outs, reverse=reverse)
        _launch(launch.gru_grad, [dy, dh, *outs[2:], outs[0], *given], back, reverse=reverse)
    else:
        outs, given = _outs(dtype, sequence, state), [x, w_ih, h0, w, b]
        back, params = _outs(dtype, width, state), {"relu": mode == "relu", "reverse": reverse}
        _launch(launch.rnn_ways, given, outs, **params)
        _launch(launch.rnn_grad, [dy, dh, outs[0], *given], back, **params)
    return [*outs, *back]


def _run(mode: str, steps: int, n: int, hidden: int, dtype: str, reverse: bool) -> tuple[list, list]:
    """What the primitives fill, and their inputs with x multiplied by its weights."""
    x, w_ih, *rest = ins = _inputs(mode, steps, n, hidden, dtype)
    return _made(mode, ins, reverse), [x @ w_ih.T, *rest]


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
def test_same_bits_for_any_number_of_threads(mode: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NANOSECONDS_FOR_SHARING", 0)
    for shape in [(3, 20, 130), (4, 1, 200)]:
        found = []
        for threads in (1, 2):
            h.on_workers(monkeypatch, threads)
            found.append([a.tobytes() for a in _run(mode, *shape, dtype, False)[0]])
        assert found[0] == found[1]


@pytest.mark.parametrize("models", [(3,), (2, 2), (1,), (0,)], ids=str)
@pytest.mark.parametrize("mode", ["lstm", "gru", "tanh", "relu"])
def test_models_one_after_the_other(mode: str, models: tuple) -> None:
    """Each has weights of its own, and the bits that it has by itself."""
    ins = _inputs(mode, 3, 2, 5, "float32", models)
    whole = _made(mode, ins, True)
    assert all(a.shape[: len(models)] == models for a in whole)
    for at in np.ndindex(models):
        assert [a[at].tobytes() for a in whole] == [a.tobytes() for a in _made(mode, [a[at] for a in ins], True)]


@pytest.mark.parametrize("mode", ["lstm", "gru", "tanh"])
def test_weights_are_packed_by_a_launch_of_their_own(mode: str) -> None:
    """It reads the weights alone, so that a runtime may keep what it makes."""
    x, w_ih, h0, c0, w, b, b_hh = map(operand_of, _inputs(mode, 3, 2, 5, "float32")[:7])
    ways, ins, params = {
        "lstm": (launch.lstm_ways, (x, w_ih, h0, c0, w, b), {}),
        "gru": (launch.gru_ways, (x, w_ih, h0, w, b, b_hh), {}),
        "tanh": (launch.rnn_ways, (x, w_ih, h0, w, b), {"relu": False}),
    }[mode]
    plan = ways[0].plan(ins, {**params, "reverse": False})
    assert [one.once for one in plan.launches] == [True, False]
    read = {arg.number for arg in plan.launches[0].args if isinstance(arg, Array) and arg.buffer == INPUT}
    assert read == {1, ins.index(w)}


def test_blocks_depend_on_the_shape_alone() -> None:
    for n in range(60):
        tiles, units = recurrent.blocking(n, 4)
        heights = {n * (i + 1) // tiles - n * i // tiles for i in range(tiles)}
        assert max(heights) <= recurrent.most_rows(4) and units % 4 == 0
        assert n <= recurrent.WIDE_ROWS or min(heights) >= recurrent.WIDE_ROWS
