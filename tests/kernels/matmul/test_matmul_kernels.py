"""Our matrix product against NumPy's, in every layout, and with every number of threads; and how its plans are made."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.core.evaluation import planned
from funcnn.kernels.cpu import launching
from funcnn.kernels.cpu.matmul import launch
from funcnn.kernels.cpu.matmul.epilogue import ACTIVATIONS
from funcnn.kernels.implementation import CONTIGUOUS, operand_of
from funcnn.kernels.launch import INPUT, OUTPUT, Array, LaunchPlan, Output
from funcnn.ops.matmul.matmul import linear_p, matmul_p
from tests import helpers as h
from tests.plain import sized

SIZES = [
    (100, 70, 131),
    (64, 33, 96),
    (57, 49, 10),
    (9, 200, 100),
    (8, 8, 8),
    (8, 9, 70),
    (1, 1, 1),
    (3, 2, 5),
    (5, 40, 3),
]
LAYOUTS = {"rows": np.ascontiguousarray, "columns": np.asfortranarray}


@pytest.fixture(autouse=True)
def garbage_in_scratch(monkeypatch):
    """What a kernel reads of its scratch it has written before."""
    h.dirty_scratch(monkeypatch)


def ours(a, b, bias=None, scale=None, residual=None, activation=None):
    """The kernel's ``activation(a @ b * scale + bias + residual)``; its memory held NaN."""
    ins, epilogue = [a, b], launch.Epilogue(scaled=scale is not None, activation=activation)
    for name, parts in (("extra", (bias, scale)), ("residual", (residual,))):
        given = [part.ravel() for part in parts if part is not None]
        if given:
            epilogue = epilogue._replace(**{name: Array(INPUT, len(ins))})
            ins.append(np.concatenate(given))
    operands, scratch, out = tuple(map(operand_of, ins)), [], np.full((a.shape[0], b.shape[1]), np.nan, a.dtype)
    laid = [launch._laid(x) for x in operands[:2]]
    factors = [launch.Matrix(Array(INPUT, i), x.shape, laid[i][2]) for i, x in enumerate(operands[:2])]
    multiply = launch.product(*factors, Array(OUTPUT, 0), a.dtype, scratch, epilogue)
    accesses = (*(access for access, *_ in laid), *(CONTIGUOUS for _ in operands[2:]))
    plan = LaunchPlan((multiply,), accesses, (Output(),), tuple(scratch))
    with np.errstate(all="ignore"):  # without a compiler, numbers beyond the edges of a tile warn
        launching.Runner(plan, operands, (operand_of(out),))(ins, [out])
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_against_numpy(size, dtype):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    for left, right, extra in product(LAYOUTS.values(), LAYOUTS.values(), (None, bias)):
        out = ours(left(a), right(b), extra)
        expected = a.astype(np.float64) @ b.astype(np.float64) + (0 if extra is None else extra)
        assert abs(out - expected).max() < (1e-5 if dtype == "float32" else 1e-13) * abs(expected).max()


def _finished(c, bias, scale, residual, activation):
    for part, apply in ((scale, np.multiply), (bias, np.add), (residual, np.add)):
        c = c if part is None else apply(c, part)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    return {None: lambda x: x, "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid, "tanh": np.tanh}[activation](c)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [sized((100, 70, 131), (17, 9, 70)), (9, 20, 100), (40, 9, 8), (2, 3, 4)])
def test_epilogues(size, activation):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b, bias, scale, residual = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (n,), (n,), (m, n)))
    for affine, more in product(((bias, None), (bias, scale), (None, None)), (None, residual)):
        out = ours(a, b, *affine, more, activation)
        np.testing.assert_allclose(out, _finished(a @ b, *affine, more, activation), rtol=1e-12, atol=1e-12)


def test_relu_keeps_nan():
    nothing = np.full((16, 16), np.nan, np.float32)
    assert np.isnan(ours(nothing, np.eye(16, dtype=np.float32), activation="relu")).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_number_of_threads_does_not_change_a_bit(size, monkeypatch):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    results = []
    for many in (1, 2, 3):
        h.on_workers(monkeypatch, many)
        results.append(ours(a, b).tobytes())
    assert len(set(results)) == 1


