"""Softmax at special values and shapes, and activations at their kinks, where finite differences cannot look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops.elementwise import activation as a
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.softmax import softmax as s
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import grad

INF = np.inf
ROWS = [[1.0, 2.0, 3.0], [1e4, 0.0, -1e4], [-INF, 0.0, 1.0], [-INF, -INF, -INF], [INF, 1.0, 2.0], [np.nan, 1.0, 2.0]]
SMOOTH = ("gelu", "silu", "mish", "softplus", "logsigmoid", "tanhshrink", "softsign")
KINKED = (
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "relu6",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "hardshrink",
    "softshrink",
)
POINTS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0, 20.0, -20.0, 25.0, 60.0, -60.0, 1e3, -1e3]


# ---- softmax ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_special_values(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array(ROWS, dtype)
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(x), 1).numpy()
    got = getattr(s, name)(x, 1).numpy()
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, 1e-6, 1e-30)


def test_every_dimension_and_any_layout() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for dim in (-3, 0, 1, 2, -1):
        for view in (x, x.transpose(2, 0, 1), x[::-1, :, ::2]):
            expected = np.exp(view) / np.exp(view).sum(dim, keepdims=True)
            np.testing.assert_allclose(s.softmax(view, dim).numpy(), expected, 1e-12)


def test_dtype_scalars_and_empty_tensors() -> None:
    assert s.softmax(np.array([1, 2]), 0, np.float64).dtype == np.float64
    assert s.softmax(np.float32(3), 0).numpy() == 1 and s.log_softmax(np.float32(3), -1).numpy() == 0
    for shape in ((0, 3), (3, 0)):
        assert s.softmax(np.zeros(shape), 1).shape == shape


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: s.softmax(np.zeros((2, 3)), 2), IndexError, "softmax: dimension 2 is out of range"),
        (lambda: s.log_softmax(np.zeros(3, np.int64), 0), DTypeError, "log_softmax: expected float32 or float64"),
        (lambda: s.softmax(np.zeros(3, np.float16), 0), DTypeError, "got float16"),
        (lambda: a.gelu(np.zeros(2), "erf"), ValueError, "gelu: approximate must be"),
        (lambda: a.hardtanh(np.zeros(2), 1.0, -1.0), ValueError, "hardtanh: expected min_val <= max_val"),
        (lambda: a.softshrink(np.zeros(2), -1.0), ValueError, "softshrink: lambd must not be negative"),
        (lambda: a.prelu(np.zeros((2, 3)), np.ones(2)), ShapeError, "prelu: 2 weights"),
        (lambda: a.glu(np.zeros((2, 3))), ShapeError, "glu: expected an even size"),
        (lambda: a.glu(np.zeros((2, 4)), 2), IndexError, "glu: dimension 2"),
        (lambda: a.dropout(np.zeros(2), 1.5), ValueError, "dropout: p must be between 0 and 1, got 1.5"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# ---- activations --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SMOOTH + KINKED)
def test_slopes_at_kinks_and_far_out(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array(POINTS)
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    theirs = getattr(torch.nn.functional, name)(leaf)
    theirs.sum().backward()
    f = getattr(a, name)
    np.testing.assert_allclose(f(x).numpy(), theirs.detach().numpy(), 1e-12, 1e-15)
    rtol = 1e-7 if name == "hardsigmoid" else 1e-12  # torch keeps its 1 / 6 in float32
    np.testing.assert_allclose(grad(lambda x: sum_(f(x)))(as_tensor(x)).numpy(), leaf.grad.numpy(), rtol, 1e-15)


@pytest.mark.parametrize("name, curvature", [("softplus", 0.25), ("logsigmoid", -0.25), ("silu", 0.5), ("mish", 0.64)])
def test_curvature_at_zero(name: str, curvature: float) -> None:
    """log(1 + exp(-|x|)) + max(x, 0), say, has the right value and slope there but no curvature."""
    f = getattr(a, name)
    slope = grad(lambda x: sum_(f(x)))
    np.testing.assert_allclose(grad(lambda x: sum_(slope(x)))(as_tensor(np.zeros(1))).numpy(), [curvature], 1e-12)


@pytest.mark.parametrize("name", SMOOTH + KINKED)
def test_nan_passes_through(name: str) -> None:
    assert np.isnan(getattr(a, name)(np.array([np.nan, 1.0])).numpy()).tolist() == [True, False]


def test_threshold_passes_nan() -> None:
    np.testing.assert_array_equal(a.threshold(np.array([np.nan, 0.5, 1.0]), 0.5, 2.0).numpy(), [np.nan, 2.0, 1.0])


def test_dropout() -> None:
    from funcnn.ops.random.keys import key

    x = np.ones(100_000, np.float32)
    y = a.dropout(x, 0.25, key=key(1)).numpy()
    assert y.dtype == np.float32 and abs((y == 0).mean() - 0.25) < 0.01 and abs(y.mean() - 1) < 0.01
    assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / 0.75))}
    np.testing.assert_array_equal(a.dropout(x, 0.25, key=key(1)).numpy(), y)
    assert not a.dropout(x, 1.0).numpy().any()
    np.testing.assert_array_equal(a.dropout(x, 0.25, training=False).numpy(), x)
    slope = grad(lambda t: sum_(a.dropout(t, 0.25, key=key(1))))(as_tensor(x)).numpy()
    np.testing.assert_array_equal(slope, y)
