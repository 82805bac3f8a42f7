"""Interpolation against PyTorch over its options, what it refuses, and the layers."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn
from funcnn.kernels.cpu.build.facts import given_by_name
from funcnn.kernels.cpu.sampling import interpolate as kernels
from tests.plain import surrounded

torch = pytest.importorskip("torch")
MODES = {
    1: ["nearest", "nearest-exact", "linear", "area"],
    2: ["nearest", "nearest-exact", "bilinear", "bicubic", "area"],
    3: ["nearest", "nearest-exact", "trilinear", "area"],
}
SHAPES = {1: (2, 3, 10), 2: (2, 3, 10, 7), 3: (1, 2, 5, 6, 7)}
WAYS = [{"size": s} for s in (1, 5, 7, 13, 24)] + [{"scale_factor": f} for f in (2, 0.5, 1.7, 0.37, 3)]
WAYS += [{"scale_factor": f, "recompute_scale_factor": True} for f in (1.7, 0.37)]


def compare(x: np.ndarray, **options):
    for dtype, tolerance in (("float32", 5e-5), ("float64", 1e-11)):
        array = x.astype(dtype)
        mine, theirs = fn.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        y, expected = F.interpolate(mine, **options), torch.nn.functional.interpolate(theirs, **options)
        assert tuple(y.shape) == tuple(expected.shape)
        g = np.random.default_rng(1).normal(size=tuple(expected.shape)).astype(dtype)
        y.backward(fn.tensor(g))
        expected.backward(torch.tensor(g))
        message = f"{options} {dtype}"
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), tolerance, tolerance, err_msg=message)
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), tolerance, tolerance, err_msg=message)


@pytest.mark.parametrize(("n", "mode"), [(n, mode) for n, modes in MODES.items() for mode in modes])
def test_options(n, mode):
    x = np.random.default_rng(0).normal(size=SHAPES[n])
    smooth = "linear" in mode or "cubic" in mode
    for way in WAYS:
        for align in (None, True, False) if smooth else (None,):
            for antialias in (False, True) if mode in ("bilinear", "bicubic") else (False,):
                compare(x, mode=mode, align_corners=align, antialias=antialias, **way)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_rounds_as_pytorch(mode):
    x = np.random.default_rng(0).normal(size=(1, 1, 19))
    for size in range(1, 60):
        compare(x, mode=mode, size=size)
    for factor in (0.6, 0.75, 0.9, 1.1, 1.3, 2.5):
        compare(x, mode=mode, scale_factor=factor)


def test_large_planes_and_no_images():
    compare(np.random.default_rng(0).normal(size=(2, 1, 150, 190)), size=(310, 300), mode="bilinear")
    compare(np.random.default_rng(0).normal(size=(2, 1, 150, 190)), size=(60, 300), mode="bicubic")
    assert F.interpolate(fn.zeros(0, 3, 4, 4), size=2, mode="bilinear").shape == (0, 3, 2, 2)


def test_nan_and_infinity_stay_where_they_are():
    x = np.zeros((1, 1, 6, 6))
    x[0, 0, 1, 1], x[0, 0, 4, 4] = np.nan, np.inf
    for options in (
        {"size": 3, "mode": "nearest"},
        {"size": (9, 11), "mode": "bilinear"},
        {"size": 3, "mode": "bilinear"},
    ):
        got, expected = (
            F.interpolate(fn.tensor(x), **options),
            torch.nn.functional.interpolate(torch.tensor(x), **options),
        )
        np.testing.assert_array_equal(np.isfinite(got.numpy()), np.isfinite(expected.numpy()), err_msg=str(options))


X = fn.ones(1, 2, 4, 4)
ERRORS = {
    "mode": (NotImplementedError, "unknown mode 'cubic'; expected one of nearest", lambda: F.interpolate(X, 2, mode="cubic")),
    "rank": (NotImplementedError, r"'linear' needs an input of 3 dimensions .* got shape \(1, 2, 4, 4\)", lambda: F.interpolate(X, 2, mode="linear")),
    "nothing": (ValueError, "give either size or scale_factor", lambda: F.interpolate(X)),
    "both": (ValueError, "give either size or scale_factor", lambda: F.interpolate(X, 2, 2.0)),
    "corners": (ValueError, "align_corners goes with", lambda: F.interpolate(X, 2, align_corners=True)),
    "antialias": (ValueError, "antialias goes with bilinear and bicubic", lambda: F.interpolate(X, 2, antialias=True)),
    "recompute": (ValueError, "recompute_scale_factor goes with", lambda: F.interpolate(X, 2, recompute_scale_factor=True)),
    "sizes": (ValueError, "one size or 2", lambda: F.interpolate(X, (2, 2, 2))),
    "too small": (RuntimeError, r"an input of \(4, 4\) pixels would become \(0, 0\)", lambda: F.interpolate(X, scale_factor=0.1)),
    "empty": (RuntimeError, "expected pixels and channels", lambda: F.interpolate(fn.ones(1, 2, 0, 4), 2)),
    "dtype": (TypeError, "expected float32 or float64, got int64", lambda: F.interpolate(X.long(), 2)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(kind, message, call):
    with pytest.raises(kind, match=f"interpolate: .*{message}"):
        call()


LAYERS = [
    "Upsample(scale_factor=2)", "Upsample(size=(3, 4), mode='bilinear', align_corners=True)", "Upsample((7, 2))",
    "Upsample(scale_factor=(1.5, 2), mode='bicubic')", "UpsamplingNearest2d(scale_factor=2)", "UpsamplingNearest2d(5)",
    "Upsample(scale_factor=1.7, recompute_scale_factor=True, mode='bilinear')", "UpsamplingBilinear2d(scale_factor=2.5)",
]  # fmt: skip


@pytest.mark.parametrize("text", LAYERS)
def test_layers(text):
    mine, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    pure = eval(f"L.{text}", {"L": L})
    assert repr(mine) == repr(theirs) == repr(pure)
    assert mine.scale_factor == theirs.scale_factor and mine.size == theirs.size and not mine.state_dict()
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    np.testing.assert_allclose(mine(fn.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), 1e-12)
    np.testing.assert_array_equal(pure({}, {}, fn.tensor(x))[0].numpy(), mine(fn.tensor(x)).numpy())


def test_workers_write_lines_of_their_own():
    """What two workers write beside the output lies further apart than a line of the cache: sharing one cost ten times."""
    seen = []

    def around(kernel, args):
        if kernel is kernels.resize:
            seen.append(given_by_name(kernel, args))
        return kernel.compiled(*args)

    with surrounded(around):
        for mode, n in (("nearest", 2), ("bilinear", 2), ("bicubic", 2), ("linear", 1), ("trilinear", 3)):
            for factor in (2, 0.5):
                F.interpolate(fn.randn(4, 32, *(16,) * n), scale_factor=factor, mode=mode)
    assert seen
    for args in seen:
        (_, w, _, q), (ring, _, _, room_apart, mark_apart) = args["sizes"], args["plan"]
        assert room_apart == 1 or (room_apart - (ring * q or w)) * args["scratch"].itemsize >= 64
        assert mark_apart == 1 or (mark_apart - ring) * args["marks"].itemsize >= 64
    assert any(args["plan"][3] > 1 for args in seen) and any(args["plan"][4] > 1 for args in seen)
