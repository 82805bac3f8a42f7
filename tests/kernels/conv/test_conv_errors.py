"""What convolutions lose in float32, against the definition in float64, and the setting that trades it for speed."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from benchmarks import conv_errors
from funcnn.kernels.cpu.conv import winograd_transform as sandwich
from tests.plain import compiled_only

DIRECT = 3.3e-7, 2.8e-7, 2.8e-7  # the largest errors of PyTorch's direct kernels for 64, 256 and 512 channels
LIMITS = {"winograd": 1.65e-6, "gather": 8e-7, "direct": 8e-7, "pointwise": 1e-6, "few": 8e-7}
LIMITS |= {"depthwise": 3e-7, "channels": 3e-7, "reference": 1e-7}


@pytest.fixture
def highest():
    before = fn.get_float32_conv_precision()
    fn.set_float32_conv_precision("highest")
    yield
    fn.set_float32_conv_precision(before)


@compiled_only
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("channels, side, direct", [(64, 28, DIRECT[0]), (256, 14, DIRECT[1]), (512, 7, DIRECT[2])])
def test_3_x_3_errs_at_most_5_times_as_much_as_direct_kernels(channels, side, direct, seed, monkeypatch):
    arrays = conv_errors.arrays
    monkeypatch.setattr(conv_errors, "arrays", lambda shape: arrays(shape, seed))
    found = conv_errors.errors(((4, channels, side, side), channels, (3, 3), 1, 1, 1))
    assert {"winograd", "gather", "reference"} <= set(found)
    for way, errors in found.items():
        assert max(errors.values()) < 5 * direct, way


@compiled_only
@pytest.mark.parametrize(
    "shape",
    [
        ((16, 300, 6, 7), 20, (3, 3), 1, 1, 1),
        ((16, 512, 2, 2), 64, (3, 3), 1, 1, 1),
        ((2, 200, 9, 9), 256, (2, 2), 2, 0, 1),
        ((1, 1024, 9, 9), 3, (3, 3), 1, 1, 1),
        ((2, 2048, 7, 7), 64, (1, 1), 1, 0, 1),
        ((1, 96, 6, 10, 10), 96, (3, 3, 3), 1, 1, 1),
        ((1, 512, 300), 96, (9,), 1, 4, 1),
        ((4, 128, 14, 14), 128, (3, 3), 1, 1, 128),
        ((4, 128, 20, 20), 128, (7, 7), 2, 3, 128),
        ((1, 512, 4, 4), 512, (3, 3), 1, 1, 1),
    ],
    ids=str,
)
def test_no_implementation_errs_more_with_more_channels(shape):
    for way, errors in conv_errors.errors(shape).items():
        assert max(errors.values()) < LIMITS[way], way


def fractions(m: int) -> tuple[list, list, list]:
    """The matrices of ``sandwich.matrices``, without a rounding: its own code, to which fractions are given for numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sandwich.POINTS, m, tuple(map(Fraction, sandwich.POINTS[m])))
        return sandwich.matrices(m)


@pytest.mark.parametrize("m", sandwich.POINTS)
def test_winograds_matrices_are_exact(m):
    inputs, weights, outputs = fractions(m)
    rng = np.random.default_rng(m)
    d, w = ([Fraction(int(n)) for n in rng.integers(-9, 10, size)] for size in (m + 2, 3))
    times = lambda matrix, vector: [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]
    products = [a * b for a, b in zip(times(inputs, d), times(weights, w), strict=True)]
    assert times(outputs, products) == [sum(d[i + j] * w[j] for j in range(3)) for i in range(m)]


@pytest.mark.parametrize("m", sandwich.POINTS)
def test_only_the_quotients_of_winograds_matrices_are_rounded(m):
    for made, exact in zip(sandwich.matrices(m), fractions(m), strict=True):
        assert [[float(a) for a in line] for line in exact] == made
    inputs, _, outputs = sandwich.matrices(m)
    numbers = [a for matrix in (inputs, outputs) for line in matrix for a in line]
    assert [float(np.float32(a)) for a in numbers] == numbers


def test_the_precision_is_one_of_two():
    assert fn.get_float32_conv_precision() == "high"
    with pytest.raises(ValueError, match="set_float32_conv_precision: expected 'highest' or 'high', got 'medium'"):
        fn.set_float32_conv_precision("medium")
    assert fn.get_float32_conv_precision() == "high"


@compiled_only
def test_the_highest_precision_leaves_winograd_out_in_float32(highest):
    for dtype in (fn.float32, fn.float64):
        x, w = (fn.zeros(*size, dtype=dtype).requires_grad_() for size in ((2, 64, 28, 28), (64, 64, 3, 3)))
        y = F.conv2d(x, w, padding=1).sum()
        for call in (lambda x=x, w=w: F.conv2d(x, w, padding=1), y.backward):
            nowhere = pytest.raises(ValueError, match="applied nowhere inside")
            with nowhere if dtype == fn.float32 else nullcontext(), fn.prefer("winograd"):
                call()


@compiled_only
def test_a_gradient_is_as_precise_as_its_convolution(highest):
    x, w = fn.randn(2, 64, 16, 16), fn.randn(64, 64, 3, 3).requires_grad_()
    grads = []
    for forward, backward in (("highest", "high"), ("highest", "highest"), ("high", "highest"), ("high", "high")):
        fn.set_float32_conv_precision(forward)
        y = F.conv2d(x, w, padding=1)
        fn.set_float32_conv_precision(backward)
        (grad,) = fn.autograd.grad((y * y).sum(), w)
        grads.append(grad.numpy())
    assert np.array_equal(grads[0], grads[1])
    assert np.array_equal(grads[2], grads[3])
    assert not np.array_equal(grads[1], grads[3])


def test_compiled_functions_are_kept_by_the_precision_of_the_call(highest):
    x, w = fn.randn(2, 64, 16, 16), fn.randn(64, 64, 3, 3)
    step = fn.jit(fn.value_and_grad(lambda w: (F.conv2d(x, w, padding=1) ** 2).sum()))
    results = {}
    for precision in ("highest", "high", "highest", "high"):
        fn.set_float32_conv_precision(precision)
        value, grad = step(w)
        expected = fn.value_and_grad(lambda w: (F.conv2d(x, w, padding=1) ** 2).sum())(w)
        assert np.array_equal(grad.numpy(), expected[1].numpy()) and float(value) == float(expected[0])
        results[precision] = grad.numpy()
    assert step.traces == 2
    assert not np.array_equal(results["highest"], results["high"])