def test_nan_and_inf_stay_in_their_row_and_column():
    a, b = np.ones((20, 30), np.float32), np.ones((30, 40), np.float32)
    a[3, 4], b[5, 6] = np.nan, np.inf
    expected = np.full((20, 40), 30, np.float32)
    expected[:, 6], expected[3] = np.inf, np.nan
    np.testing.assert_array_equal(ours(a, b), expected)


# ---- plans ------------------------------------------------------------------------------------------------------------
def _laid_otherwise(shape, rng):
    """Arrays of one shape: contiguous, of transposed matrices, of every second element, with the batch innermost, repeated."""
    *lead, m, k = shape
    yield rng.standard_normal(shape)
    yield rng.standard_normal((*lead, k, m)).swapaxes(-1, -2)
    yield rng.standard_normal([2 * size for size in shape])[tuple(slice(None, None, 2) for _ in shape)]
    yield np.moveaxis(rng.standard_normal((m, k, *lead)), (0, 1), (-2, -1))
    yield np.broadcast_to(rng.standard_normal((m, k)), shape)


@pytest.mark.parametrize(("left", "right"), [
    ((3, 4), (4, 5)), ((1, 1), (1, 1)), ((2, 3, 4), (4, 5)), ((5, 1, 3, 4), (2, 4, 6)), ((3, 4), (7, 4, 2)),
    ((2, 1, 3, 1, 5), (1, 4, 1, 5, 2)), ((0, 3, 4), (4, 5)), ((3, 0), (0, 4)), ((2, 1, 9, 9), (2, 3, 9, 9)),
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_batches_in_every_layout(left, right):
    rng = np.random.default_rng(0)
    for a, b in product(list(_laid_otherwise(left, rng)), list(_laid_otherwise(right, rng))):
        with fn.prefer("kernel"):
            got = matmul_p(fn.tensor(a), fn.tensor(b)).numpy()
        np.testing.assert_allclose(got, a @ b, 1e-12, 1e-12)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_linear_of_any_shape_and_bias(shape):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((5, 4))
    for x, bias in product(_laid_otherwise((1, *shape), rng), (None, np.ones(5), np.ones(1), np.broadcast_to(2.0, 5))):
        given = [] if bias is None else [fn.tensor(bias)]
        with fn.prefer("kernel"):
            got = F.linear(fn.tensor(x[0]), fn.tensor(w), *given).numpy()
        np.testing.assert_allclose(got, x[0] @ w.T + (0 if bias is None else bias), 1e-12, 1e-12)


def test_what_is_chosen():
    """Our kernel from so many multiply-adds on, for matrices that need no copy; BLAS for the others."""

    def name(prim, *arrays):
        return planned(prim, list(arrays), {}).name

    a, heads = np.ones((64, 64), np.float32), np.ones((2, 64, 3, 64), np.float32).transpose(0, 2, 1, 3)
    assert name(matmul_p, a, a) == name(matmul_p, a.T, a) == name(linear_p, a, a) == "kernel"
    assert name(matmul_p, np.ones((3, 64, 64)), np.ones((64, 64))) == "kernel"
    assert name(linear_p, np.ones((2, 32, 64))[:, ::-1], np.ones((64, 64))) == "kernel"
    assert (
        name(matmul_p, a[:63], a)
        == name(matmul_p, heads, heads)
        == name(matmul_p, a[::2], np.ones((64, 999), np.float32))
        == "blas"
    )
    assert name(linear_p, np.ones((2, 32, 128))[:, :, :64], np.ones((64, 64))) == "blas"
    assert name(matmul_p, np.ones((7, 400)), np.ones((400, 400))) == name(matmul_p, *[a.astype(np.int64)] * 2) == "blas"


def test_a_batch_is_few_launches():
    plan = planned(matmul_p, [np.ones((50, 1, 64, 64)), np.ones((20, 64, 64))], {}).plan
    assert [launch.times for launch in plan.launches] == [20] * 50
    plan = planned(matmul_p, [np.ones((50, 20, 64, 64)), np.ones((64, 64))], {}).plan
    assert [launch.times for launch in plan.launches] == [1000]
