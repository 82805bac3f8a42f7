"""Losses where the table of cases does not go: every option of cross-entropy, edges of probabilities, refusals."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.softmax import loss
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import grad
from funcnn.transforms.jit import jit

RNG = np.random.default_rng(0)
LOGITS, CLASSES = RNG.standard_normal((4, 5)), np.array([0, 3, 1, 4])
WEIGHT = RNG.uniform(0.5, 2.0, 5)


def against_torch(
    name: str, x: np.ndarray, *rest: np.ndarray, weight: Any = None, rtol: float = 1e-10, **options: Any
) -> None:
    """The value, and the gradient of its squares' sum in the first argument, agree with PyTorch's."""
    torch = pytest.importorskip("torch")
    ours, theirs = ({} if weight is None else {"weight": make(weight)} for make in (as_tensor, torch.from_numpy))
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    expected = getattr(torch.nn.functional, name)(leaf, *[torch.as_tensor(r) for r in rest], **theirs, **options)
    (expected * expected).sum().backward()

    def f(x: Any) -> Any:
        return getattr(loss, name)(x, *[as_tensor(r) for r in rest], **ours, **options)

    np.testing.assert_allclose(f(as_tensor(x)).numpy(), expected.detach().numpy(), 1e-11, 1e-12)
    got = grad(lambda x: sum_(mul(f(x), f(x))))(as_tensor(x))
    np.testing.assert_allclose(got.numpy(), leaf.grad.numpy(), rtol, 1e-12)


# ---- cross-entropy ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight, label_smoothing", list(product([None, WEIGHT], [0.0, 0.1])))
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 5, 3), (2, 5, 2, 3)])
def test_cross_entropy(shape: tuple, weight: Any, label_smoothing: float, reduction: str) -> None:
    x, spread = RNG.standard_normal(shape), RNG.uniform(0, 1, shape)
    target = np.array(RNG.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    options = {"weight": weight, "reduction": reduction}
    against_torch("cross_entropy", x, spread, label_smoothing=label_smoothing, **options)
    for ignore_index in (-100, 2):
        if target.size > 1:
            target.flat[0] = ignore_index
        against_torch("cross_entropy", x, target, label_smoothing=label_smoothing, ignore_index=ignore_index, **options)
        against_torch("nll_loss", x, target, ignore_index=ignore_index, **options)
        target.flat[0] = 1


def test_nothing_counted() -> None:
    ignored = np.full(4, -100)
    assert np.isnan(loss.cross_entropy(LOGITS, ignored).item()) and np.isnan(
        loss.cross_entropy(LOGITS[:0], ignored[:0]).item()
    )
    assert loss.cross_entropy(LOGITS, ignored, reduction="sum").item() == 0
    np.testing.assert_array_equal(
        grad(lambda x: loss.cross_entropy(x, ignored, reduction="sum"))(as_tensor(LOGITS)).numpy(), np.zeros((4, 5))
    )


def test_large_logits_overflow_nowhere() -> None:
    x = np.array([[1e4, 0.0, -1e4]], np.float32)
    assert [loss.cross_entropy(x, np.array([i])).item() for i in range(3)] == [0.0, 1e4, 2e4]


def test_a_bad_class_is_found_at_every_run_under_jit() -> None:
    for options in ({}, {"label_smoothing": 0.1}):
        step = jit(lambda x, t: loss.cross_entropy(x, t, **options))
        step(as_tensor(LOGITS), as_tensor(CLASSES))
        with pytest.raises(IndexError, match="target 5 is out of range for 5 classes"):
            step(as_tensor(LOGITS), as_tensor(CLASSES + 1))


# ---- regression ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_slopes_at_kinks(name: str) -> None:
    against_torch(name, np.array([0.0, 1.0, -1.0, 2.0, 0.5]), np.zeros(5), reduction="sum")


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_broadcasting_warns_where_it_was_called(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name}: target of shape \(4, 1\) is broadcast") as caught:
        assert getattr(loss, name)(LOGITS, np.zeros((4, 1))).shape == ()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(loss, name)(LOGITS, LOGITS)


@pytest.mark.filterwarnings("ignore:size_average and reduce")  # torch's own
def test_older_names_of_reductions() -> None:
    for name, target in (("mse_loss", LOGITS * 2), ("smooth_l1_loss", LOGITS * 2), ("cross_entropy", CLASSES)):
        for size_average, reduce in product([None, False, True], [None, False, True]):
            against_torch(name, LOGITS, target, size_average=size_average, reduce=reduce)


# ---- binary and divergence ----------------------------------------------------------------------------------------------
P, T = np.array([0.0, 0.0, 1.0, 1.0, 0.3, 1e-9]), np.array([0.0, 1.0, 0.0, 1.0, 0.7, 0.5])


def test_certain_probabilities() -> None:
    for options in ({"reduction": "none"}, {"weight": np.arange(6.0)}):
        against_torch("binary_cross_entropy", P, T, rtol=1e-8, **options)  # torch keeps its 1e-12 in float32


def test_logits_at_zero_and_far_out() -> None:
    against_torch("binary_cross_entropy_with_logits", np.array([0.0, -0.0, 0.0, 1e3, -1e3, 2.0]), T, reduction="none")


def test_curvature_at_logit_zero() -> None:
    slope = grad(lambda x: loss.binary_cross_entropy_with_logits(x, np.ones(1)))
    np.testing.assert_allclose(grad(lambda x: sum_(slope(x)))(as_tensor(np.zeros(1))).numpy(), [0.25], 1e-12)


def test_kl_div_of_certain_targets() -> None:
    against_torch("kl_div", np.log([[0.2, 0.3, 0.5]]), np.array([[0.0, 1.0, 0.0]]), reduction="batchmean")
    against_torch("kl_div", np.log([0.2, 0.8]), np.log([0.5, 0.5]), log_target=True, reduction="sum")


# ---- refusals -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: loss.cross_entropy(LOGITS, CLASSES + 8),
            IndexError,
            "cross_entropy: target 8 is out of range for 5 classes",
        ),
        (lambda: loss.nll_loss(LOGITS, CLASSES - 1), IndexError, "nll_loss: target -1 is out of range"),
        (lambda: loss.cross_entropy(LOGITS, CLASSES[:3]), ShapeError, r"needs a target of shape \(4,\), got \(3,\)"),
        (lambda: loss.cross_entropy(LOGITS, LOGITS[:, :3]), ShapeError, "probabilities of shape"),
        (lambda: loss.cross_entropy(LOGITS, CLASSES > 1), DTypeError, "integer class indices, got bool"),
        (lambda: loss.cross_entropy(LOGITS.astype(int), CLASSES), DTypeError, "float64 logits, got int64"),
        (lambda: loss.cross_entropy(LOGITS.astype(np.float16), CLASSES), DTypeError, "got float16"),
        (lambda: loss.cross_entropy(LOGITS, CLASSES, reduction="avg"), ValueError, "reduction must be"),
        (lambda: loss.cross_entropy(LOGITS, CLASSES, label_smoothing=2.0), ValueError, "label_smoothing must be"),
        (lambda: loss.nll_loss(LOGITS, CLASSES, WEIGHT[:4]), ShapeError, r"each of 5 classes, got \(4,\)"),
        (lambda: loss.smooth_l1_loss(P, T, beta=-1.0), ValueError, "beta must not be negative"),
        (lambda: loss.huber_loss(P, T, delta=0.0), ValueError, "delta must be positive"),
        (lambda: loss.binary_cross_entropy(P + 1, T), ValueError, "probabilities from 0 to 1"),
        (lambda: loss.binary_cross_entropy(P, T[:2]), ShapeError, "must have one shape"),
        (lambda: loss.binary_cross_entropy_with_logits(P, T[:2]), ShapeError, "must have one shape"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
