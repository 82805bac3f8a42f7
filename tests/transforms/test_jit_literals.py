"""A compiled program holds the user's data and nothing else: zeros, ranges, masks and identities are made as it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn

N = 64
FEW = 4 * N  # elements; a program may keep so few
RNG = np.random.default_rng(0)
X = fn.tensor(RNG.normal(size=(N, N)).astype(np.float32))
PLACES = fn.tensor(RNG.integers(0, N, N))
DEEP = fn.tensor(RNG.normal(size=(2, 2, 16, 16)).astype(np.float32))


def kept(f: Any) -> list[np.ndarray]:
    """The constants of a compiled function's programs."""
    return [constant.array for steps in f.steps.values() for step in steps for constant in step.program.constants]


def _indexed(x: Any) -> Any:
    return x[PLACES].sum() + x.gather(0, PLACES[None]).sum() + F.embedding(PLACES, x).sum()


def _written(x: Any) -> Any:
    y = x * 2
    y[3:] = 0.0
    y[:, PLACES] = x
    return y.scatter(0, PLACES[None], x)


FUNCTIONS: dict[str, tuple[Callable, Any]] = {
    "slices": (lambda x: (x[: N // 2] ** 2).sum() + x[1:].exp().sum(), X),
    "indices": (_indexed, X),
    "written": (_written, X),
    "filled": (lambda x: x * fn.full((N, N), 2.0) + fn.zeros(N, N) - fn.ones_like(x) + fn.empty(N, N).fill_(0.5), X),
    "ranges": (lambda x: x * fn.arange(N * N).reshape(N, N) + fn.arange(0.0, 1.0, 1 / N / N)[: N * N].reshape(N, N), X),
    "identity": (lambda x: x @ fn.eye(N) + nn.init.eye_(fn.empty(N, N)), X),
    "triangles": (lambda x: fn.tril(x) + fn.triu(x, 1), X),
    "diagonals": (lambda x: fn.diag_embed(x).sum(0) + fn.diag(x[0], 1)[:N, :N], X),
    "products": (lambda x: fn.prod(x, 0), X),
    "extrema": (lambda x: x.max(0)[0] + x.sort(0)[0][0] + x.topk(2, 0)[0][0] + x.cumsum(0)[-1], X),
    "losses": (lambda x: F.cross_entropy(x, PLACES) + F.one_hot(PLACES, N).float().mul(x).sum(), X),
    "causal": (lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True), X),
    "padded": (lambda x: F.pad(x, (1, 1)) + F.pad(x[None], (1, 1), "reflect")[0], X),
    "pools": (lambda x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2), DEEP),
    "grids": (lambda x: F.grid_sample(x, F.affine_grid(fn.ones(2, 2, 3) * x.mean(), (2, 2, N, N))), DEEP),
}


def scalar(f: Callable) -> Callable:
    return lambda x: (f(x) ** 2).sum()


ORDERS: dict[str, Callable] = {
    "f": lambda f: f,
    "grad": lambda f: fn.grad(scalar(f)),
    "grad of grad": lambda f: fn.grad(lambda x: (fn.grad(scalar(f))(x) ** 2).sum()),
    "vmap": lambda f: lambda x: fn.vmap(f)(fn.stack([x, x])),
    "vmap of grad": lambda f: lambda x: fn.vmap(fn.grad(scalar(f)))(fn.stack([x, x])),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_array_is_kept_in_the_program(name: str, order: str) -> None:
    f, x = FUNCTIONS[name]
    whole = ORDERS[order](f)
    run = fn.jit(whole)
    np.testing.assert_allclose(run(x).numpy(), whole(x).numpy(), rtol=1e-4, atol=1e-4)
    assert [array.shape for array in kept(run) if array.size > FEW] == []


def test_what_is_kept_is_the_users_data_as_far_as_it_is_used() -> None:
    data = RNG.normal(size=(N, N)).astype(np.float32)

    def f(x: Any) -> Any:
        fn.zeros(500, 500)
        fn.tensor(data)
        return x + fn.tensor(data * 2)

    run = fn.jit(f)
    run(X)
    (array,) = kept(run)
    np.testing.assert_array_equal(array, data * 2)


def test_results_that_are_literals_are_fresh_at_each_call() -> None:
    def f() -> tuple:
        return (
            fn.zeros(3), fn.zeros(40, 40), fn.arange(5.0), fn.arange(3, -5, -3), fn.eye(2, 3, dtype=fn.int64), fn.eye(40),
            fn.full((2,), True), fn.ones(3, dtype=fn.uint8), fn.full((2, 0), 1.5), fn.full((), 7),
        )  # fmt: skip

    run = fn.jit(f)
    for _ in range(2):
        for got, expected in zip(run(), f(), strict=True):
            assert got.dtype == expected.dtype and got.shape == expected.shape
            np.testing.assert_array_equal(got.numpy(), expected.numpy())
            got.zero_()


def test_errors_name_the_function_while_tracing() -> None:
    with pytest.raises(OverflowError):
        fn.jit(lambda: fn.full((2,), 1000, dtype=fn.int8))()
    with pytest.raises(RuntimeError, match="device"):
        fn.jit(lambda: fn.zeros(2, device="cuda"))()
    with pytest.raises(ValueError, match="arange"):
        fn.jit(lambda: fn.arange(0, 5, -1))()


def test_literals_that_require_grad_inside_grad_and_vmap() -> None:
    assert fn.jit(lambda: fn.zeros(2, requires_grad=True) * 2)().requires_grad
    np.testing.assert_array_equal(
        fn.grad(lambda x: (fn.ones(3).mul(x) + fn.eye(3)[0]).sum())(X[0, :3]).numpy(), np.ones(3)
    )
    np.testing.assert_array_equal(fn.vmap(lambda x: x * 0 + fn.arange(3))(X[:2, :3]).numpy(), [[0, 1, 2], [0, 1, 2]])
