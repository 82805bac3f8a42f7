"""Reductions and scans where the table of cases does not go: dtypes, no elements, NaN, ties, accuracy, layouts, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.evaluation import choose
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.watch import no_compile
from funcnn.kernels.implementation import operand_of
from funcnn.ops.base import structure
from funcnn.ops.reduce import extrema, moments, scan, vector_norm
from funcnn.ops.reduce import sums as r
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests.helpers import layouts

nan, inf = math.nan, math.inf
EMPTY = np.zeros((0, 3))
TIES = np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0], [0.0, -1.0, -1.0]])
NANS = np.array([[1.0, nan, 2.0], [nan, 0.0, nan], [3.0, -1.0, 5.0]])
REDUCTIONS = ("sum", "prod", "amax", "amin", "any", "all", "argmax", "argmin", "count_nonzero", "nansum", "median")
SCANS = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")


def arrays(result: Any) -> list[np.ndarray]:
    """The arrays in one tensor or in a tuple of them."""
    return [t._v for t in (result if isinstance(result, tuple) else (result,))]


def agree(got: Any, theirs: Any, what: str, rtol: float = 1e-12) -> None:
    """Assert that tensors have torch's values, shapes and dtypes."""
    theirs = [theirs] if hasattr(theirs, "dtype") else list(theirs)
    for one, two in zip(arrays(got), theirs, strict=True):
        assert f"torch.{one.dtype}" == str(two.dtype), f"{what}: {one.dtype}, torch gives {two.dtype}"
        np.testing.assert_allclose(one, two.detach().numpy(), rtol, rtol, err_msg=what)
        assert one.shape == tuple(two.shape), f"{what}: {one.shape}, torch gives {tuple(two.shape)}"


def ours(name: str) -> Callable:
    """The function of this name."""
    return getattr(fn, name)


def gradient(f: Callable, x: np.ndarray, g: Any = None) -> np.ndarray:
    """The gradient of ``f`` at ``x`` for the cotangent ``g``, by default ones."""
    out, pullback = vjp(f, as_tensor(x))
    return pullback(as_tensor(np.ones(out.shape, x.dtype) if g is None else np.asarray(g, x.dtype)))[0]._v


