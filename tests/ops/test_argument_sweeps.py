"""A few hundred of the random arguments of ``tests.arguments`` in every run, and each fault that they found by name."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.core.errors import ShapeError
from tests import arguments

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("family", arguments.FAMILIES)
def test_families_beside_pytorch(family: str) -> None:
    found = [d for seed in range(60) if (d := arguments.difference(family, seed)) is not None]
    assert not found, "\n".join(found)


def test_a_mask_is_no_integer_to_index_put() -> None:
    x, mask = fn.zeros(4), fn.tensor([False, True, False, True])
    assert fn.index_put(x, (mask,), fn.tensor([5.0, 6.0])).tolist() == [0, 5, 0, 6]
    assert fn.index_put(x, (mask,), fn.tensor(1.0), accumulate=True).tolist() == [0, 1, 0, 1]
    with pytest.raises(ShapeError, match=r"index_put: a value of shape \(1, 2\) does not broadcast to \(2,\)"):
        fn.index_put(x, (mask,), fn.ones(1, 2))


def test_circular_padding_crops_first() -> None:
    x = fn.arange(6).reshape(2, 3)
    assert F.pad(x, (-1, 2), "circular").tolist() == [[1, 2, 1, 2], [4, 5, 4, 5]]
    for mode in ("circular", "reflect", "replicate"):
        with pytest.raises(ShapeError, match="takes widths for all dimensions but channels"):
            F.pad(x, (1, 1, 1, 1), mode)


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (300, 4, 40)])
@pytest.mark.parametrize("weights", [(0.25,), (0.25, -2.0, np.inf, np.nan)])
def test_prelu_at_infinity_and_nan(shape: tuple, weights: tuple) -> None:
    torch = pytest.importorskip("torch")
    x = np.resize(np.array([1.5, -2.0, np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32), shape)
    w = np.array(weights, np.float32)
    expected = torch.nn.functional.prelu(torch.tensor(x), torch.tensor(w)).numpy()
    np.testing.assert_array_equal(F.prelu(fn.tensor(x), fn.tensor(w)).numpy(), expected)


def test_the_slope_of_prelu_sees_no_infinity_above_0() -> None:
    w = fn.tensor(np.float32([0.25]), requires_grad=True)
    F.prelu(fn.tensor([np.inf, -2.0]), w).sum().backward()
    assert w.grad.tolist() == [-2]
    with pytest.raises(ShapeError, match=r"prelu: expected a weight of shape \(\) or \(n,\), got \(3, 1\)"):
        F.prelu(fn.ones(2, 3), fn.ones(3, 1))


def test_counting_norms_require_grad() -> None:
    x = fn.tensor([0.0, 3.0, -np.inf], requires_grad=True)
    y = fn.norm(x, 0)
    assert y.requires_grad and y.item() == 2
    y.backward()
    assert x.grad.tolist() == [0, 0, 0]
    assert fn.norm(fn.tensor([3.0, 4.0]), None).item() == 5


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_output_padding_below_the_dilation(stride: int, extra: int, padding: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((2, 2, 4, 3), (2, 3, 2, 3), (3,))]
    results = []
    for T in (fn, torch):
        x, w, b = (T.tensor(a, requires_grad=True) for a in arrays)
        y = T.nn.functional.conv_transpose2d(x, w, b, stride, padding, extra, 1, 3)
        (y * y).sum().backward()
        results.append([y.detach().numpy(), *(t.grad.numpy() for t in (x, w, b))])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, 1e-9, 1e-9)


def test_cross_entropy_of_targets_that_weigh_nothing() -> None:
    x, t, w = fn.ones(2, 3), fn.tensor([0, 0]), fn.tensor([0.0, 1.0, 2.0])
    for share in (0.1, 1.0):
        assert np.isnan(F.cross_entropy(x, t, w, label_smoothing=share).item())
    wide = fn.tensor(np.full((2, 3), 1 / 3), requires_grad=True)
    loss = F.cross_entropy(x, wide)
    loss.backward()
    assert loss.dtype == fn.float64 and wide.grad.dtype == fn.float64
