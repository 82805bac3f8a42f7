"""Normalization where the table of cases does not go: running statistics, large means, tiny counts, refusals."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.layers.norm import GroupNorm, InstanceNorm2d
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.norm import norm
from funcnn.ops.norm.lrn import local_response_norm
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
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


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_gradients_with_a_large_mean_cost_no_digits(offset: float) -> None:
    x = (RNG.standard_normal((8, 4, 16)) + offset).astype(np.float32)
    dy = RNG.standard_normal(x.shape).astype(np.float32)

    def pulled(f: Any, x: Any, dy: Any) -> np.ndarray:
        got = vjp(f, as_tensor(x))[1](as_tensor(dy))
        return (got[0] if isinstance(got, tuple) else got).numpy()

    for f in (
        lambda x: norm.batch_norm(x, None, None, training=True), lambda x: norm.group_norm(x, 2),
        lambda x: norm.layer_norm(x, 16), lambda x: norm.instance_norm(x),
    ):  # fmt: skip
        wide = pulled(f, x.astype(np.float64), dy.astype(np.float64))
        np.testing.assert_allclose(pulled(f, x, dy), wide, 3e-5, 3e-5)


def test_huge_units_are_cut_into_blocks() -> None:
    x = (RNG.standard_normal((2, 2, 150_000)) + 100).astype(np.float32)
    exact = (x - x.mean((0, 2), dtype=np.float64, keepdims=True)) / x.astype(np.float64).std((0, 2), keepdims=True)
    np.testing.assert_allclose(norm.batch_norm(x, None, None, training=True).numpy(), exact, 1e-4, 1e-4)


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
        (lambda: local_response_norm(X[0], 2), ValueError, "local_response_norm: expected at least 3 dimensions"),
        (lambda: local_response_norm(X, 0), ValueError, "size must be positive, got 0"),
        (lambda: local_response_norm(X.astype(int), 2), DTypeError, "local_response_norm: expected float32 or float64"),
        (lambda: GroupNorm(2, 3), ValueError, "GroupNorm: 3 channels are not divisible into 2 groups"),
        (lambda: InstanceNorm2d(3)({}, {}, as_tensor(X[0])), ShapeError, "InstanceNorm2d: expected 3-d or 4-d input"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (0, 3, 2, 2), (2, 3, 0, 2), (0, 3, 1, 2, 2)])
@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"bias": False}]
)
def test_batch_norm_of_nothing(shape, options):
    """Accepted in training, counts as a batch, and moves no statistics: as PyTorch; recorded, compiled and pure."""
    torch = pytest.importorskip("torch")
    if "bias" in options and "bias" not in inspect.signature(torch.nn.BatchNorm1d).parameters:
        return
    name = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[len(shape)]
    results = []
    for T in (fn, torch):
        m = getattr(T.nn, name)(3, **options)
        x = T.zeros(*shape).requires_grad_()
        y = (fn.jit(m) if T is fn else m)(x)
        y.sum().backward()
        results.append(
            (
                tuple(y.shape),
                tuple(x.grad.shape),
                [p.grad.tolist() for p in m.parameters()],
                [b.tolist() for b in m.buffers()],
            )
        )
    assert results[0] == results[1]
    pure, params, state = fn.nn.pure(getattr(fn.nn, name)(3, **options))
    (_, after), _ = fn.vjp(lambda p: pure(p, state, fn.zeros(*shape), training=True), params)
    assert [int(t) for path, t in fn.tree.paths(after) if "num" in path] == [1] * ("track_running_stats" not in options)


@pytest.mark.parametrize("eps", [0.0, -1e-5])
def test_eps_of_batch_norm_is_positive_in_training(eps):
    x = fn.ones(4, 3)
    layer = fn.nn.BatchNorm1d(3, eps=eps)
    with pytest.raises(ValueError, match=f"batch_norm: eps must be positive in training, got {eps}"):
        layer(x)
    assert layer.eval()(x).shape == (4, 3) if eps == 0 else True
    with pytest.raises(ValueError, match="batch_norm: eps must"):
        fn.nn.functional.batch_norm(x, fn.zeros(3), fn.ones(3), training=eps == 0, eps=eps)
    fn.nn.functional.layer_norm(x, (3,), eps=eps)
    fn.nn.functional.group_norm(x[:, :, None], 1, eps=eps)
