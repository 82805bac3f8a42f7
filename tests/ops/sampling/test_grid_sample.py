"""Grid sampling against PyTorch over its options, higher derivatives, and what it refuses."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.ops.sampling.grid_sample import _composed

torch = pytest.importorskip("torch")
SHAPES = [((2, 3, 5, 7), (2, 9, 17, 2)), ((1, 2, 1, 4), (1, 3, 5, 2)), ((2, 3, 4, 5, 3), (2, 4, 3, 6, 3))]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_options(mode, padding, align, dtype, tolerance):
    rng = np.random.default_rng(0)
    for (shape, places), scale in product(SHAPES, (0.9, 1.3, 4.0)):
        if mode == "bicubic" and len(shape) == 5:
            continue
        arrays = rng.normal(size=shape).astype(dtype), (rng.uniform(-1, 1, places) * scale).astype(dtype)
        mine = [fn.tensor(a, requires_grad=True) for a in arrays]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        y = F.grid_sample(*mine, mode, padding, align)
        expected = torch.nn.functional.grid_sample(*theirs, mode, padding, align)
        dy = rng.normal(size=tuple(expected.shape)).astype(dtype)
        y.backward(fn.tensor(dy))
        expected.backward(torch.tensor(dy))
        pairs = (y.detach(), expected.detach()), *((a.grad, b.grad) for a, b in zip(mine, theirs, strict=True))
        for (got, wanted), loose in zip(pairs, (1, 3, 30), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), tolerance, tolerance * loose)


@pytest.mark.parametrize(("taps", "padding", "align"), list(product((2, 4), (0, 1, 2), (False, True))))
def test_the_composition_is_the_kernel(taps, padding, align):
    """Values and gradients of what higher derivatives are taken of."""
    rng = np.random.default_rng(0)
    x, grid = fn.tensor(rng.normal(size=(2, 3, 4, 5))), fn.tensor(rng.uniform(-1.5, 1.5, (2, 3, 4, 2)))
    mode, pad = {2: "bilinear", 4: "bicubic"}[taps], ("zeros", "border", "reflection")[padding]
    weight = fn.tensor(rng.normal(size=(2, 3, 3, 4)))
    found = []
    for f in (lambda x, g: _composed(x, g, taps, padding, align), lambda x, g: F.grid_sample(x, g, mode, pad, align)):
        y, gradients = fn.value_and_grad(lambda x, g, f=f: (f(x, g) * weight).sum(), argnums=(0, 1))(x, grid)
        found.append([np.asarray(y.numpy()), *(g.numpy() for g in gradients)])
    for composed, kernel in zip(*found, strict=True):
        np.testing.assert_allclose(composed, kernel, 1e-10, 1e-10)


FAR = (np.nan, np.inf, -np.inf, 1e9, -1e9, 1e10, -1e10, 1e30, -1e30, 5e8, 1e5, 3.0)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("channels", [2, 9])
def test_far_places_and_such_that_are_no_number(mode, padding, align, axes, channels):
    """As PyTorch clips them: to the side that they lie on, NaN to the first pixel of a plane and the last of a volume."""
    if mode == "bicubic" and axes == 3:
        return
    rng = np.random.default_rng(0)
    far = FAR[:3] + FAR[-2:] if padding == "reflection" else FAR  # PyTorch's reflection of huge numbers is arbitrary
    places = np.array([p for v, w in product(far, (0.3, 9.0)) for p in ([v, w, 0.2], [w, v, 0.2], [0.1, w, v])])[
        :, :axes
    ]
    for dtype in ("float32", "float64"):
        x = rng.normal(size=(1, channels, *(3, 4, 5)[:axes])).astype(dtype)
        grid = np.repeat(places.astype(dtype), 3, 0).reshape(1, -1, *(1,) * (axes - 1), axes)
        y = F.grid_sample(fn.tensor(x), fn.tensor(grid), mode, padding, align).numpy()
        expected = torch.nn.functional.grid_sample(torch.tensor(x), torch.tensor(grid), mode, padding, align).numpy()
        np.testing.assert_allclose(y, expected, 2e-5, 2e-5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gradients_at_far_places(mode, padding):
    """Where PyTorch has any: its backward of border padding reads outside memory at NaN."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 4, 5))
    for v, w in product(FAR[1:] if padding == "border" and mode == "bilinear" else FAR, (0.3, -0.7)):
        grid = np.array([[[[v, w]], [[w, 0.2]]]])
        found = []
        for T in (fn, torch):
            a, g = (T.tensor(t, requires_grad=True) for t in (x, grid))
            T.nn.functional.grid_sample(a, g, mode, padding, True).sum().backward()
            found.append((a.grad.numpy(), g.grad.numpy()))
        for got, expected in zip(*found, strict=True):
            np.testing.assert_allclose(got, expected, 1e-9, 1e-9)


