"""Pooling layers that take more than one input or draw random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import nn
from funcnn.nn import functional as F

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "n, shape, args, size",
    [(1, (2, 3, 9), (2,), (9,)), (2, (2, 3, 7, 6), (3, 2), (2, 3, 7, 6)), (3, (1, 2, 4, 4, 6), (2, (2, 1, 2)), None)],
)
def test_unpooling_is_pytorchs(n: int, shape: tuple, args: tuple, size: Any) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal(shape)
    pool, unpool = (getattr(nn, f"Max{kind}{n}d") for kind in ("Pool", "Unpool"))
    their_pool, their_unpool = (getattr(torch.nn, f"Max{kind}{n}d") for kind in ("Pool", "Unpool"))
    leaf, theirs = fn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = unpool(*args)(*pool(*args, return_indices=True)(leaf), output_size=size)
    expected = their_unpool(*args)(*their_pool(*args, return_indices=True)(theirs), output_size=size)
    np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())
    (got * fn.tensor(np.cos(np.arange(got.numel()).reshape(got.shape)))).sum().backward()
    (expected * torch.tensor(np.cos(np.arange(got.numel()).reshape(got.shape)))).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), theirs.grad.numpy(), 1e-12)
    assert repr(unpool(*args)) == repr(their_unpool(*args)) == repr(getattr(L, f"MaxUnpool{n}d")(*args))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "n, shape, options",
    [
        (2, (2, 3, 13, 17), {"output_size": (5, 7)}),
        (2, (3, 40, 31), {"output_ratio": (0.5, 0.7)}),
        (2, (2, 1, 4, 5), {"output_size": 1}),
        (3, (2, 3, 9, 8, 11), {"output_size": (4, 3, 5), "return_indices": True}),
    ],
)
def test_fractional_pooling_is_pytorchs_for_given_samples(n: int, shape: tuple, options: dict, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal(shape).astype(dtype)
    samples = RNG.random((1, *shape[:1], n) if len(shape) == n + 1 else (*shape[:2], n)).astype(dtype)
    mine = getattr(nn, f"FractionalMaxPool{n}d")(2, **options, _random_samples=fn.tensor(samples))
    theirs = getattr(torch.nn, f"FractionalMaxPool{n}d")(2, **options, _random_samples=torch.tensor(samples))
    got, expected = mine(fn.tensor(x)), theirs(torch.tensor(x))
    for ours, torchs in zip(*[out if isinstance(out, tuple) else (out,) for out in (got, expected)], strict=True):
        np.testing.assert_array_equal(ours.numpy(), torchs.numpy())
    assert repr(mine) == repr(theirs) and list(mine.state_dict()) == list(theirs.state_dict()) == ["_random_samples"]


def test_fractional_pooling_draws_from_keys() -> None:
    x, layer = fn.tensor(RNG.standard_normal((2, 3, 20, 20))), L.FractionalMaxPool2d(3, output_ratio=0.5)
    one, again, other = (layer({}, {}, x, training=True, key=fn.random.key(k))[0].numpy() for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    with pytest.raises(L.KeyRequired, match="FractionalMaxPool2d"):
        layer({}, {}, x, training=True)
    module = nn.FractionalMaxPool2d(3, output_ratio=0.5)
    fn.manual_seed(0)
    first, second = module(x).numpy(), module.eval()(x).numpy()
    fn.manual_seed(0)
    np.testing.assert_array_equal(module.train()(x).numpy(), first)
    assert (first != second).any() and not module.state_dict()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: L.FractionalMaxPool2d(2), "either output_size or output_ratio"),
        (lambda: L.FractionalMaxPool3d(2, 3, 0.5), "either output_size or output_ratio"),
        (lambda: L.FractionalMaxPool2d(2, output_ratio=1.5), r"between 0 and 1 \(got 1.5\)"),
        (lambda: F.fractional_max_pool2d(fn.ones(1, 1, 5, 5), 2), "an output_size or an output_ratio, got neither"),
        (lambda: F.fractional_max_pool2d(fn.ones(1, 1, 5, 5), 3, 4), r"4\) windows of \(3, 3\) do not fit"),
        (
            lambda: F.fractional_max_pool2d(fn.ones(1, 1, 5, 5), 2, 2, _random_samples=fn.ones(1, 2)),
            r"expected _random_samples of shape \(1, 1, 2\)",
        ),
        (lambda: F.lp_pool2d(fn.ones(1, 1, 5, 5), 0, 2), "norm_type must not be 0"),
        (lambda: F.max_unpool1d(fn.ones(1, 1, 2), fn.ones(1, 1, 2), 2), "indices of dtype int64"),
        (lambda: F.max_unpool1d(fn.ones(1, 1, 1), fn.zeros(1, 1, 1).long(), 1, 1, 1), "would be"),
    ],
)
def test_refusals(make: Any, words: str) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError), match=words):
        make()
