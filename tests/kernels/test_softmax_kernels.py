"""Softmax and cross-entropy kernels against NumPy in float64, and against PyTorch at the infinities."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu import softmax

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SHAPES = pytest.mark.parametrize(
    "shape", [(4, 5, 1), (2, 3, 6), (1, 1, 1), (0, 3, 2), (2, 0, 3), (3, 4, 0), (2, 1000, 1)]
)
INF, NAN = np.inf, np.nan
ODD = [[-INF, -INF, -INF], [-INF, 0, 1], [INF, 0, 1], [INF, INF, -INF], [NAN, 0, 1], [0, 1, NAN], [1e30, -1e30, 0]]


def both(x):
    y, logp = np.full_like(x, NAN), np.full_like(x, NAN)
    softmax.softmax_forward(x, y)
    softmax.log_softmax_forward(x, logp)
    return y, logp


def naive(x):
    x = x.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True, initial=-INF))
    total = e.sum(1, keepdims=True)
    return e / total, x - x.max(1, keepdims=True, initial=-INF) - np.log(total)


def entropy(x, target, dloss, ignore_index=-100):
    loss, logp, dx = np.full_like(dloss, NAN), np.full_like(x, NAN), np.full_like(x, NAN)
    softmax.cross_entropy_forward(x, target, loss, logp, ignore_index)
    softmax.cross_entropy_grad(logp, target, dloss, dx, ignore_index)
    return loss, logp, dx


@DTYPES
@SHAPES
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_against_numpy(shape, dtype):
    x = (20 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for got, expected in zip(both(x), naive(x), strict=True):
        np.testing.assert_allclose(got, expected, tolerance, tolerance * 1e-2)


@DTYPES
def test_infinities_and_nan_as_in_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x = np.array(ODD, dtype)
    theirs = torch.from_numpy(x)
    expected = torch.softmax(theirs, 1).numpy(), torch.log_softmax(theirs, 1).numpy()
    for got, reference in zip(both(x[:, :, None]), expected, strict=True):
        np.testing.assert_allclose(got[:, :, 0], reference, 1e-6)


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
    for one, two in zip(got, (loss, logp, dx), strict=True):
        np.testing.assert_allclose(one, two, 1e-5, 1e-5)


def test_an_ignored_target_hides_nan_and_may_be_a_class():
    x, dloss = np.zeros((2, 3, 1)), np.array([[NAN], [2.0]])
    x[0] = NAN
    loss, _, dx = entropy(x, np.array([[1], [2]]), dloss, 1)
    np.testing.assert_allclose(loss, [[0], [np.log(3)]])
    np.testing.assert_allclose(dx[:, :, 0], [[0, 0, 0], [2 / 3, 2 / 3, -4 / 3]])
