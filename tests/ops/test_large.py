"""Operations where they leave NumPy for kernels because arrays are large: broadcasting, choices, bounds, copies, products."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError
from funcnn.kernels.cpu.elementwise.launch import along
from funcnn.kernels.cpu.movement.launch import matrices

WIDE = (20, 64, 1024)
RNG = np.random.default_rng(0)
X = RNG.uniform(0.5, 2, WIDE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("shape", [(1024,), (64, 1), (64, 1024), (20, 1, 1), (20, 64, 1), (1, 1, 1), (20, 1, 1024)])
def test_arithmetic_of_unlike_shapes(name, shape, dtype):
    x, y = X.astype(dtype), RNG.uniform(0.5, 2, shape).astype(dtype)
    function, plain = getattr(fn, name), {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name)
    tensor = fn.tensor(y)
    np.testing.assert_array_equal(function(fn.tensor(x), tensor).numpy(), getattr(np, plain)(x, y))
    np.testing.assert_array_equal(function(tensor, fn.tensor(x)).numpy(), getattr(np, plain)(y, x))
    turned = x.transpose(2, 0, 1).copy().transpose(1, 2, 0)  # not contiguous
    np.testing.assert_array_equal(function(fn.from_numpy(turned), tensor).numpy(), getattr(np, plain)(x, y))


def test_which_vectors_lie_along_an_array():
    assert along((4, 5, 32), (5, 1)) == 32 and along((4, 5, 32), (32,)) == 1 and along((4, 5, 32), (5, 32)) == 1
    assert along((4, 5, 32), (4, 5, 1)) == 32 and along((4, 50), (4, 1)) == 50
    assert not along((4, 5, 32), (4, 1, 32))  # two vectors
    assert not along((4, 5, 3), (5, 1)) and not along((400, 3), (3,))  # runs too short to pay
    assert not along((4, 5), (7, 4, 5)) and not along((1, 32), (5, 1)) and not along((32,), (1,))


def test_where_with_masks_arrays_and_numbers():
    x, y = X.astype(np.float32), -X.astype(np.float32)
    mask = RNG.random(WIDE) < 0.5
    c, a, b = fn.tensor(mask), fn.tensor(x), fn.tensor(y)
    np.testing.assert_array_equal(fn.where(c, a, b).numpy(), np.where(mask, x, y))
    np.testing.assert_array_equal(fn.where(c, 1.0, b).numpy(), np.where(mask, np.float32(1), y))
    np.testing.assert_array_equal(fn.where(c, a, float("nan")).numpy(), np.where(mask, x, np.float32(np.nan)))
    np.testing.assert_array_equal(fn.where(c[:1], a, b).numpy(), np.where(mask[:1], x, y))
    np.testing.assert_array_equal(fn.where(c, a[0], b).numpy(), np.where(mask, x[0], y))


@pytest.mark.parametrize("low, high", [(-0.5, 0.5), (None, 0.25), (-0.25, None), (1.0, -1.0), (0, 1)])
def test_clamp_and_its_gradient_on_bounds_nan_and_infinities(low, high):
    torch = pytest.importorskip("torch")
    numbers = np.array([-np.inf, -1, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 1, np.inf, np.nan], np.float32)
    results = []
    for library in (fn, torch):
        x = library.tensor(numbers.copy()).requires_grad_()
        y = library.clamp(x, low, high)
        y.backward(library.full_like(y, 3.0))
        results.append((y.detach().numpy(), x.grad.numpy()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dims", [(1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_contiguous_copies_of_permuted_arrays(dims, dtype):
    x = (100 * RNG.random((24, 40, 56))).astype(dtype)
    tensor = fn.tensor(x).permute(dims)
    copy = tensor.contiguous()
    assert copy.is_contiguous() and not tensor.is_contiguous()
    np.testing.assert_array_equal(copy.numpy(), x.transpose(dims))
    np.testing.assert_array_equal(tensor[1:, ::2].clone().numpy(), x.transpose(dims)[1:, ::2])


def test_which_copies_turn_matrices():
    assert matrices((40, 24), (1, 40)) == (1, 24, 40)
    assert matrices((3, 40, 24), (960, 1, 40)) == (3, 24, 40)
    assert matrices((3, 4, 10, 24), (960, 10, 1, 40)) == (3, 24, 40)  # axes side by side are one
    assert matrices((8, 1, 9, 10), (1, 5, 80, 8)) == (1, 90, 8)
    assert matrices((40, 24), (1, 41)) is None  # gaps
    assert matrices((10, 20, 30), (1, 10, 200)) is None  # three blocks turned round
    assert matrices((40, 3), (1, 40)) == (1, 3, 40) and matrices((24, 40), (40, 1)) is None  # contiguous


def test_products_of_many_numbers_and_their_gradient():
    x = RNG.uniform(0.9, 1.1, (64, 100)).astype(np.float32)
    t = fn.tensor(x).requires_grad_()
    y = t.prod(1)
    np.testing.assert_allclose(y.detach().numpy(), x.astype(np.float64).prod(1), 1e-5)
    y.sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), x.astype(np.float64).prod(1, keepdims=True) / x, 1e-4)
    np.testing.assert_allclose(t.detach().cumprod(1).numpy(), x.astype(np.float64).cumprod(1), 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_square_is_a_power(dtype):
    x = RNG.standard_normal((300, 300)).astype(dtype)
    t = fn.tensor(x).requires_grad_()
    y = t**2
    assert "Pow" in repr(y.grad_fn)
    np.testing.assert_array_equal(y.detach().numpy(), x * x)
    y.sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), 2 * x, 1e-6)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("largest", [True, False])
def test_topk_of_many_numbers(dim, largest):
    x = np.random.default_rng(1).permutation(30 * 40 * 50).reshape(30, 40, 50).astype(np.float32)
    t = fn.tensor(x).requires_grad_()
    values, places = t.topk(3, dim, largest)
    order = np.argsort(-x if largest else x, dim).take(range(3), dim)
    np.testing.assert_array_equal(places.numpy(), order)
    np.testing.assert_array_equal(values.detach().numpy(), np.take_along_axis(x, order, dim))
    values.sum().backward()
    assert t.grad.sum() == values.numel() and (np.take_along_axis(t.grad.numpy(), order, dim) == 1).all()
    if dim:
        batched = fn.vmap(lambda row: row.topk(3, dim - 1, largest)[1])(t)
        np.testing.assert_array_equal(batched.numpy(), order)


def test_topk_takes_whole_numbers():
    with pytest.raises(DTypeError, match=r"topk: k must be an int, got 2\.5"):
        fn.topk(fn.ones(4), 2.5)
    assert fn.topk(fn.ones(4), fn.tensor(2)).indices.shape == (2,)