def test_second_derivatives_survive_places_that_are_nowhere():
    x = fn.tensor(np.random.default_rng(0).normal(size=(1, 2, 3, 3)))
    grid = fn.tensor(np.array([[[[np.nan, 0.1], [np.inf, 0.2], [0.3, 1e30], [0.2, 0.1]]]]))
    for mode, padding in product(("bilinear", "bicubic"), ("zeros", "border", "reflection")):
        once = fn.grad(lambda g: F.grid_sample(x, g, mode, padding, True).square().sum())
        twice = fn.grad(lambda g: once(g)[0, 0, 3].sum())(grid)
        assert np.isfinite(twice.numpy()[0, 0, 3]).all()


def test_pixels_that_are_not_numbers_stay_apart():
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 0, 0] = np.nan
    grid = np.array([[[[-0.9, -0.9], [0.5, 0.5], [3.0, 3.0]]]])
    np.testing.assert_array_equal(
        np.isnan(F.grid_sample(fn.tensor(x), fn.tensor(grid)).numpy()).ravel(), [True, False, False]
    )


def test_no_places():
    x = fn.ones(2, 3, 4, 4, requires_grad=True)
    F.grid_sample(x, fn.zeros(2, 0, 5, 2)).sum().backward()
    assert not x.grad.numpy().any() and F.grid_sample(x, fn.zeros(2, 0, 5, 2)).shape == (2, 3, 0, 5)


X, G = fn.ones(1, 2, 4, 4), fn.zeros(1, 3, 3, 2)
ERRORS = {
    "mode": (ValueError, "mode must be one of nearest, bilinear, bicubic, got 'cubic'", lambda: F.grid_sample(X, G, "cubic")),
    "padding": (ValueError, "padding_mode must be one of", lambda: F.grid_sample(X, G, padding_mode="same")),
    "dtypes": (TypeError, "expected operands of one dtype", lambda: F.grid_sample(X, G.double())),
    "integers": (TypeError, "expected float32 or float64, got int64", lambda: F.grid_sample(X.long(), G.long())),
    "rank": (RuntimeError, r"expected an input \(N, C, H, W\)", lambda: F.grid_sample(X[0], G)),
    "axes": (RuntimeError, r"needs a grid \(1, ..., 2\), got \(1, 3, 3, 3\)", lambda: F.grid_sample(X, fn.zeros(1, 3, 3, 3))),
    "batch": (RuntimeError, r"needs a grid \(1, ..., 2\), got \(2, 3, 3, 2\)", lambda: F.grid_sample(X, fn.zeros(2, 3, 3, 2))),
    "empty": (RuntimeError, "at least one pixel", lambda: F.grid_sample(fn.ones(1, 2, 0, 4), G)),
    "bicubic": (NotImplementedError, "bicubic needs an input of 4", lambda: F.grid_sample(fn.ones(1, 1, 2, 2, 2), fn.zeros(1, 1, 1, 1, 3), "bicubic")),
    "theta": (RuntimeError, "affine_grid: expected theta", lambda: F.affine_grid(fn.ones(2, 2, 3), (1, 1, 2, 2))),
    "size": (RuntimeError, "affine_grid: expected theta", lambda: F.affine_grid(fn.ones(1, 2, 3), (1, 1, 0, 2))),
    "theta dtype": (TypeError, "affine_grid: expected a floating-point theta", lambda: F.affine_grid(fn.ones(1, 2, 3).long(), (1, 1, 2, 2))),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(kind, message, call):
    with pytest.raises(kind, match=message):
        call()
