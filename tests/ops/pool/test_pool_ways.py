"""Pooling by tables of planes and by rows: either way for all shapes, against PyTorch, forward and backward."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from tests.plain import surrounded

torch = pytest.importorskip("torch")


@pytest.fixture(params=["rows", "windows", "planes", "chosen"])
def way(request):
    """Have one of the kernels do everything that it can, or let the model choose."""
    with nullcontext() if request.param == "chosen" else fn.prefer(request.param):
        yield request.param


def drawn(rng):
    """A pooling of one to three dimensions with shapes of every kind: its name, the input's shape, arguments."""
    n = int(rng.integers(1, 4))
    space = [int(rng.integers(1, {1: 70, 2: 24, 3: 9}[n])) for _ in range(n)]
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 6)), *space)
    name = ("max", "avg", "adaptive_max", "adaptive_avg")[rng.integers(4)]
    if name.startswith("adaptive"):
        return f"{name}_pool{n}d", shape, ([int(rng.integers(1, s + 3)) for s in space],), {}
    size = [int(rng.integers(1, min(s, 8) + 1)) for s in space]
    stride = [int(rng.integers(1, 9)) for _ in space]
    padding = [int(rng.integers(0, k // 2 + 1)) for k in size]
    options = {"ceil_mode": bool(rng.integers(2))}
    if name == "max" and rng.integers(2):
        options["dilation"] = [int(rng.integers(1, max(2, s // max(k, 1)))) for s, k in zip(space, size, strict=True)]
    if name == "avg":
        options["count_include_pad"] = bool(rng.integers(2))
        if n > 1 and rng.integers(3) == 0:
            options["divisor_override"] = int(rng.integers(1, 9))
    return f"{name}_pool{n}d", shape, (size, stride, padding), options


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_poolings_are_pytorchs(way, dtype):
    rng = np.random.default_rng(7)
    for _ in range(200):
        name, shape, args, options = drawn(rng)
        x = np.round(rng.standard_normal(shape), 1).astype(dtype)  # with equals
        mine, theirs = fn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, expected = (getattr(m.nn.functional, name)(t, *args, **options) for m, t in ((fn, mine), (torch, theirs)))
        g = rng.standard_normal(tuple(expected.shape)).astype(dtype)
        y.backward(fn.tensor(g))
        expected.backward(torch.tensor(g))
        told = f"{name} {shape} {args} {options}"
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), tolerance, tolerance, err_msg=told)
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), tolerance, tolerance, err_msg=told)
        if "max" in name:
            plain = getattr(F, name)(fn.tensor(x), *args, **options)
            np.testing.assert_array_equal(plain.numpy(), expected.detach().numpy(), told)


def test_a_view_is_pooled_as_its_copy(way):
    x = fn.randn(3, 9, 7, 4).permute(0, 3, 1, 2)
    for name, args in (("max_pool2d", (3,)), ("avg_pool2d", (2,)), ("adaptive_avg_pool2d", (3,))):
        np.testing.assert_array_equal(
            getattr(F, name)(x, *args).numpy(), getattr(F, name)(x.contiguous(), *args).numpy()
        )


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"ceil_mode": True}], ids=str)
def test_a_long_line_of_windows(options):
    rng = np.random.default_rng(0)
    for k, stride, width in ((5, 5, 40), (3, 7, 4200), (8, 8, 24000), (6, 5, 40), (5, 5, 43), (4, 3, 60000)):
        x = rng.standard_normal((2, 3, width)).astype(np.float32)
        for name, dilation in (("max_pool1d", {"dilation": 2}), ("max_pool1d", {}), ("avg_pool1d", {})):
            told = f"{name} {k} {stride} {width} {options | dilation}"
            mine, theirs = fn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            y, expected = (
                getattr(m.nn.functional, name)(t, k, stride, **options, **dilation)
                for m, t in ((fn, mine), (torch, theirs))
            )
            np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), 1e-5, 1e-6, err_msg=told)
            plain = getattr(F, name)(fn.tensor(x), k, stride, **options, **dilation)
            np.testing.assert_array_equal(plain.numpy(), y.detach().numpy(), told)
            g = rng.standard_normal(tuple(expected.shape)).astype(np.float32)
            y.backward(fn.tensor(g))
            expected.backward(torch.tensor(g))
            np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), 1e-5, 1e-6, err_msg=told)


SMALL = [
    ("max_pool2d", (7, 7), (3, 3)), ("max_pool2d", (7, 7), (2, 2)), ("avg_pool2d", (7, 7), (3, 3)),
    ("avg_pool2d", (4, 4), (2, 2)), ("max_pool2d", (7, 7), (7, 7)), ("adaptive_avg_pool2d", (7, 7), (3,)),
    ("adaptive_max_pool2d", (28, 28), (5,)), ("max_pool2d", (7, 7), (3, 2, 1, 2)), ("max_pool3d", (8, 8, 8), (3, 3)), ("max_pool1d", (20,), (4, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "space", "args"), SMALL, ids=lambda v: str(v))
def test_small_planes_go_by_tables(name, space, args):
    """A row of such planes is no vector: window by window they took two to seven times as long as PyTorch."""
    ran = []
    x = fn.randn(2, 8, *space, requires_grad=True)
    with surrounded(lambda kernel, args: (ran.append(kernel.__name__), kernel.compiled(*args))):
        getattr(F, name)(x, *args).sum().backward()
    assert [k for k in ran if k.startswith("plane")] == (
        ["plane_maxima"] if "max" in name else ["plane_means", "plane_sums"]
    )
