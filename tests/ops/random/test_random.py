"""Random numbers where the table of cases does not go: streams, distributions, the generator, refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.kernels.cpu.random import host, launch
from funcnn.ops.random import generator as g
from funcnn.ops.random import keys as r
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.jit import jit
from funcnn.transforms.vmap import vmap
from tests import helpers as h

KEY = r.key(5)
MANY = 200_000


# ---- keys and streams -------------------------------------------------------------------------------------------------
def test_implementations_give_the_same_bits() -> None:
    """Python integers, NumPy and the compiled kernel take over from one another as draws grow."""
    longest = r.bits(KEY, 2 * launch.ELEMENTS_FOR_KERNEL).numpy()
    for count in (
        1,
        5,
        host.WORDS_IN_PYTHON,
        host.WORDS_IN_PYTHON + 1,
        launch.ELEMENTS_FOR_KERNEL - 1,
        launch.ELEMENTS_FOR_KERNEL,
    ):
        np.testing.assert_array_equal(r.bits(KEY, count).numpy(), longest[:count])


def test_bits_children_and_folds_do_not_overlap() -> None:
    drawn = set(r.bits(KEY, 4000).numpy().tolist())
    children = r.split(KEY, 1000).numpy().reshape(-1).tolist()
    folds = np.concatenate([r.fold_in(KEY, i).numpy() for i in range(300)]).tolist()
    assert len(set(children)) == len(children) and len(set(folds)) == len(folds)
    assert not drawn & set(children) and not drawn & set(folds) and not set(children) & set(folds)


def test_fold_in_takes_64_bits() -> None:
    same = (-1, 2**64 - 1), (2**63, -(2**63))
    for one, two in same:
        np.testing.assert_array_equal(r.fold_in(KEY, one).numpy(), r.fold_in(KEY, two).numpy())
    rows = [r.fold_in(KEY, data).numpy().tolist() for data in (0, 1, -1, 2**32, 2**40)]
    assert len({tuple(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("count", [0, 3, 70, launch.ELEMENTS_FOR_KERNEL])
def test_a_batch_of_keys_is_one_application(count: int) -> None:
    keys = r.split(KEY, 3)
    draws: list[Any] = [lambda k: r.bits(k, count), lambda k: r.split(k, min(count, 70)), lambda k: r.fold_in(k, count)]
    for draw in draws:
        got = vmap(draw)(keys).numpy()
        np.testing.assert_array_equal(got, np.stack([draw(keys[i]).numpy() for i in range(3)]))


def test_nested_batches_of_keys_and_data() -> None:
    keys, data = r.split(KEY, 2), as_tensor(np.arange(3))
    got = vmap(lambda k: vmap(lambda d: r.fold_in(k, d))(data))(keys).numpy()
    expected = [[r.fold_in(keys[i], j).numpy() for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(got, expected)


def test_keys_are_traceable() -> None:
    def draw(key: Any) -> tuple:
        one, two = r.split(key)
        return r.normal(one, (3,)), r.randint(two, (4,), 0, 10), r.uniform(r.fold_in(key, 3), 2)

    compiled = jit(draw)
    for seed in (1, 2):
        for got, expected in zip(compiled(r.key(seed)), draw(r.key(seed)), strict=True):
            np.testing.assert_array_equal(got.numpy(), expected.numpy())


# ---- distributions ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform(dtype: str) -> None:
    x = r.uniform(KEY, MANY, dtype).numpy()
    assert x.dtype == dtype and x.min() >= 0 and x.max() < 1
    wide = x.astype(np.float64)
    assert abs(wide.mean() - 0.5) < 0.003 and abs(wide.var() - 1 / 12) < 0.001
    counts = np.bincount((wide * 16).astype(int), minlength=16)
    assert ((counts - MANY / 16) ** 2 / (MANY / 16)).sum() < 40  # chi-square of 15 degrees: 0.05 % of draws exceed it


def test_uniform_never_rounds_up_to_its_bound() -> None:
    high = float(np.nextafter(np.float32(1), np.float32(2)))
    assert r.uniform(KEY, 1000, minval=1.0, maxval=high).numpy().max() == 1.0
    bounds = as_tensor(np.float32(1)), as_tensor(np.float32(high))
    assert r.uniform(KEY, 1000, minval=bounds[0], maxval=bounds[1]).numpy().max() == 1.0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_normal(dtype: str) -> None:
    x = r.normal(KEY, (MANY // 2, 2), dtype).numpy()
    assert x.dtype == dtype and np.isfinite(x).all()
    wide = x.astype(np.float64).reshape(-1)
    moments = [(wide**k).mean() for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert abs(np.corrcoef(x.astype(np.float64).T)[0, 1]) < 0.01


def test_odd_and_scalar_normals() -> None:
    assert r.normal(KEY, 7).shape == (7,) and r.normal(KEY).shape == () and r.normal(KEY, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize("low, high, dtype", [(0, 2, "bool"), (-3, 4, "int8"), (0, 256, "uint8"), (5, 6, "int64")])
def test_randint(low: int, high: int, dtype: str) -> None:
    x = r.randint(KEY, 20_000, low, high, dtype).numpy()
    assert x.dtype == dtype and set(x.astype(int).tolist()) == set(range(low, high))


def test_bernoulli() -> None:
    assert r.bernoulli(KEY, 1.0, 50_000).numpy().all() and not r.bernoulli(KEY, 0.0, 50_000).numpy().any()
    assert abs(r.bernoulli(KEY, 0.3, MANY).numpy().mean() - 0.3) < 0.005
    assert r.bernoulli(KEY, as_tensor(np.array([0.0, 1.0]))).numpy().tolist() == [False, True]


def test_permutation() -> None:
    for n in (0, 1, 2, 50, np.int64(9)):
        assert sorted(r.permutation(KEY, n).numpy().tolist()) == list(range(n))
    rows = as_tensor(np.arange(12.0).reshape(6, 2))
    np.testing.assert_array_equal(np.sort(r.permutation(KEY, rows).numpy(), 0), rows.numpy())
    first = [r.permutation(r.fold_in(KEY, i), 4).numpy()[0] for i in range(2000)]
    assert np.bincount(first, minlength=4).min() > 420  # 500 expected of each, deviation 19


# ---- the generator ----------------------------------------------------------------------------------------------------
def test_manual_seed_and_state() -> None:
    g.manual_seed(3)
    first, state = g.rand(4).numpy(), g.get_rng_state()
    second = g.randn(4).numpy()
    g.set_rng_state(state)
    np.testing.assert_array_equal(g.randn(4).numpy(), second)
    g.manual_seed(3)
    np.testing.assert_array_equal(g.rand(4).numpy(), first)
    assert g.initial_seed() == 3


def test_a_generator_of_ones_own_leaves_the_global_one_alone() -> None:
    g.manual_seed(0)
    expected = g.rand(2).numpy()
    g.manual_seed(0)
    own = g.Generator().manual_seed(9)
    assert not np.array_equal(g.rand(2, generator=own).numpy(), g.rand(2, generator=own).numpy())
    np.testing.assert_array_equal(g.rand(2).numpy(), expected)


def test_jit_advances_the_generator() -> None:
    step = jit(lambda: g.rand(3))
    g.manual_seed(1)
    got = [step().numpy() for _ in range(3)]
    g.manual_seed(1)
    np.testing.assert_array_equal(got, [g.rand(3).numpy() for _ in range(3)])


def test_use_key() -> None:
    g.manual_seed(1)
    state = g.get_rng_state().numpy()
    runs = []
    for _ in range(2):
        with g.use_key(KEY):
            runs.append([g.rand(2).numpy(), g.rand(2).numpy()])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])
    np.testing.assert_array_equal(g.get_rng_state().numpy(), state)
    with g.use_key(None), pytest.raises(g.NoKey, match="pass key="):
        g.rand(2)
    g.rand(2)


def test_threads_draw_different_numbers_and_share_no_override() -> None:
    drawn: list[tuple] = []

    def work() -> None:
        for _ in range(50):
            drawn.append(tuple(g.next_key().numpy().tolist()))

    with g.use_key(None):  # of this thread only
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(drawn) == 200 and len(set(drawn)) == 200


def test_a_small_program_never_imports_numba() -> None:
    code = "import sys, funcnn; funcnn.manual_seed(0); funcnn.randn(8, 8); funcnn.randperm(9); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: r.bits(np.zeros(2, np.int64), 3), ShapeError, "expected a key"),
        (lambda: r.bits(r.split(KEY, 3), 3), ShapeError, "use vmap"),
        (lambda: r.split(KEY, -1), ValueError, "must not be negative, got -1"),
        (lambda: r.bits(KEY, (2, -1)), ShapeError, "must not be negative"),
        (lambda: r.fold_in(KEY, 1.5), DTypeError, "data must be an integer"),
        (lambda: r.uniform(KEY, 2, np.int64), DTypeError, "floating-point dtype, got int64"),
        (lambda: r.uniform(KEY, 2, minval=1.0, maxval=0.0), ValueError, "low <= high"),
        (lambda: r.randint(KEY, 2, 3, 3), ValueError, "low < high"),
        (lambda: r.randint(KEY, 2, 0, 300, "uint8"), ValueError, "does not fit uint8"),
        (lambda: r.randint(KEY, 2, -(2**63), 2**63 - 1), ValueError, "wider than"),
        (lambda: r.randint(KEY, 2, 0, 2.5), DTypeError, "integer bounds"),
        (lambda: r.bernoulli(KEY, 1.5, 2), ValueError, "between 0 and 1, got 1.5"),
        (lambda: r.permutation(KEY, np.float32(3)), ShapeError, "tensor with rows"),
    ],
)
def test_refusals(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# ---- kernels beside NumPy ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("prim", [r.unit_p, r.normal_p])
def test_kernels_draw_what_numpy_draws(prim: Any, dtype: str) -> None:
    outs = h.by_each_way(prim, [r.split(KEY, 2).numpy()], shape=(3, 4001), dtype=np.dtype(dtype))
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(outs["kernel"], outs["numpy"], tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dropout_is_one_mask_for_any_implementation_and_batch(dtype: str) -> None:
    from funcnn.ops.elementwise.activation import dropout, dropout_p

    x = np.ones((2, launch.ELEMENTS_FOR_KERNEL), dtype)
    y = dropout(x[0], 0.3, key=KEY).numpy()
    few = h.by_each_way(dropout_p, [x[0], KEY.numpy()], p=0.3)["numpy"]
    np.testing.assert_array_equal(few[0], y)
    np.testing.assert_array_equal(
        y > 0, r.uniform(KEY, launch.ELEMENTS_FOR_KERNEL, "float32").numpy() > np.float32(0.3)
    )
    np.testing.assert_array_equal(vmap(lambda t: dropout(t, 0.3, key=KEY))(as_tensor(x)).numpy(), [y, y])
    keys = r.split(KEY, 2)
    each = vmap(lambda k: dropout(as_tensor(x[0]), 0.3, key=k))(keys).numpy()
    np.testing.assert_array_equal(each, [dropout(x[0], 0.3, key=keys[i]).numpy() for i in range(2)])


def test_dropout_refuses_what_is_no_key_and_integers() -> None:
    from funcnn.ops.elementwise.activation import dropout

    with pytest.raises(ShapeError, match="dropout: expected a key"):
        dropout(np.ones(3), key=as_tensor(np.zeros(2)))
    with pytest.raises(DTypeError, match="dropout: expected a floating-point input"):
        dropout(np.ones(3, np.int64), key=KEY)
