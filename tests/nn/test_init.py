"""Initialisation: constants equal torch's, random values have the stated distribution and repeat with their seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import funcnn  # noqa: F401  (attaches the methods of Tensor)
from funcnn.core.errors import DTypeError
from funcnn.nn import init
from funcnn.nn.parameter import Parameter
from funcnn.ops.random.generator import Generator, manual_seed
from funcnn.ops.tensor import creation

N = 40_000


def array(t) -> np.ndarray:
    return np.asarray(t._v)


def torch_init():
    return pytest.importorskip("torch").nn.init


@pytest.mark.parametrize(
    "name", ["linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "gelu", "conv4d"]
)
@pytest.mark.parametrize("param", [None, 0.2, 1, True, "x"])
def test_gain_as_torch(name, param):
    def answer(library):
        try:
            return library.calculate_gain(name, param)
        except ValueError:
            return "refused"

    assert answer(init) == answer(torch_init())


@pytest.mark.parametrize(
    ("fill", "shape", "args"),
    [
        ("constant_", (2, 3), (1.5,)), ("ones_", (3,), ()), ("zeros_", (), ()), ("eye_", (2, 4), ()), ("eye_", (3, 2), ()),
        ("dirac_", (3, 2, 3), ()), ("dirac_", (2, 4, 3, 5), ()), ("dirac_", (6, 2, 1, 2, 3), (3,)), ("dirac_", (4, 4, 3), (2,)),
    ],
)  # fmt: skip
def test_constants_as_torch(fill, shape, args):
    torch = pytest.importorskip("torch")
    t = Parameter(creation.full(shape, 7.0))
    memory = t._v
    assert getattr(init, fill)(t, *args) is t
    assert t._v is memory and t.is_leaf and t.requires_grad
    np.testing.assert_array_equal(memory, getattr(torch.nn.init, fill)(torch.full(shape, 7.0), *args).numpy())


def test_constant_of_integers():
    assert array(init.constant_(creation.zeros(2, dtype=np.int64), 3)).tolist() == [3, 3]


# A uniform variable on [-c, c] has variance c*c / 3.
VARIANCES = {
    "uniform_": ((-1.0, 3.0), 16 / 12, 1.0),
    "normal_": ((2.0, 3.0), 9.0, 2.0),
    "xavier_uniform_": ((1.5,), 1.5**2 * 2 / 400, 0.0),
    "xavier_normal_": ((), 2 / 400, 0.0),
    "kaiming_uniform_": ((math.sqrt(5),), 2 / 6 / 200, 0.0),
    "kaiming_normal_": ((0, "fan_out", "relu"), 2 / 200, 0.0),
}


@pytest.mark.parametrize("fill", VARIANCES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_moments(fill, dtype):
    args, variance, mean = VARIANCES[fill]
    manual_seed(0)
    t = getattr(init, fill)(creation.zeros(200, 200, dtype=dtype), *args)
    values = array(t).astype(np.float64)
    assert t.dtype == dtype and len(np.unique(values)) > 0.9 * N
    assert abs(values.mean() - mean) < 5 * math.sqrt(variance / N)
    assert abs(values.var() / variance - 1) < 0.05


def test_fans_of_convolutions():
    torch = pytest.importorskip("torch")
    manual_seed(0)
    shape = (64, 32, 3, 3)
    for mode in ("fan_in", "fan_out"):
        ours = array(init.kaiming_uniform_(creation.zeros(*shape), mode=mode)).max()
        reference = torch.nn.init.kaiming_uniform_(torch.zeros(*shape), mode=mode).max().item()
        assert ours == pytest.approx(reference, rel=1e-2)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0, 1, -2, 2), (1, 0.5, 0, 1.2), (0, 0.02, -2, 2), (0, 1, 1.5, 2), (0, 1, -2, -1)]
)
def test_truncated_normal_has_its_distribution(mean, std, a, b):
    manual_seed(1)
    values = np.sort(array(init.trunc_normal_(creation.zeros(200, 200), mean, std, a, b)).astype(np.float64).ravel())
    assert values[0] >= a and values[-1] <= b

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf((x - mean) / std / math.sqrt(2)))

    expected = np.array([(below(x) - below(a)) / (below(b) - below(a)) for x in values[::100]])
    assert np.abs(expected - np.arange(0, N, 100) / N).max() < 1.95 / math.sqrt(N)  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize(("a", "b"), [(5.0, 6.0), (-6.0, -5.0)])
def test_truncated_normal_in_the_tails(a, b):
    manual_seed(0)
    with pytest.warns(UserWarning, match="more than 2 std"):
        values = array(init.trunc_normal_(creation.zeros(20_000), a=a, b=b))
    assert values.min() >= a and values.max() <= b
    assert np.abs(values).mean() == pytest.approx(5.1865, abs=0.01)  # phi(5) / (1 - Phi(5)), less what lies beyond 6


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (4, 4)])
def test_orthogonal(shape):
    manual_seed(0)
    flat = array(init.orthogonal_(Parameter(creation.zeros(*shape)), 2.0)).reshape(shape[0], -1)
    product = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_sparse():
    manual_seed(0)
    values = array(init.sparse_(creation.zeros(10, 300), 0.25, 0.5))
    assert ((values == 0).sum(0) == 3).all()
    assert values[values != 0].std() == pytest.approx(0.5, rel=0.1)
    assert (values == 0).sum(1).min() > 40  # zeros are spread over the rows


@pytest.mark.parametrize(
    "fill", ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_normal_", "orthogonal_"]
)
def test_seeds_and_generators(fill):
    def draw(generator=None):
        return array(getattr(init, fill)(creation.zeros(4, 4), generator=generator))

    manual_seed(3)
    first, second = draw(), draw()
    manual_seed(3)
    np.testing.assert_array_equal(draw(), first)
    assert (first != second).any()
    own = [draw(Generator().manual_seed(5)) for _ in range(2)]
    np.testing.assert_array_equal(own[0], own[1])


@pytest.mark.parametrize(
    ("fill", "shape", "args", "error"),
    [
        ("eye_", (2, 2, 2), (), ValueError), ("dirac_", (2, 2), (), ValueError), ("dirac_", (3, 2, 1), (2,), ValueError),
        ("xavier_uniform_", (3,), (), ValueError), ("kaiming_normal_", (3,), (), ValueError),
        ("kaiming_uniform_", (3, 2), (0, "fan"), ValueError), ("orthogonal_", (3,), (), ValueError),
        ("sparse_", (3,), (0.5,), ValueError), ("normal_", (3,), (0.0, -1.0), ValueError),
        ("uniform_", (3,), (1.0, 0.0), ValueError),
    ],
)  # fmt: skip
def test_bad_input(fill, shape, args, error):
    t = creation.zeros(*shape)
    with pytest.raises(error):
        getattr(init, fill)(t, *args)
    assert not array(t).any()


def test_random_integers_are_refused():
    with pytest.raises(DTypeError, match="uniform_"):
        init.uniform_(creation.zeros(2, dtype=np.int64))


def test_empty_weights_are_left_with_a_warning():
    with pytest.warns(UserWarning, match="no-op"):
        init.kaiming_uniform_(creation.zeros(0, 3))


def test_old_names_warn():
    with pytest.warns(FutureWarning, match="nn.init.xavier_uniform_"):
        t = init.xavier_uniform(creation.zeros(2, 2))
    assert array(t).any() and init.xavier_uniform.__name__ == "xavier_uniform"
