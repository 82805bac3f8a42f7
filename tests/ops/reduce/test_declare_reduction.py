"""One more reduction is one declaration: value, derivative, method, flops, jit, vmap and profile, in every layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.launch import blocked_sum, by_kernel
from funcnn.kernels.cpu.reduce.runs import reduction as reduction_kernel
from funcnn.kernels.implementation import operand_of
from funcnn.ops.base import registry
from funcnn.ops.base.structure import repeat_over
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.reduce.declare import FLOAT, reduction
from tests.helpers import all_primitives

SHAPE = (6, 5, 4, 7, 3, 2)
AXES = ((0,), (5,), (2, 3), (0, 5), (1, 3, 5), (0, 2, 4), (0, 1, 2, 3, 4, 5), (), (0, 1, 3))


@pytest.fixture
def squared_sum() -> Iterator[Any]:
    yield reduction(
        "squared_sum",
        functions.squares,
        lambda g, x, o, axes: mul(mul(x, 2.0), repeat_over(g, x._v.shape, axes)),
        "The sum of squares over ``dim``.",
        keeps="i",
        takes=FLOAT,
        numpy=lambda x, axes, out: blocked_sum(np.square(x), axes, out),
        flops=2,
    )
    del Tensor.squared_sum  # type: ignore[attr-defined]
    del registry.OPERATIONS["squared_sum"]


def test_one_declaration_is_all(squared_sum: Any) -> None:
    array = np.random.default_rng(0).standard_normal((3, 4, 2))
    x, expected = fn.tensor(array), (array**2).sum(1)
    np.testing.assert_allclose(squared_sum(x, 1).numpy(), expected)
    np.testing.assert_allclose(x.squared_sum(1, keepdim=True).numpy(), expected[:, None])  # type: ignore[attr-defined]
    np.testing.assert_allclose(squared_sum(x, ()).numpy(), (array**2).sum())
    np.testing.assert_allclose(fn.jit(lambda t: squared_sum(t, -2))(x).numpy(), expected)
    np.testing.assert_allclose(fn.vmap(lambda t: squared_sum(t, 0))(x).numpy(), expected)
    np.testing.assert_allclose(fn.grad(lambda t: squared_sum(t, 1).sum())(x).numpy(), 2 * array)
    twice = fn.grad(lambda t: fn.grad(lambda s: (squared_sum(s, 1) ** 2).sum())(t).sum())
    np.testing.assert_allclose(twice(x).numpy(), 4 * expected[:, None] + 8 * array * array.sum(1, keepdims=True))
    with fn.profiler.profile() as prof:
        squared_sum(x, 1)
    (event,) = [e for e in prof.events if e.kind == "operation" and e.name == "squared_sum"]
    assert event.flops == 2 * 24
    assert squared_sum.primitive.scalar == functions.squares.scalar
    with pytest.raises(fn.DTypeError, match="squared_sum"):
        squared_sum(fn.tensor([1, 2]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_kernel_reduces_every_layout(squared_sum: Any, dtype: str) -> None:
    array = np.random.default_rng(1).standard_normal(SHAPE).astype(dtype)
    exact = array.astype("float64") ** 2
    for order in ((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (1, 2, 0, 4, 3, 5)):
        x, values = fn.from_numpy(array).permute(*order), exact.transpose(order)
        for axes in AXES:
            with fn.prefer("kernel"):
                got = squared_sum.primitive(x, axes=axes).numpy()
            assert got.dtype == dtype
            np.testing.assert_allclose(got, values.sum(axes), 2e-6 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "amax", "amin", "any", "all", "count_nonzero", "norm"])
def test_every_declared_reduction_is_the_same_by_its_kernel(name: str, axes: tuple) -> None:
    (prim,) = [p for p in all_primitives() if p.name == name and p.scalar is not None]
    array = np.random.default_rng(2).integers(-1, 2, SHAPE).astype("float64")
    array[0, 0, 0, 0] = np.nan
    array[1] = 1.5
    x = fn.from_numpy(array)
    with fn.prefer("numpy"):
        expected = prim(x, axes=axes)
    with fn.prefer("kernel"):
        got = prim(x, axes=axes)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-13)


def test_axes_that_alternate_need_a_kernel_for_partial_results() -> None:
    """``value`` of a result is not that of an element: without a word on how to go on, NumPy reduces such axes."""
    bare = reduction_kernel("bare", 0.0, functions.plus, functions.square, functions.whole)
    x = operand_of(np.ones(SHAPE))
    assert by_kernel(bare).plan((x,), {"axes": (1, 3, 5)}) is None
    assert by_kernel(bare).plan((x,), {"axes": (1, 2)}) is not None
