"""The nuclear norm: values, first and second derivatives beside PyTorch's, transformations, errors."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops.matmul.svd import svd_p

torch = pytest.importorskip("torch")
SHAPES = [(4, 4), (3, 5), (5, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_derivatives_are_those_of_pytorch(shape: tuple, dtype: str) -> None:
    a = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    t = torch.tensor(a, requires_grad=True)
    value = torch.norm(t, "nuc")
    (g,) = torch.autograd.grad(value, t, create_graph=True)
    (second,) = torch.autograd.grad((g**3).sum(), t)
    x, near = fn.tensor(a), {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    ours, slope = fn.value_and_grad(lambda x: fn.norm(x, "nuc"))(x)
    twice = fn.grad(lambda x: (fn.grad(lambda y: fn.norm(y, "nuc"))(x) ** 3).sum())(x)
    assert ours.dtype == np.dtype(dtype)
    for theirs, mine in ((value, ours), (g, slope), (second, twice)):
        np.testing.assert_allclose(mine.numpy(), theirs.detach().numpy(), **near)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_derivative_of_the_factors(shape: tuple) -> None:
    a = np.random.default_rng(1).standard_normal(shape)

    def loss(m, u, s, vh):  # of what the signs of the factors do not change
        rising = m.tensor(np.arange(3.0))
        return ((u**2)[:, :3] * rising).sum() + (s**3).sum() + ((vh**2)[:3] * rising.reshape(3, 1)).sum()

    t = torch.tensor(a, requires_grad=True)
    (g,) = torch.autograd.grad(loss(torch, *torch.linalg.svd(t, full_matrices=False)), t)
    np.testing.assert_allclose(fn.grad(lambda x: loss(fn, *svd_p(x)))(fn.tensor(a)).numpy(), g.numpy(), rtol=1e-9)


@pytest.mark.parametrize("dim", [(0, 1), (-1, 0), (2, 1)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_dimensions_and_transformations(dim: tuple, keepdim: bool) -> None:
    a = np.random.default_rng(2).standard_normal((2, 3, 4))
    expected = torch.norm(torch.tensor(a), "nuc", dim, keepdim).numpy()
    x = fn.tensor(a)

    def f(x):
        return fn.norm(x, "nuc", dim, keepdim)

    np.testing.assert_allclose(f(x).numpy(), expected)
    np.testing.assert_allclose(fn.jit(f)(x).numpy(), expected)
    np.testing.assert_allclose(fn.vmap(f)(fn.stack([x, 2 * x]))[1].numpy(), 2 * expected)


def test_zeros_and_nothing() -> None:
    z = fn.zeros(2, 3, requires_grad=True)
    z.norm("nuc").backward()
    assert z.grad.tolist() == [[1, 0, 0], [0, 1, 0]]  # as PyTorch's, one of the subgradients
    assert fn.norm(fn.zeros(0, 3), "nuc").item() == 0


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"norm: p='nuc' takes matrices, so dim must be two dimensions, got \(0,\)"):
        fn.norm(fn.ones(3), "nuc")
    with pytest.raises(ShapeError, match="two dimensions"):
        fn.norm(fn.ones(2, 3, 4), "nuc")
    with pytest.raises(ShapeError, match="appears twice"):
        fn.norm(fn.ones(2, 3), "nuc", (1, -1))
    with pytest.raises(DTypeError, match="floating-point"):
        fn.norm(fn.ones(2, 3).long(), "nuc")
    with pytest.raises(ValueError, match="not finite"):
        fn.norm(fn.full((2, 2), float("nan")), "nuc")
    with pytest.raises(DTypeError, match="'fro' or 'nuc'"):
        fn.norm(fn.ones(2), "max")