# ---- dtypes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("name", (*REDUCTIONS, *SCANS))
def test_dtypes_of_results(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if (dtype == "bool" and name in ("argmax", "argmin", "median")) or (name == SCANS[-1] and dtype[0] != "f"):
        return  # torch refuses these
    x = np.array([[3, 0, 1], [0, 2, 1]]).astype(dtype)
    dims = ((0,), (-1,)) if name in SCANS else ((), (0,), (-1,))
    for dim in dims:
        agree(ours(name)(as_tensor(x), *dim), getattr(torch, name)(torch.from_numpy(x), *dim), f"{name} {dim}", 1e-6)


def test_a_dtype_asked_for() -> None:
    x = as_tensor(np.array([200, 100], np.uint8))
    for f in (r.sum, r.mean, fn.prod, r.nansum, lambda x, dtype: scan.cumsum(x, 0, dtype=dtype)):
        assert f(x, dtype="float32").dtype == np.float32
    assert r.sum(x, dtype="uint8")._v == 300 - 256 and fn.norm(r.mean(x, dtype="float32"), dtype="float64")._v == 150.0


def test_half_precision_neither_saturates_nor_overflows() -> None:
    ones = as_tensor(np.ones((3000, 2), np.float16))
    assert r.sum(ones, 0)._v.tolist() == [3000.0, 3000.0] and r.sum(ones, 0).dtype == np.float16
    large = as_tensor(np.full((100, 2), 6e4, np.float16))
    assert r.mean(large).dtype == np.float16 and r.mean(large)._v == np.float16(6e4)
    assert [float(t._v) for t in moments.var_mean(large)] == [0.0, float(np.float16(6e4))]
    assert scan.cumsum(ones, 0)._v[-1].tolist() == [3000.0, 3000.0]
    assert fn.norm(as_tensor(np.full(4, 3e4, np.float16)))._v == np.float16(6e4)


# ---- accuracy -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [0, 1])
def test_long_float32_sums_are_accurate(axis: int) -> None:
    x = (np.random.default_rng(0).random((100_000, 3)) + 1000).astype(np.float32)
    x, dim = (x, axis) if axis == 0 else (x.reshape(2, 50_000, 3), axis)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(r.sum(as_tensor(x), dim)._v, exact.sum(dim), 2e-6)
    np.testing.assert_allclose(r.mean(as_tensor(x), dim)._v, exact.mean(dim), 2e-6)
    np.testing.assert_allclose(moments.var(as_tensor(x), dim)._v, exact.var(dim, ddof=1), 1e-3)
    np.testing.assert_allclose(scan.cumsum(as_tensor(x), dim)._v, exact.cumsum(dim), 1e-6)


def test_blocks_that_do_not_divide_the_length() -> None:
    for n in (512, 513, 767, 1025):
        x = np.arange(2 * n * 3, dtype=np.float32).reshape(2, n, 3) % 7
        for axes in (1, (0, 1), (1, 2), None):
            np.testing.assert_array_equal(r.sum(as_tensor(x), axes)._v, x.sum(axes), err_msg=f"{n} {axes}")


def test_the_mean_of_ones_is_one() -> None:
    assert all(r.mean(as_tensor(np.ones(n, np.float32)))._v == 1.0 for n in range(1, 200))


# ---- no elements, no dimensions -------------------------------------------------------------------------------------
def test_reductions_of_nothing() -> None:
    x = as_tensor(EMPTY)
    assert (r.sum(x)._v, fn.prod(x)._v, r.any(x)._v, r.all(x)._v, fn.logsumexp(x, (0, 1))._v) == (
        0,
        1,
        False,
        True,
        -inf,
    )
    assert np.isnan(r.mean(x)._v) and np.isnan(moments.var(x, 0)._v).all() and fn.norm(x, 3)._v == 0.0
    assert r.sum(x, 1).shape == fn.amax(x, 1).shape == fn.argmax(x, 1).shape == fn.max(x, 1).values.shape == (0,)
    for name in SCANS:
        assert arrays(ours(name)(x, 0))[0].shape == (0, 3)
        assert gradient(lambda x, f=ours(name): getattr(f(x, 0), "values", f(x, 0)), EMPTY).shape == (0, 3)
    for f in (r.sum, fn.prod, lambda x: fn.logsumexp(x, 0), r.mean, lambda x: fn.amax(x, 1)):
        assert gradient(f, EMPTY).shape == (0, 3)


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "argmax", "argmin"])
def test_extrema_of_nothing_are_refused(name: str) -> None:
    for dim in ((0,), ()):
        with pytest.raises(IndexError, match="there is no element"):
            ours(name)(as_tensor(EMPTY), *dim)
    with pytest.raises(IndexError, match="not defined for no elements"):
        fn.norm(as_tensor(EMPTY), -1)


def test_a_number_has_one_dimension() -> None:
    x = as_tensor(np.array(1.5))
    for name in (*REDUCTIONS, "max", "min", "mean", "logsumexp"):
        for dim in (0, -1):
            assert all(out.shape == () for out in arrays(ours(name)(x, dim))), name
        with pytest.raises(IndexError, match="dimension 1 is out of range for 0 dimensions"):
            ours(name)(x, 1)
    for name in SCANS:
        assert all(out.shape == () for out in arrays(ours(name)(x, 0)))
    assert np.isnan(moments.var(x)._v)


def test_no_dimensions_named_means_all_where_torch_says_so() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([[1.0, 2.0], [3.0, 0.0]])
    for name in ("sum", "mean", "nansum", "nanmean", "count_nonzero", "amax", "amin", "var", "std", "any", "all"):
        agree(ours(name)(as_tensor(x), ()), getattr(torch, name)(torch.from_numpy(x), ()), name)


