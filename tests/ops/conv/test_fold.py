"""unfold and fold against PyTorch over their options, what they refuse, and the layers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn

torch = pytest.importorskip("torch")
OPTIONS = list(product([1, 2, (3, 2)], [1, (1, 2)], [0, 1, (2, 3)], [1, 2, (3, 1)]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_options(dtype):
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6)).astype(dtype)
    for size, dilation, padding, stride in OPTIONS:
        mine, theirs = fn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        columns = F.unfold(mine, size, dilation, padding, stride)
        expected = torch.nn.functional.unfold(theirs, size, dilation, padding, stride)
        np.testing.assert_array_equal(columns.detach().numpy(), expected.detach().numpy())
        y = F.fold(columns**2, (7, 6), size, dilation, padding, stride)
        whole = torch.nn.functional.fold(expected**2, (7, 6), size, dilation, padding, stride)
        np.testing.assert_allclose(y.detach().numpy(), whole.detach().numpy(), 1e-5 if dtype == "float32" else 1e-13)
        (y**2).sum().backward()
        (whole**2).sum().backward()
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), tolerance, tolerance)


def test_large_images_and_none():
    x = np.random.default_rng(0).normal(size=(3, 2, 130, 90)).astype(np.float32)
    expected = torch.nn.functional.unfold(torch.tensor(x), 5, padding=2).numpy()
    np.testing.assert_array_equal(F.unfold(fn.tensor(x), 5, padding=2).numpy(), expected)
    assert F.unfold(fn.zeros(0, 2, 4, 4), 2).shape == (0, 8, 9) and F.fold(fn.zeros(0, 8, 9), 4, 2).shape == (
        0,
        2,
        4,
        4,
    )


X = fn.ones(1, 2, 4, 4)
ERRORS = {
    "rank": (RuntimeError, r"unfold: expected \(N, C, H, W\) or \(C, H, W\), got shape \(4, 4\)", lambda: F.unfold(X[0, 0], 2)),
    "large": (RuntimeError, r"unfold: kernel \(5, 5\) with dilation \(1, 1\) is larger than the input \(4, 4\)", lambda: F.unfold(X, 5)),
    "dtype": (TypeError, "unfold: expected float32 or float64, got int64", lambda: F.unfold(X.long(), 2)),
    "stride": (ValueError, "unfold: stride must be", lambda: F.unfold(X, 2, stride=0)),
    "padding": (ValueError, "unfold: padding must be", lambda: F.unfold(X, 2, padding=-1)),
    "fold rank": (RuntimeError, r"fold: expected \(N, C \* kh \* kw, L\)", lambda: F.fold(X, 4, 2)),
    "fold rows": (RuntimeError, r"fold: the kernel \(2, 2\) needs a multiple of 4 rows", lambda: F.fold(fn.ones(1, 6, 9), 4, 2)),
    "fold columns": (RuntimeError, r"fold: output_size \(4, 4\) has 3 x 3 windows of \(2, 2\), got 8", lambda: F.fold(fn.ones(1, 8, 8), 4, 2)),
    "fold none": (RuntimeError, r"fold: output_size \(1, 1\) has 0 x 0 windows", lambda: F.fold(fn.ones(1, 8, 0), 1, 2)),
    "fold size": (ValueError, "fold: output_size must be", lambda: F.fold(fn.ones(1, 8, 9), (4, 4, 4), 2)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


LAYERS = [
    ("Unfold(2)", (2, 3, 5, 4)), ("Unfold((2, 3), padding=1, stride=(1, 2))", (2, 3, 5, 4)), ("Unfold(2, 2, 1, 1)", (3, 5, 4)),
    ("Fold((5, 4), 2)", (2, 12, 12)), ("Fold(4, (2, 2), stride=2)", (8, 4)), ("Fold(4, 2, 1, 1, (2, 2))", (1, 4, 9)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shape"), LAYERS)
def test_layers(text, shape):
    mine, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    pure = eval(f"L.{text}", {"L": L})
    assert repr(mine) == repr(theirs) == repr(pure) and not mine.state_dict()
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(mine(fn.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), 1e-13)
    np.testing.assert_array_equal(pure({}, {}, fn.tensor(x))[0].numpy(), mine(fn.tensor(x)).numpy())
