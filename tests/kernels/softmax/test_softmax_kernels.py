"""Softmax and cross-entropy kernels against NumPy in float64, and against PyTorch at the infinities."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.softmax import entropy as kernels
from funcnn.kernels.cpu.softmax import softmax

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (4, 5, 1),
        (2, 3, 6),
        (1, 1, 1),
        (0, 3, 2),
        (2, 0, 3),
        (3, 4, 0),
        (2, 1000, 1),
        (3, 17, 1),
        (2, 127, 1),
        (2, 128, 1),
        (2, 129, 1),
        (2, 9, 5),
        (37, 5, 1),
        (70, 17, 1),
    ],
)
INF, NAN = np.inf, np.nan
ODD = [[-INF, -INF, -INF], [-INF, 0, 1], [INF, 0, 1], [INF, INF, -INF], [NAN, 0, 1], [0, 1, NAN], [1e30, -1e30, 0]]


def cut(x, width=4, turned=True):
    """Two units in a chunk: rows, blocks of columns, or of many rows, if they may be turned, blocks of 32."""
    return 2, 32 if turned and x.shape[2] == 1 and x.shape[0] > 32 else max(1, min(width, x.shape[2]))


def room(x, columns, blocks, threads):
    """Scratch for the worker's columns and blocks."""
    return np.empty(threads * softmax.room_for(x.shape, cut(x), columns, blocks), x.dtype)


def both(x, threads=1):
    y, logp = np.full_like(x, NAN), np.full_like(x, NAN)
    for logarithm, out in ((False, y), (True, logp)):
        totals = np.empty(threads * softmax.sums_for(cut(x)))
        softmax.softmax_forward(x, out, logarithm, room(x, 2, 2, threads), totals, cut(x), threads)
    return y, logp


def gradients(dy, y, logp, threads=1):
    outs = np.full_like(y, NAN), np.full_like(y, NAN)
    for logarithm, made, dx in ((False, y, outs[0]), (True, logp, outs[1])):
        tops, totals = (np.empty(threads * cut(y)[1], kind) for kind in (y.dtype, np.float64))
        softmax.softmax_grad(dy, made, dx, logarithm, tops, totals, cut(y, turned=False), threads)
    return outs


def naive(x):
    x = x.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True, initial=-INF))
    total = e.sum(1, keepdims=True)
    return e / total, x - x.max(1, keepdims=True, initial=-INF) - np.log(total)


def entropy(x, target, dloss, ignore_index=-100, threads=1):
    loss, top, rest, dx = *(np.full_like(dloss, NAN) for _ in range(3)), np.full_like(x, NAN)
    kernels.log_sums(x, top, rest, room(x, 4, 1, threads), np.empty(threads * cut(x)[1]), cut(x), threads)
    kernels.cross_entropy_pick(x, target, top, rest, loss, ignore_index, np.zeros(4, np.int64))
    kernels.exponentials(x, top, rest, dloss, dx, target, ignore_index, cut(x, turned=False), threads)
    return loss, top + rest, dx


@DTYPES
@SHAPES
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_against_numpy(shape, dtype):
    x = (20 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for got, expected in zip(both(x), naive(x), strict=True):
        np.testing.assert_allclose(got, expected, tolerance, tolerance * 1e-2)


@DTYPES
@SHAPES
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_gradients_against_numpy(shape, dtype):
    rng = np.random.default_rng(3)
    x, dy = ((3 * rng.standard_normal(shape)).astype(dtype) for _ in range(2))
    y, logp = naive(x)
    got = gradients(dy, *both(x))
    expected = y * (dy - (dy * y).sum(1, keepdims=True)), dy - y * dy.sum(1, keepdims=True, dtype=np.float64)
    tolerance = 3e-5 if dtype == "float32" else 1e-12
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, two, tolerance, tolerance)


@DTYPES
@pytest.mark.parametrize("shape", [(7, 50, 1), (2, 2500, 1), (3, 5, 11), (150, 7, 1)])
def test_same_bits_on_two_threads(shape, dtype):
    rng = np.random.default_rng(4)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    target, dloss = rng.integers(0, shape[1], shape[::2]), rng.standard_normal(shape[::2]).astype(dtype)
    made = both(x)
    pairs = [(both(x), both(x, 2)), (gradients(dy, *made), gradients(dy, *made, 2))]
    pairs.append((entropy(x, target, dloss), entropy(x, target, dloss, threads=2)))
    for one, two in [pair for pairs_of in pairs for pair in zip(*pairs_of, strict=True)]:
        assert one.tobytes() == two.tobytes()


