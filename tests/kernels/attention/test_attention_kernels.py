"""The attention kernels against whole matrices of scores, over the edges of their blocks, and the same bits for any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu import launching
from funcnn.kernels.cpu.attention import launch
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.philox import words_python
from tests import helpers as h
from tests.plain import compiled_only

# query heads, key heads, queries, keys, e, d, causal, dropout, shape of the mask
ROWS: list[tuple] = [
    (2, 2, 5, 7, 3, 4, False, 0.0, None), (2, 1, 50, 200, 5, 9, False, 0.0, None), (1, 1, 97, 193, 3, 2, True, 0.0, None),
    (1, 1, 50, 97, 9, 17, False, 0.0, (50, 97)), (4, 2, 6, 5, 4, 4, False, 0.3, None), (2, 2, 9, 101, 5, 3, True, 0.5, (2, 1, 101)),
    (1, 1, 1, 300, 3, 3, False, 0.0, (1, 1)), (1, 1, 100, 3, 2, 2, True, 0.0, (100, 1)), (1, 1, 4, 4, 1, 1, False, 1.0, None),
]  # fmt: skip
DTYPES = [("float32", 2e-5), ("float64", 1e-12)]
KEY = np.array([3, 14], np.uint32)


@pytest.fixture(autouse=True)
def garbage_in_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel reads of its scratch it has written before."""
    h.dirty_scratch(monkeypatch)


