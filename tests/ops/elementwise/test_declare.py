"""One more elementwise operation is one declaration: value, derivative, method, in-place form, flops, jit, vmap and profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise import comparison, functions, loops
from funcnn.ops.base import registry
from funcnn.ops.base.declare import unary
from funcnn.ops.elementwise.arithmetic import add, mul


@exact_function
def bump_scalar(x):
    """x + x^2."""
    return x + x * x


bump_kernel = loops.loop1("bump", bump_scalar)


@pytest.fixture
def bump() -> Iterator[Any]:
    yield unary(
        "bump",
        bump_kernel,
        lambda g, x, o: mul(g, add(mul(x, 2.0), 1.0)),
        "``x + x**2``.",
        numpy=False,
        ns=0.1,
        flops=2,
    )
    for name in ("bump", "bump_"):
        delattr(Tensor, name)
    del registry.OPERATIONS["bump"]


def test_one_declaration_is_all(bump: Any) -> None:
    array = np.random.default_rng(0).standard_normal((3, 4))
    x = fn.tensor(array)
    expected = array + array**2
    np.testing.assert_allclose(bump(x).numpy(), expected)
    np.testing.assert_allclose(x.bump().numpy(), expected)
    np.testing.assert_allclose(fn.jit(bump)(x).numpy(), expected)
    np.testing.assert_allclose(fn.vmap(bump)(x).numpy(), expected)
    np.testing.assert_allclose(fn.grad(lambda t: bump(t).sum())(x).numpy(), 1 + 2 * array)
    np.testing.assert_allclose(
        fn.grad(lambda t: fn.grad(lambda s: bump(s).sum())(t).sum())(x).numpy(), np.full((3, 4), 2.0)
    )
    with fn.profiler.profile() as prof:
        bump(x)
    (event,) = [e for e in prof.events if e.kind == "operation" and e.name == "bump"]
    assert event.flops == 2 * 12
    assert bump.primitive.scalar is bump_scalar
    y = x.clone()
    assert y.bump_() is y
    np.testing.assert_allclose(y.numpy(), expected)


def test_every_kernel_knows_its_scalar_function() -> None:
    made = [value for module in (functions, comparison) for value in vars(module).values() if hasattr(value, "scalar")]
    kernels = [kernel for kernel in made if kernel.scalar is not None]
    assert len(kernels) > 40
