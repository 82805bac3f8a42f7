"""Convolution where the table of cases does not go: batched weights of groups, padding="same", empty inputs, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops.conv import conv
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import grad, vjp
from funcnn.transforms.vmap import vmap

RNG = np.random.default_rng(0)


def draw(*shape: int, dtype: str = "float64") -> np.ndarray:
    """Random numbers."""
    return RNG.standard_normal(shape).astype(dtype)


X, W = draw(2, 4, 5, 5), draw(6, 2, 3, 3)


# ---- batching: a batch-major fold of grouped weights would mix examples ---------------------------------------------------
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_with_groups(groups: int, axes: tuple) -> None:
    x, w = draw(3, 2, 4, 5, 5), draw(3, 8, 4 // groups, 3, 3)
    x, w = (a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True))

    def both_gradients(x: Any, w: Any) -> tuple:
        y, pull = vjp(lambda x, w: conv.conv2d(x, w, padding=1, stride=2, groups=groups), x, w)
        return y, *pull(y)

    got = vmap(both_gradients, in_axes=axes)(as_tensor(x), as_tensor(w))
    for i in range(3):
        one = both_gradients(as_tensor(x[i] if axes[0] == 0 else x), as_tensor(w[i] if axes[1] == 0 else w))
        for whole, part in zip(got, one, strict=True):
            np.testing.assert_allclose(whole.numpy()[i], part.numpy(), 1e-11, 1e-11)


def test_nested_vmap_over_inputs_and_weights() -> None:
    x, w = draw(2, 1, 4, 5), draw(3, 4, 2, 3)
    f = lambda x, w: conv.conv1d(x, w, groups=2)
    got = vmap(lambda x: vmap(lambda w: f(x, w))(as_tensor(w)))(as_tensor(x)).numpy()
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(got[i, j], f(x[i], w[j]).numpy(), 1e-12, 1e-12)


# ---- meaning ------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Using padding")  # torch, of its own copy
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_same_padding(kernel: tuple, dilation: Any) -> None:
    torch = pytest.importorskip("torch")
    x, w = draw(2, 3, 9, 8), draw(4, 3, *kernel)
    got = conv.conv2d(x, w, padding="same", dilation=dilation)
    theirs = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding="same", dilation=dilation)
    assert got.shape == (2, 4, 9, 8)
    np.testing.assert_allclose(got.numpy(), theirs.numpy(), 1e-11, 1e-11)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "stride, padding, output_padding, dilation", [(1, 0, 0, 1), (3, 2, (1, 2), (1, 2)), (2, 1, 1, 3)]
)
def test_transposed(groups: int, stride: int, padding: int, output_padding: Any, dilation: Any) -> None:
    torch = pytest.importorskip("torch")
    x, w, b = draw(2, 4, 5, 4), draw(4, 3, 3, 2), draw(3 * groups)
    options = (stride, padding, output_padding, groups, dilation)
    theirs = torch.nn.functional.conv_transpose2d(*map(torch.from_numpy, (x, w, b)), *options)
    np.testing.assert_allclose(conv.conv_transpose2d(x, w, b, *options).numpy(), theirs.numpy(), 1e-11, 1e-11)


def test_valid_is_no_padding_and_no_batch_is_a_batch_of_one() -> None:
    whole = conv.conv2d(X, W, groups=2, padding="valid")
    np.testing.assert_array_equal(whole.numpy(), conv.conv2d(X, W, groups=2).numpy())
    np.testing.assert_allclose(conv.conv2d(X[0], W, groups=2).numpy(), whole.numpy()[0], 1e-12, 1e-12)


def test_an_empty_batch_gives_a_zero_weight_gradient() -> None:
    f = lambda w: sum_(conv.conv2d(draw(0, 4, 5, 5), w, groups=2))
    assert conv.conv2d(draw(0, 4, 5, 5), W, groups=2).shape == (0, 6, 3, 3)
    np.testing.assert_array_equal(grad(f)(as_tensor(W)).numpy(), np.zeros_like(W))


def test_no_input_channels_give_zeros() -> None:
    np.testing.assert_array_equal(conv.conv2d(draw(2, 0, 5, 5), draw(3, 0, 3, 3)).numpy(), np.zeros((2, 3, 3, 3)))


# ---- refusals -----------------------------------------------------------------------------------------------------------
def _conv2d(*args: Any, **kwargs: Any) -> Any:
    return lambda: conv.conv2d(*args, **kwargs)


def _transpose(*args: Any, **kwargs: Any) -> Any:
    return lambda: conv.conv_transpose2d(*args, **kwargs)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (_conv2d(draw(64, 1, 28, 28), draw(6, 3, 5, 5)), ShapeError,
         r"conv2d: weight of shape \(6, 3, 5, 5\) needs an input with 3 channels, got \(64, 1, 28, 28\)"),
        (_conv2d(X[0, 0], W), ShapeError, r"input of 4 dimensions .* got shape \(5, 5\)"),
        (_conv2d(X, W[0]), ShapeError, "weight of 4 dimensions"),
        (_conv2d(X, draw(6, 4, 0, 3)), ShapeError, "kernel of at least 1"),
        (_conv2d(X, draw(6, 4, 9, 3)), ShapeError, "larger than the input"),
        (_conv2d(X, draw(5, 2, 3, 3), groups=2), ShapeError, "5 output channels are not divisible by groups=2"),
        (_conv2d(X, W, groups=0), ValueError, "groups must be a positive int"),
        (_conv2d(X, W, np.zeros(5), groups=2), ShapeError, r"bias of shape \(6,\), got \(5,\)"),
        (_conv2d(X, W, np.zeros(6, np.float32), groups=2), DTypeError, "float64, float32"),
        (_conv2d(X, W.astype(np.float32), groups=2), DTypeError, "one dtype, got float64, float32"),
        (_conv2d(X.astype(np.int64), W.astype(np.int64), groups=2), DTypeError, "got int64"),
        (_conv2d(X.astype(np.float16), W.astype(np.float16), groups=2), DTypeError, "got float16"),
        (_conv2d(X, W, groups=2, stride=0), ValueError, "stride must be .* at least 1, got 0"),
        (_conv2d(X, W, groups=2, stride=1.5), ValueError, "stride must be .* got 1.5"),
        (_conv2d(X, W, groups=2, stride=(1, 1, 1)), ValueError, "2 ints"),
        (_conv2d(X, W, groups=2, dilation=0), ValueError, "dilation must be"),
        (_conv2d(X, W, groups=2, padding=-1), ValueError, "padding must be .* at least 0, got -1"),
        (_conv2d(X, W, groups=2, padding="full"), ValueError, "'same' or 'valid', got 'full'"),
        (_conv2d(X, W, groups=2, padding="same", stride=2), ValueError, "needs stride 1"),
        (_transpose(X, draw(3, 2, 1, 1)), ShapeError, "conv_transpose2d: weight .* input with 3 channels"),
        (_transpose(X, draw(4, 2, 3, 3), groups=3), ShapeError, "conv_transpose2d: 4 input channels"),
        (_transpose(X, draw(4, 2, 3, 3, dtype="float32")), DTypeError, "conv_transpose2d: expected operands of one"),
        (_transpose(X, draw(4, 2, 1, 1), padding=4), ShapeError, r"conv_transpose2d: padding .* output of \(-3, -3\)"),
        (_transpose(X, draw(4, 2, 3, 3), output_padding=1), ValueError, "smaller than stride"),
    ],
)  # fmt: skip
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
