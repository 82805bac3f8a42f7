"""Normalization where the table of cases does not go: running statistics, large means, tiny counts, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops import norm
from funcnn.ops.creation import as_tensor
from funcnn.ops.elementwise import mul
from funcnn.ops.reduce import sum as sum_
from funcnn.transforms.grad import grad, vjp
from funcnn.transforms.jit import jit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3, 5))


def stats() -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance."""
    return RNG.standard_normal(3), RNG.uniform(0.5, 2.0, 3)


# ---- running statistics -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_running_statistics_follow(name: str, momentum: float) -> None:
    torch = pytest.importorskip("torch")
    held = stats()
    ours, theirs = [as_tensor(a.copy()) for a in held], [torch.from_numpy(a.copy()) for a in held]
    for x in (X, 2 * X + 1):
        got = getattr(norm, name)(x, *ours, None, None, True, momentum)
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x), *theirs, None, None, True, momentum)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-10, 1e-10)
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), 1e-12, 1e-12)
    got = getattr(norm, name)(X, *ours, None, None, False)
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(X), *theirs, None, None, False)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-12, 1e-12)


def test_jit_moves_the_running_statistics() -> None:
    held = stats()
    eager, traced = ([as_tensor(a.copy()) for a in held] for _ in range(2))
    step = jit(lambda x: norm.batch_norm(x, *traced, training=True))
    for scale in (1.0, 2.0):
        expected = norm.batch_norm(scale * X, *eager, training=True)
        np.testing.assert_allclose(step(as_tensor(scale * X)).numpy(), expected.numpy(), 1e-12, 1e-12)
    for one, two in zip(eager, traced, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), 1e-12, 1e-12)


def test_statistics_carry_no_history() -> None:
    mean, var = (as_tensor(a) for a in stats())
    x = as_tensor(X).requires_grad_()
    norm.batch_norm(x, mean, var, training=True)
    assert not mean.requires_grad and not var.requires_grad


def test_evaluation_moves_nothing() -> None:
    held = stats()
    mean, var = (as_tensor(a.copy()) for a in held)
    norm.batch_norm(X, mean, var)
    np.testing.assert_array_equal([mean.numpy(), var.numpy()], held)


# ---- the pure helper ------------------------------------------------------------------------------------------------------
def test_batch_norm_training_is_differentiable_in_its_statistics() -> None:
    torch = pytest.importorskip("torch")
    w = [RNG.standard_normal(s) for s in ((4, 3, 5), 3, 3)]

    def ours(x: Any) -> Any:
        parts = norm.batch_norm_training(x, None, None, 1e-5)
        return [sum_(mul(mul(part, part), as_tensor(k))) for part, k in zip(parts, w, strict=True)]

    leaf = torch.from_numpy(X.copy()).requires_grad_()
    y = torch.nn.functional.batch_norm(leaf, None, None, training=True)
    theirs = [y, leaf.mean((0, 2)), leaf.var((0, 2))]
    for i, (part, k) in enumerate(zip(theirs, w, strict=True)):
        (expected,) = torch.autograd.grad((part * part * torch.from_numpy(k)).sum(), leaf, retain_graph=True)
        got = grad(lambda x: ours(x)[i])(as_tensor(X))
        np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-9, 1e-9)


# ---- numbers ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_a_large_mean_costs_no_digits(offset: float) -> None:
    x = (RNG.standard_normal((64, 3, 8)) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((0, 2), keepdims=True)) / np.sqrt(exact.var((0, 2), keepdims=True) + 1e-5)
    got = norm.batch_norm(x, None, None, training=True).numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, 1e-5, 1e-6)


def test_constant_rows_normalise_to_zero_with_finite_gradients() -> None:
    y, pull = vjp(lambda x: norm.layer_norm(x, 4), as_tensor(np.full((2, 4), 3.0)))
    np.testing.assert_array_equal(y.numpy(), np.zeros((2, 4)))
    got = pull(as_tensor(RNG.standard_normal((2, 4))))
    assert np.isfinite((got[0] if isinstance(got, tuple) else got).numpy()).all()


def test_empty_batches() -> None:
    assert norm.layer_norm(X[:0], 5).shape == (0, 3, 5) and norm.group_norm(X[:0], 3).shape == (0, 3, 5)
    assert norm.rms_norm(X[:0], 5).shape == (0, 3, 5) and norm.instance_norm(X[:0]).shape == (0, 3, 5)


# ---- refusals -----------------------------------------------------------------------------------------------------------
F32 = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: norm.batch_norm(X[:1, :, :1], None, None, training=True), ShapeError, "more than 1 value per channel"),
        (lambda: norm.batch_norm(X, None, None), ValueError, "needs running_mean and running_var"),
        (lambda: norm.batch_norm(X[0, 0], None, None, training=True), ShapeError, "at least 2 dimensions"),
        (lambda: norm.batch_norm(X, np.ones(4), np.ones(4)), ShapeError, r"3 channels, got shape \(4,\)"),
        (
            lambda: norm.batch_norm(X, None, None, F32, F32, True),
            DTypeError,
            "batch_norm: expected operands of one dtype",
        ),
        (lambda: norm.batch_norm(X.astype(int), None, None, training=True), DTypeError, "got int64"),
        (lambda: norm.layer_norm(X, 4), ShapeError, r"normalized_shape \(4,\) does not match"),
        (lambda: norm.layer_norm(X, (3, 5), np.ones((5, 3))), ShapeError, r"shape \(3, 5\), got \(5, 3\)"),
        (lambda: norm.layer_norm(X, (5,), np.ones(5, np.float32)), DTypeError, "layer_norm: expected operands"),
        (lambda: norm.layer_norm(X.astype(np.float16), 5), DTypeError, "float32 or float64, got float16"),
        (lambda: norm.group_norm(X, 2), ShapeError, "3 channels are not divisible into 2 groups"),
        (lambda: norm.group_norm(X[:1, :, 0], 3), ShapeError, "group_norm: needs more than 1 value"),
        (lambda: norm.instance_norm(X[..., :1]), ShapeError, "instance_norm: needs more than 1 value"),
        (lambda: norm.rms_norm(X.astype(int), 5), DTypeError, "rms_norm: expected a floating-point"),
        (lambda: norm.rms_norm(X, 5, np.ones(4)), ShapeError, r"shape \(5,\), got \(4,\)"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
