"""Pooling where the table of cases does not go: every option against PyTorch, ties and NaN, unpooling, refusals."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.nn import functional as pool
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import vjp
from funcnn.transforms.grad_mode import no_grad

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 7, 6))
OPTIONS = list(product([2, (3, 2)], [None, 1, (2, 3)], [0, 1], [False, True]))


def against_torch(name: str, x: np.ndarray, *args: Any, **kwargs: Any) -> None:
    """Values and the gradient for a random cotangent agree with PyTorch's."""
    torch = pytest.importorskip("torch")
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    theirs = getattr(torch.nn.functional, name)(leaf, *args, **kwargs)
    y, pull = vjp(lambda x: getattr(pool, name)(x, *args, **kwargs), as_tensor(x))
    np.testing.assert_allclose(y.numpy(), theirs.detach().numpy(), 1e-12, 1e-12)
    dy = RNG.standard_normal(y.shape)
    theirs.backward(torch.from_numpy(dy))
    got = pull(as_tensor(dy))
    np.testing.assert_allclose((got[0] if isinstance(got, tuple) else got).numpy(), leaf.grad.numpy(), 1e-12, 1e-12)


# ---- meaning ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size, stride, padding, ceil_mode", OPTIONS)
def test_max_pool(size: Any, stride: Any, padding: int, ceil_mode: bool) -> None:
    against_torch("max_pool2d", X, size, stride, padding, ceil_mode=ceil_mode)
    against_torch("max_pool2d", X, size, stride, padding, (2, 1), ceil_mode=ceil_mode)


@pytest.mark.parametrize("size, stride, padding, ceil_mode", OPTIONS)
def test_avg_pool(size: Any, stride: Any, padding: int, ceil_mode: bool) -> None:
    for include in (False, True):
        against_torch("avg_pool2d", X, size, stride, padding, ceil_mode, include)
    against_torch("avg_pool2d", X, size, stride, padding, ceil_mode, divisor_override=-3)


@pytest.mark.parametrize("shape", [(2, 3, 7), (3, 7)])
@pytest.mark.parametrize("out", [1, 3, 7, 9])
def test_adaptive_pools(shape: tuple, out: int) -> None:
    """More outputs than inputs repeat pixels."""
    x = RNG.standard_normal(shape)
    against_torch("adaptive_avg_pool1d", x, out)
    against_torch("adaptive_max_pool1d", x, out)


def test_max_pool_without_a_gradient_finds_the_same_values() -> None:
    x = np.random.default_rng(6).standard_normal((2, 3, 11, 40))
    x[0, 1, 4, 5] = np.nan
    leaf = as_tensor(x).requires_grad_()
    for size, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (3, 3, 0, 1)):
        recorded = pool.max_pool2d(leaf, size, stride, padding, dilation)
        with no_grad():
            values = pool.max_pool2d(leaf, size, stride, padding, dilation)
        np.testing.assert_array_equal(values.numpy(), recorded.detach().numpy())
        assert recorded.requires_grad and not values.requires_grad


def test_infinity_stays_in_its_own_windows() -> None:
    x = np.zeros((1, 1, 7))
    x[0, 0, 0] = np.inf
    assert pool.adaptive_avg_pool1d(x, 3).numpy().tolist() == [[[np.inf, 0.0, 0.0]]]


@pytest.mark.parametrize("special", [np.nan, -np.inf, 0.0])
def test_ties_nan_and_infinity(special: float) -> None:
    torch = pytest.importorskip("torch")
    for x in (
        np.full((1, 1, 4, 4), special),
        np.where(np.arange(16).reshape(1, 1, 4, 4) == 5, special, X[:1, :1, :4, :4]),
    ):
        got = pool.max_pool2d(x, 2, 1, 1, return_indices=True)
        theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), 2, 1, 1, return_indices=True)
        np.testing.assert_array_equal(got[0].numpy(), theirs[0].numpy())
        if not np.isnan(special):  # of several NaN any may be named
            np.testing.assert_array_equal(got[1].numpy(), theirs[1].numpy())


def test_an_empty_batch_pools_to_nothing() -> None:
    for name, args in (("max_pool2d", (2,)), ("avg_pool2d", (2,)), ("adaptive_max_pool2d", (3,))):
        y, pull = vjp(lambda x: getattr(pool, name)(x, *args), as_tensor(X[:0]))
        assert y.shape[:2] == (0, 3)
        got = pull(y)
        assert (got[0] if isinstance(got, tuple) else got).shape == X[:0].shape


# ---- unpooling ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, out", [((2, 3, 6, 4), None), ((3, 7, 5), (7, 5))])
def test_unpool_is_the_inverse_on_maxima(shape: tuple, out: Any) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal(shape)
    y, index = pool.max_pool2d(x, 2, return_indices=True)
    back = pool.max_unpool2d(y, index, 2, output_size=out)
    functional = torch.nn.functional
    theirs = functional.max_unpool2d(
        *functional.max_pool2d(torch.from_numpy(x), 2, return_indices=True), 2, output_size=out
    )
    np.testing.assert_array_equal(back.numpy(), theirs.numpy())
    kept = back.numpy() != 0
    np.testing.assert_array_equal(back.numpy()[kept], x[kept])


def test_unpool_refuses_an_index_outside() -> None:
    y, index = pool.max_pool2d(X, 2, return_indices=True)
    with pytest.raises(IndexError):
        pool.max_unpool2d(y, as_tensor(index.numpy() + 1000), 2)
    with pytest.raises(ShapeError, match="max_unpool2d: output_size"):
        pool.max_unpool2d(y, index, 2, output_size=(9, 9))
    with pytest.raises(ShapeError, match="max_unpool2d: expected indices"):
        pool.max_unpool2d(y, index.numpy()[:1], 2)


# ---- refusals -----------------------------------------------------------------------------------------------------------
def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    return lambda: getattr(pool, name)(*args, **kwargs)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (_call("max_pool2d", X[0, 0], 2), ShapeError, r"max_pool2d: expected an input of 4 .* got shape \(7, 6\)"),
        (_call("max_pool2d", X, 9), ShapeError, r"max_pool2d: a window of \(9, 9\) does not fit"),
        (_call("max_pool2d", X, 3, padding=2), ShapeError, "at most half of kernel_size"),
        (_call("max_pool2d", X, 0), ValueError, "kernel_size must be"),
        (_call("max_pool2d", X, 2, 0), ValueError, "stride must be"),
        (_call("max_pool2d", X, 2, padding=-1), ValueError, "padding must be"),
        (_call("max_pool2d", X, 2, dilation=0), ValueError, "dilation must be"),
        (_call("avg_pool2d", X.astype(np.int64), 2), DTypeError, "float32 or float64, got int64"),
        (_call("avg_pool2d", X.astype(np.float16), 2), DTypeError, "float32 or float64, got float16"),
        (_call("avg_pool2d", X, (2, 2, 2)), ValueError, "kernel_size must be an int or 2 ints"),
        (_call("avg_pool2d", X, 2, divisor_override=0), ValueError, "must not be 0"),
        (_call("adaptive_avg_pool2d", X, 0), ValueError, "output_size must be"),
        (_call("adaptive_max_pool2d", X, (1, 2, 3)), ValueError, "output_size must be an int or 2 ints"),
        (_call("adaptive_avg_pool2d", X[0, 0], 2), ShapeError, "adaptive_avg_pool2d: expected an input of 4"),
        (_call("adaptive_avg_pool2d", X[..., :0], 2), ShapeError, "at least one pixel"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