@DTYPES
@pytest.mark.parametrize("inner", [1, 3])
def test_exponentials_without_a_target(inner, dtype):
    x = np.random.default_rng(5).standard_normal((4, 6, inner)).astype(dtype)
    scale, zero, dx = np.full((4, inner), 2, dtype), np.zeros((4, inner), dtype), np.empty_like(x)
    kernels.exponentials(x, scale, zero, scale, dx, np.empty((0, 0), np.int64), 0, cut(x), 1)
    np.testing.assert_allclose(dx, 2 * np.exp(x - 2), 1e-6)


@DTYPES
def test_infinities_and_nan_as_in_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x = np.array(ODD, dtype)
    theirs = torch.from_numpy(x)
    expected = torch.softmax(theirs, 1).numpy(), torch.log_softmax(theirs, 1).numpy()
    for got, reference in zip(both(x[:, :, None]), expected, strict=True):
        np.testing.assert_allclose(got[:, :, 0], reference, 1e-6)
    many = np.tile(x, (6, 1))  # rows that are turned
    for got, reference in zip(both(many[:, :, None]), expected, strict=True):
        np.testing.assert_allclose(got[:, :, 0], np.tile(reference, (6, 1)), 1e-6)


@DTYPES
def test_logsumexp_and_the_totals_of_losses(dtype):
    x, out = np.array(ODD, dtype), np.empty(7, dtype)
    for rows in (x, np.tile(x, (6, 1))):
        top, rest = (np.empty((len(rows), 1), dtype) for _ in range(2))
        many = rows[:, :, None]
        kernels.log_sums(many, top, rest, room(many, 4, 1, 1), np.empty(cut(many)[1]), cut(many), 1)
        kernels.join_sums(top[-7:, 0].copy(), rest[-7:, 0].copy(), out)
        np.testing.assert_allclose(out, [-INF, np.log(1 + np.e), INF, INF, NAN, NAN, 1e30], 1e-6)
    loss, target, total = np.array([[1, 2, 4]], dtype), np.array([[0, -100, 1]]), np.empty(1, dtype)
    for mean, expected in ((False, 7), (True, 3.5)):
        kernels.entropy_total(loss, target, -100, mean, total)
        assert total[0] == expected
        scale = np.empty((1, 3), dtype)
        kernels.entropy_scale(np.array(6, dtype), target, -100, mean, scale)
        np.testing.assert_array_equal(scale, np.full((1, 3), 3 if mean else 6))


@DTYPES
def test_cross_entropy_at_infinities_as_in_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x, target = np.array(ODD, dtype), np.array([0, 0, 0, 1, 1, 2, -100])
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(target), reduction="none")
    expected.sum().backward()
    loss, _, dx = entropy(x[:, :, None], target[:, None], np.ones((7, 1), dtype))
    np.testing.assert_allclose(loss[:, 0], expected.detach().numpy(), 1e-6)
    np.testing.assert_allclose(dx[:, :, 0], theirs.grad.numpy(), 1e-6)


@DTYPES
@pytest.mark.parametrize("shape", [(5, 4, 1), (2, 3, 7), (1, 1, 1), (0, 3, 1)])
def test_cross_entropy_and_its_gradient(shape, dtype):
    N, C, S = shape
    rng = np.random.default_rng(1)
    x, dloss = (3 * rng.standard_normal(s).astype(dtype) for s in (shape, (N, S)))
    target = rng.integers(0, C, (N, S))
    target[rng.random((N, S)) < 0.3] = -100
    got = entropy(x, target, dloss)
    p, logp = naive(x)
    loss, dx = np.zeros((N, S)), np.zeros(shape)
    for n in range(N):
        for s in range(S):
            if target[n, s] != -100:
                loss[n, s] = -logp[n, target[n, s], s]
                dx[n, :, s] = (p[n, :, s] - np.eye(C)[target[n, s]]) * dloss[n, s]
    with np.errstate(all="ignore"):
        lse = np.log(np.exp(x.astype(np.float64)).sum(1))
    for one, two in zip(got, (loss, lse, dx), strict=True):
        np.testing.assert_allclose(one, two, 1e-5, 1e-5)


@pytest.mark.parametrize("bad", [NAN, 0.0])
def test_an_ignored_target_hides_the_scale_and_may_be_a_class(bad):
    x, dloss = np.zeros((2, 3, 1)), np.array([[NAN], [2.0]])
    x[0] = bad
    loss, _, dx = entropy(x, np.array([[1], [2]]), dloss, 1)
    np.testing.assert_allclose(loss, [[0], [np.log(3)]])
    np.testing.assert_allclose(dx[:, :, 0], [[bad] * 3, [2 / 3, 2 / 3, -4 / 3]])