# ---- NaN, infinities, ties ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("x", [NANS, TIES, np.array([[inf, 1.0, -inf], [-inf, 2.0, 3.0]])], ids=["nan", "ties", "inf"])
@pytest.mark.parametrize("name", (*REDUCTIONS, *SCANS, "max", "min", "nanmean", "mean", "std"))
def test_special_values(name: str, x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    for dim in (0, 1):
        got, theirs = ours(name)(as_tensor(x), dim), getattr(torch, name)(torch.from_numpy(x), dim)
        if name == "median":  # which of equal elements is named is left open
            got, theirs = got.values, theirs.values
        agree(got, theirs, f"{name} {dim}")
    if name not in SCANS:
        agree(ours(name)(as_tensor(x)), getattr(torch, name)(torch.from_numpy(x)), name)


def test_indices_of_the_median_lead_to_it() -> None:
    for x in (NANS, TIES):
        for dim in (0, 1):
            found = fn.median(as_tensor(x), dim, keepdim=True)
            np.testing.assert_array_equal(np.take_along_axis(x, found.indices._v, dim), found.values._v)


def test_logsumexp_of_infinities() -> None:
    x = as_tensor(np.array([[-inf, -inf], [-inf, 0.0], [inf, 1.0], [nan, 1.0]]))
    np.testing.assert_array_equal(fn.logsumexp(x, 1)._v, [-inf, 0.0, inf, nan])


@pytest.mark.parametrize("name", ["max", "min", "median", "amax", "amin"])
def test_ties_share_the_gradient_without_dim(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(TIES).requires_grad_()
    getattr(torch, name)(theirs).backward()
    np.testing.assert_allclose(gradient(ours(name), TIES), theirs.grad.numpy())


@pytest.mark.parametrize("name", ["max", "min", "cummax", "cummin"])
def test_ties_give_the_gradient_to_the_index(name: str) -> None:
    torch = pytest.importorskip("torch")
    for dim in (0, 1):
        theirs = torch.from_numpy(TIES).requires_grad_()
        out = getattr(torch, name)(theirs, dim).values
        g = np.arange(1.0, out.numel() + 1).reshape(tuple(out.shape))
        out.backward(torch.from_numpy(g))
        got = gradient(lambda x, d=dim: ours(name)(x, d).values, TIES, g)
        np.testing.assert_allclose(got, theirs.grad.numpy(), err_msg=f"{name} {dim}")


def test_the_gradient_of_an_extremum_that_is_nan_goes_to_the_nan() -> None:
    np.testing.assert_allclose(gradient(fn.max, NANS), np.isnan(NANS) / 3.0)
    np.testing.assert_allclose(gradient(fn.median, NANS), np.isnan(NANS) / 3.0)
    np.testing.assert_array_equal(gradient(lambda x: r.nansum(x, 1), NANS), ~np.isnan(NANS))


def test_roots_have_the_gradient_zero_at_zero() -> None:
    zeros = np.zeros((2, 3))
    for f in (
        fn.norm,
        moments.std,
        lambda x: moments.std(x, 1),
        *[lambda x, p=p: fn.norm(x, p, 1) for p in (0.5, 1.5, 3, inf, -1)],
    ):
        np.testing.assert_array_equal(gradient(f, zeros), zeros)
    x = np.array([3.0, 0.0, 4.0])
    np.testing.assert_allclose(gradient(fn.norm, x), x / 5.0)
    np.testing.assert_allclose(gradient(lambda x: fn.norm(x, 0.5), x)[1], 0.0)


def test_moments_without_freedom() -> None:
    x = as_tensor(np.array([1.0, 2.0]))
    assert moments.var(x, correction=2)._v == inf and np.isnan(moments.var(as_tensor(np.array([1.0])))._v)
    assert moments.var(x, False)._v == 0.25 == moments.var(x, 0, False)._v and moments.std(
        x, unbiased=True
    )._v == math.sqrt(0.5)


# ---- scans ----------------------------------------------------------------------------------------------------------
def test_logcumsumexp_far_from_zero() -> None:
    x = np.array([-1000.0, 1000.0, 999.0, -inf, 1001.0])
    np.testing.assert_allclose(scan.logcumsumexp(as_tensor(x), 0)._v, np.logaddexp.accumulate(x))
    g = gradient(lambda x: scan.logcumsumexp(x, 0), x)
    weights = np.exp(np.where(np.tri(5, dtype=bool), x[None, :] - np.logaddexp.accumulate(x)[:, None], -inf))
    np.testing.assert_allclose(g, weights.sum(0), 1e-12, 1e-300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape, dim", [((5, 1000), 1), ((1000, 7), 0), ((3, 50, 700), 1), ((5000,), 0), ((2, 5000), -1)]
)
def test_large_scans(shape: tuple, dim: int, dtype: str) -> None:
    x = (1 + 0.01 * np.random.default_rng(3).standard_normal(shape)).astype(dtype)
    g = np.random.default_rng(4).standard_normal(shape).astype(dtype)
    close = 1e-6 if dtype == "float32" else 1e-13
    exact = x.astype(np.float64)
    np.testing.assert_allclose(scan.cumsum(as_tensor(x), dim)._v, exact.cumsum(dim), close)
    np.testing.assert_allclose(scan.cumprod(as_tensor(x), dim)._v, exact.cumprod(dim), close)
    back = np.flip(np.flip(g.astype(np.float64), dim).cumsum(dim), dim)
    np.testing.assert_allclose(
        gradient(lambda t: scan.cumsum(t, dim), x, g), back, 1e-5 if dtype == "float32" else 1e-9, 1e-6
    )
    np.testing.assert_allclose(scan.cumsum(as_tensor(np.asfortranarray(x)), dim)._v, exact.cumsum(dim), close)
    x[(2,) * x.ndim if x.ndim > 1 and x.shape[0] > 2 else (1,) * x.ndim] = nan
    np.testing.assert_array_equal(np.isnan(scan.cumsum(as_tensor(x), dim)._v), np.isnan(x.cumsum(dim)))


def test_gradients_of_a_long_product_take_one_pass() -> None:
    x = np.random.default_rng(0).uniform(0.9, 1.1, 2000)
    x[[100, 1500]] = 0.0
    g = gradient(lambda x: scan.cumprod(x, 0), x)
    others = np.array([np.cumprod(np.where(np.arange(2000) == k, 1.0, x))[k:].sum() for k in (0, 50, 100, 101, 1500)])
    np.testing.assert_allclose(g[[0, 50, 100, 101, 1500]], others, 1e-10)


# ---- layouts, batching ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", (*REDUCTIONS, *SCANS))
def test_memory_layout_does_not_matter(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 6))
    for layout in layouts(x):
        for dim in (0, 1):
            got, expected = ours(name)(as_tensor(layout), dim), ours(name)(as_tensor(x.copy()), dim)
            for one, two in zip(arrays(got), arrays(expected), strict=True):
                np.testing.assert_allclose(one, two, 1e-13)


def test_vmap_over_no_examples() -> None:
    x = as_tensor(np.zeros((0, 3)))
    for f in (r.sum, fn.max, fn.median, lambda x: scan.cumprod(x, 0), lambda x: scan.cummax(x, 0).values):
        assert vmap(f)(x).shape[0] == 0


# ---- kernels --------------------------------------------------------------------------------------------------------
ROUTES = [
    ((50, 60), (0,)), ((50, 60), (1,)), ((50, 60), (0, 1)), ((8, 5, 9, 10), (0, 2, 3)), ((8, 5, 9, 10), (1, 3)),
    ((8, 5, 9, 10), (1, 2)), ((8, 5, 9, 10), (0, 2)), ((8, 1, 50, 10), (1, 2)), ((1000, 2, 3), (1,)), ((9, 4, 5, 6, 7), (0, 2, 4)),
    ((6, 5, 4, 5, 6, 5), (1, 3, 5)), ((1, 6, 5, 4, 5, 6), (0, 2, 4)), ((3000,), ()),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape, axes", ROUTES)
def test_large_reductions_in_every_layout(shape: tuple, axes: tuple, dtype: str) -> None:
    x = (np.random.default_rng(3).standard_normal(shape) + 2).astype(dtype)
    exact = x.astype(np.float64)
    close = 1e-6 if dtype == "float32" else 1e-13
    permuted = np.asfortranarray(x)
    swapped = x.swapaxes(0, -1).copy().swapaxes(0, -1)
    wide = np.repeat(x, 2, -1)[..., ::2]
    for one in (x, permuted, swapped, wide):
        t = as_tensor(one)
        for prim, wanted in (
            (structure.sum_p, exact.sum(axes)),
            (extrema.amax.primitive, x.max(axes)),
            (extrema.amin.primitive, x.min(axes)),
        ):
            got = prim(t, axes=axes)._v
            assert got.dtype == dtype
            np.testing.assert_allclose(got, wanted, close)
        np.testing.assert_allclose(
            vector_norm.length.primitive(t, axes=axes)._v, np.sqrt(np.square(exact).sum(axes)), close
        )
        variance, mean = moments.moments_p(t, axes=axes, freedom=9)
        np.testing.assert_allclose(mean._v, exact.mean(axes), close)
        np.testing.assert_allclose(variance._v, exact.var(axes) * (x.size // mean._v.size) / 9, close)


def test_kernels_reduce_axes_that_alternate_with_others() -> None:
    """One group of neighbours after another; a copy of the array with its axes in another order took seven times as long."""
    x = operand_of(np.ones((6, 5, 4, 5, 7, 5), np.float32))
    for axes in ((1, 3, 5), (0, 2, 4), (1, 4), (0, 1, 3)):
        declared = (r.mean, vector_norm.length, scan.prod, extrema.amax)
        for prim in (structure.sum_p, extrema.min_p, *(function.primitive for function in declared)):
            name, _ = choose(prim, (x,), {"axes": axes}, None)
            assert name.startswith("kernel"), (prim.name, axes)


def test_read_only_arrays_compile_nothing_new() -> None:
    x = np.random.default_rng(0).random((64, 128))
    fixed = x.copy()
    fixed.flags.writeable = False
    functions = (r.sum, fn.amax, fn.norm, moments.var, lambda t: scan.cumsum(t, 1))
    expected = [f(as_tensor(x))._v for f in functions]
    with no_compile():
        for f, wanted in zip(functions, expected, strict=True):
            np.testing.assert_array_equal(f(as_tensor(fixed))._v, wanted)


def test_a_large_expanded_number_adds_up() -> None:
    x = np.broadcast_to(np.float32(0.5), (100, 300))
    assert r.sum(as_tensor(x))._v == 15_000.0 and fn.amax(as_tensor(x))._v == 0.5
    assert (r.sum(as_tensor(x), 0)._v == 50.0).all() and moments.var(as_tensor(x))._v == 0.0


@pytest.mark.parametrize(
    "shape, axes", [((80, 900), (0,)), ((900, 80), (1,)), ((4, 50, 20, 20), (0, 2, 3)), ((70_000,), (0,))]
)
def test_the_gradient_of_a_large_sum_is_written_out(shape: tuple, axes: tuple) -> None:
    x = as_tensor(np.zeros(shape, np.float32)).requires_grad_()
    y = r.sum(x, axes)
    g = np.random.default_rng(0).random(y.shape).astype(np.float32)
    y.backward(as_tensor(g))
    assert x.grad is not None and x.grad._v.flags.c_contiguous
    np.testing.assert_array_equal(x.grad._v, np.broadcast_to(np.expand_dims(g, axes), shape))


@pytest.mark.parametrize("shape, axes", ROUTES[:-1])
def test_large_extrema_share_their_gradient(shape: tuple, axes: tuple) -> None:
    x = np.random.default_rng(8).integers(0, 9, shape).astype(np.float64)
    x[(0,) * x.ndim] = nan
    top = x.max(axes, keepdims=True)
    tells = (x == top) | np.isnan(x)
    g = np.random.default_rng(9).random(fn.amax(as_tensor(x), axes).shape)
    wanted = tells / tells.sum(axes, keepdims=True) * np.expand_dims(g, axes)
    wanted = np.where(np.isnan(top), nan, wanted)  # as in PyTorch, where no element equals NaN
    np.testing.assert_allclose(gradient(lambda t: fn.amax(t, axes), x, g), wanted)
    np.testing.assert_allclose(gradient(lambda t: fn.amin(t, axes), -x, g), wanted)
    assert fn.amin(as_tensor(x), axes)._v.dtype == np.float64


@pytest.mark.parametrize("n", [300, 30_000])
def test_moments_of_a_large_mean_are_torchs(n: int) -> None:
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(4).standard_normal((2, n)) + 3e4).astype(np.float32)
    exact = x.astype(np.float64)
    for dim, axis in ((1, 1), (None, None)):
        got = moments.var_mean(as_tensor(x), dim)
        for one, theirs, wanted in zip(
            got, torch.var_mean(torch.from_numpy(x), dim), (exact.var(axis, ddof=1), exact.mean(axis)), strict=True
        ):
            ours_off, theirs_off = np.abs(one._v / wanted - 1).max(), np.abs(theirs.numpy() / wanted - 1).max()
            assert ours_off <= max(theirs_off, 6e-8)


def test_large_moments_differentiate_twice() -> None:
    x = np.random.default_rng(5).standard_normal((40, 60))
    g = gradient(lambda t: moments.var(t, 1), x)
    np.testing.assert_allclose(g, 2 * (x - x.mean(1, keepdims=True)) / 59, 1e-12, 1e-15)
    v = np.random.default_rng(6).standard_normal(x.shape)
    twice = gradient(
        lambda t: (vjp(lambda u: moments.var(u, 1), t)[1](as_tensor(np.ones(40)))[0] * as_tensor(v)).sum(), x
    )
    np.testing.assert_allclose(twice, 2 * (v - v.mean(1, keepdims=True)) / 59, 1e-12, 1e-15)


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_integers_have_no_mean() -> None:
    x = as_tensor(np.arange(6).reshape(2, 3))
    for name in ("mean", "var", "norm", "nanmean", "std_mean"):
        with pytest.raises(DTypeError, match=r"expected a floating-point tensor, got int64; convert with \.float\(\)"):
            ours(name)(x)


def test_dimensions_that_do_not_fit() -> None:
    x: Tensor = as_tensor(np.ones((2, 3)))
    for name in ("sum", "mean", "prod", "var", "amax", "max", "argmin", "any", "logsumexp", "cumsum", "cummax"):
        with pytest.raises(IndexError, match="dimension 2 is out of range for 2 dimensions"):
            ours(name)(x, 2)
    with pytest.raises(ShapeError, match="sum: a dimension appears twice"):
        r.sum(x, (0, -2))
    with pytest.raises(DTypeError, match="dim must be an int"):
        fn.max(x, 0.5)
    with pytest.raises(DTypeError, match="norm: p must be a number, 'fro' or 'nuc', got 'max'"):
        fn.norm(x, "max")
    for shape in ((3,), (2, 3, 4)):
        with pytest.raises(ShapeError, match="trace: expected a matrix"):
            fn.trace(as_tensor(np.ones(shape)))