def _keep(heads: int, queries: int, keys: int, dropout: float) -> np.ndarray:
    wide = -(-keys // 4) * 4
    words = np.array(words_python(3, 14, 0, heads * queries * wide), np.uint32).reshape(heads, queries, wide)
    uniform = (words >> 8).astype(np.float32) * np.float32(2.0**-24)
    return (uniform > np.float32(dropout))[..., :keys] * (1 / (1 - dropout) if dropout < 1 else 0.0)


def _oracle(q: Any, k: Any, v: Any, g: Any, mask: Any, causal: bool, scale: float, dropout: float) -> list:
    group = q.shape[0] // k.shape[0]
    q, k, v, g = (a.astype(np.float64) for a in (q, np.repeat(k, group, 0), np.repeat(v, group, 0), g))
    s = scale * q @ k.swapaxes(1, 2) + (0.0 if mask is None else mask)
    s = np.where(np.tri(*s.shape[1:], dtype=bool), s, -np.inf) if causal else s
    p = np.exp(s - s.max(-1, keepdims=True))
    total = p.sum(-1, keepdims=True)
    lse, p = (s.max(-1, keepdims=True) + np.log(total))[..., 0], p / total
    keep = _keep(*s.shape, dropout) if dropout else np.ones_like(s)
    dp = keep * (g @ v.swapaxes(1, 2))
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    by_head = [scale * ds.swapaxes(1, 2) @ q, (p * keep).swapaxes(1, 2) @ g]
    summed = [a.reshape(-1, group, *a.shape[1:]).sum(1) for a in by_head]
    return [(p * keep) @ v, lse, scale * ds @ k, *summed]


def _inputs(row: tuple, dtype: str) -> tuple[list, list, dict]:
    heads, keyed, queries, keys, e, d, causal, dropout, shape = row
    rng = np.random.default_rng(0)
    q, k, v, g = (
        rng.normal(size=s).astype(dtype)
        for s in ((heads, queries, e), (keyed, keys, e), (keyed, keys, d), (heads, queries, d))
    )
    rest = [] if shape is None else [rng.normal(size=shape).astype(dtype)]
    params = {"masked": shape is not None, "causal": causal, "scale": 0.7, "dropout": dropout}
    return [q, k, v, g], rest + ([KEY] if dropout else []), params


def _launch(ways: tuple, ins: list, outs: list, params: dict, apart: int = 0) -> None:
    """Fill the outputs by the only implementation."""
    operands, results = (tuple(map(operand_of, arrays)) for arrays in (ins, outs))
    plan = ways[0].plan(operands, {**params, "apart": apart})
    with np.errstate(all="ignore"):  # without a compiler, numbers beyond the edges of a tile warn
        launching.Runner(plan, operands, results)(ins, outs)


def _both(q: Any, k: Any, v: Any, g: Any, rest: list, params: dict, apart: int = 0) -> list:
    """o, lse, dq, dk, dv."""
    o, lse, *grads = (np.full(s, np.nan, q.dtype) for s in (g.shape, q.shape[:-1], q.shape, k.shape, v.shape))
    _launch(launch.attention, [q, k, v, *rest], [o, lse], params, apart)
    _launch(launch.attention_grad, [g, q, k, v, o, lse, *rest], grads, params, apart)
    return [o, lse, *grads]


def _run(row: tuple, dtype: str) -> list:
    arrays, rest, params = _inputs(row, dtype)
    return _both(*arrays, rest, params)


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_like_whole_scores(row: tuple, dtype: str, tolerance: float) -> None:
    (q, k, v, g), rest, params = _inputs(row, dtype)
    masked, *other = params.values()
    wanted = _oracle(q, k, v, g, rest[0] if masked else None, *other)
    for name, mine, oracle in zip(("o", "lse", "dq", "dk", "dv"), _run(row, dtype), wanted, strict=True):
        np.testing.assert_allclose(mine, oracle, rtol=tolerance, atol=tolerance, err_msg=name)


@compiled_only
@pytest.mark.parametrize("row", ROWS[1:], ids=str)
@pytest.mark.parametrize("split", [False, True])
def test_the_same_bits_for_one_and_two_threads(row: tuple, split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PRODUCTS_FOR_SPLITTING", 0 if split else 1 << 40)
    found = []
    for count in (1, 2):
        h.on_workers(monkeypatch, count)
        found.append([a.tobytes() for a in _run(row, "float32")])
    assert found[0] == found[1]


@pytest.mark.parametrize("row", ROWS[:5], ids=str)
def test_keys_split_among_chunks(row: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PRODUCTS_FOR_SPLITTING", 1 << 40)
    whole = _run(row, "float64")
    monkeypatch.setattr(launch, "PRODUCTS_FOR_SPLITTING", 0)
    for mine, one in zip(_run(row, "float64"), whole, strict=True):
        np.testing.assert_allclose(mine, one, rtol=1e-12, atol=1e-12)


def test_infinite_and_missing_numbers_propagate() -> None:
    (q, k, v, _), _, params = _inputs(ROWS[0], "float32")
    q[0, 1, 0], v[1, 2, 3] = np.nan, np.inf
    o, lse = np.empty((2, 5, 4), np.float32), np.empty((2, 5), np.float32)
    _launch(launch.attention, [q, k, v], [o, lse], params)
    assert np.isnan(o[0, 1]).all() and np.isfinite(np.delete(o[0], 1, 0)).all()
    assert np.isposinf(o[1, :, 3]).all() and np.isfinite(o[1, :, :3]).all()


def test_no_keys_and_no_queries() -> None:
    for shapes in (((1, 3, 2), (1, 0, 2)), ((1, 0, 2), (1, 3, 2)), ((0, 3, 2), (0, 3, 2))):
        q, k = (np.ones(s, np.float32) for s in shapes)
        params = {"masked": False, "causal": False, "scale": 1.0, "dropout": 0.0}
        o, lse, *grads = _both(q, k, k, q, [], params)
        assert not o.any() and not any(g.any() for g in grads)
        assert np.isposinf(lse).all()


@pytest.mark.parametrize("shape", [None, (3, 1, 1, 7), (2, 5, 7), (5, 1)], ids=str)
@pytest.mark.parametrize("split", [False, True])
def test_examples_that_draw_alone(shape: tuple | None, split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one launch give what each gives by itself: the same weights are dropped, the same bits come out."""
    monkeypatch.setattr(launch, "PRODUCTS_FOR_SPLITTING", 0 if split else 1 << 40)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in ((3, 2, 5, 4), (3, 1, 7, 4), (3, 1, 7, 3), (3, 2, 5, 3))]
    mask = [] if shape is None else [rng.normal(size=shape).astype(np.float32)]
    keys = rng.integers(0, 1 << 30, (3, 2), np.uint32)
    params = {"masked": shape is not None, "causal": False, "scale": 0.7, "dropout": 0.4}
    whole = _both(*arrays, [*mask, keys], params, 1)
    for i in range(3):
        own = [m[i] if m.ndim == 4 else m for m in mask]
        alone = _both(*[a[i] for a in arrays], [*own, keys[i]], params)
        assert [a[i].tobytes() for a in whole] == [a.tobytes() for a in alone]
