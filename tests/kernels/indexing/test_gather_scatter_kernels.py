"""Gathering and scattering by plans against NumPy: layouts, dtypes, chunks of every kind, on one and on two threads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu.indexing import launch, moves, problem
from funcnn.kernels.cpu.launching import Refused, Runner
from funcnn.kernels.cpu.threads import number
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import LaunchPlan

RNG = np.random.default_rng(0)
DTYPES = ["bool", "uint8", "int16", "float16", "int32", "float32", "int64", "float64"]


@pytest.fixture(params=["whole", "cut"], autouse=True)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks as they are, or so small that these arrays have many of each kind."""
    monkeypatch.setattr(number, "NANOSECONDS_FOR_THREADS", 0)
    if request.param == "cut":
        monkeypatch.setattr(problem, "CHUNK_BYTES", 48)
        monkeypatch.setattr(problem, "RANGE_BYTES", 64)
        monkeypatch.setattr(problem, "INDEX_NS", 0.0001)


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random small integers in a dtype."""
    return RNG.integers(0, 2 if dtype == "bool" else 7, shape).astype(dtype)


def layouts(x: np.ndarray) -> Iterator[np.ndarray]:
    """The array contiguous, transposed, with gaps, and repeated along its first and along all axes."""
    yield x
    yield np.ascontiguousarray(x.T).T
    yield np.repeat(x, 2, -1)[..., ::2]
    yield np.broadcast_to(x[:1], x.shape)
    yield np.broadcast_to(x[(slice(0, 1),) * x.ndim], x.shape)


def runs(plan: LaunchPlan | None, ins: list, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What a plan gives, the same for one and two threads."""
    assert plan is not None
    found, before = [], number.get_num_threads()
    try:
        for threads in (1, 2):
            number.set_num_threads(threads)
            out = np.full(shape, 1).astype(dtype)
            Runner(plan, tuple(map(operand_of, ins)), (operand_of(out),))(ins, [out])
            found.append(out)
    finally:
        number.set_num_threads(before)
    assert found[0].tobytes() == found[1].tobytes()
    return found[0]


def planned(make: Any, ins: list, **params: Any) -> LaunchPlan | None:
    """The plan for these arrays."""
    return make(tuple(map(operand_of, ins)), params)


def along(x: np.ndarray, index: np.ndarray, dim: int) -> Iterator[tuple[tuple, tuple]]:
    """Each point of the index, and the place in x that it names."""
    for at in np.ndindex(index.shape):
        yield at, (*at[:dim], index[at], *at[dim + 1 :])


ALONG = [((5,), (9,), 0), ((4, 3), (7, 3), 0), ((4, 3), (4, 6), 1), ((4, 3), (2, 2), 0), ((3, 4, 5), (3, 9, 5), 1),
         ((3, 4, 5), (2, 3, 4), 1), ((3, 4, 9), (6, 4, 9), 0), ((2, 3, 40), (2, 2, 40), 1), ((20, 4), (20, 1), 1),
         ((3, 4, 5, 6), (3, 4, 7, 6), 2), ((1, 1), (1, 3), 1)]  # fmt: skip


@pytest.mark.parametrize("case", ALONG, ids=map(str, ALONG))
def test_along_an_axis(case: tuple) -> None:
    shape, picked, dim = case
    whole, values = numbers(shape, "float32"), numbers(picked, "float32")
    picks = RNG.integers(0, shape[dim], picked)
    for x, index, y in [*zip(layouts(whole), layouts(picks), layouts(values), strict=True), (whole, picks, values)]:
        taken, put, added, product_ = np.empty(picked, "f"), x.copy(), x.copy(), x.copy()
        for at, place in along(x, index, dim):
            taken[at] = x[place]
            put[place] = y[at]
            added[place] += y[at]
            product_[place] *= y[at]
        np.testing.assert_array_equal(
            runs(planned(launch._gather, [x, index], dim=dim), [x, index], picked, "f"), taken
        )
        ins = [x, index, y]
        for mode, expected in (("set", put), ("add", added), ("multiply", product_)):
            got = runs(planned(launch._scatter, ins, dim=dim, mode=mode), ins, shape, "f")
            np.testing.assert_array_equal(got, expected, mode)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    x, y = numbers((6, 20), dtype), numbers((9, 20), dtype)
    index = RNG.integers(0, 6, (9, 20))
    for picks, ins in ((index, [x, index]), (np.broadcast_to(index[:, :1], index.shape), None)):
        ins = [x, picks] if ins is None else ins
        expected = np.take_along_axis(x, picks, 0)
        np.testing.assert_array_equal(runs(planned(launch._gather, ins, dim=0), ins, picks.shape, dtype), expected)
        put = [x, picks, y]
        for mode, ufunc in (("set", None), ("add", np.add), ("multiply", np.multiply)):
            plan = planned(launch._scatter, put, dim=0, mode=mode)
            if dtype == "float16" and ufunc is not None:
                assert plan is None
                continue
            wanted = x.copy()
            for at, place in along(x, picks, 0):
                wanted[place] = y[at] if ufunc is None else ufunc(wanted[place], y[at])
            np.testing.assert_array_equal(runs(plan, put, x.shape, dtype), wanted, mode)


LEADING = [((6,), ((8,),)), ((6, 3), ((8,),)), ((6, 12), ((2, 4),)), ((5, 4, 3), ((7,), (7,))), ((5, 4, 3), ((2, 3),) * 3),
           ((4, 3, 2, 9), ((2, 3), (2, 3))), ((5, 4), ((),)), ((5, 4), ((), ()))]  # fmt: skip


@pytest.mark.parametrize("case", LEADING, ids=map(str, LEADING))
def test_on_leading_axes(case: tuple) -> None:
    shape, picks = case
    whole = numbers(shape, "float32")
    chosen = [RNG.integers(-size, size, picked) for size, picked in zip(shape, picks, strict=False)]
    variants = [chosen, [np.asfortranarray(c) for c in chosen]]
    if picks[0]:
        variants.append([np.broadcast_to(c[:1], c.shape) for c in chosen])
        variants.append([np.broadcast_to(c[..., :1], c.shape) for c in chosen])
    for x, indices in product(layouts(whole), variants):
        out = x[tuple(indices)].shape
        got = runs(planned(launch._index, [x, *indices]), [x, *indices], out, "f")
        np.testing.assert_array_equal(got, x[tuple(indices)])
        values = numbers(out, "float32")
        for y in (values, *(layouts(values) if values.ndim else ())):
            for accumulate in (False, True):
                wanted = x.copy()
                for at in np.ndindex(indices[0].shape):
                    place = tuple([index[at] for index in indices])
                    wanted[place] = wanted[place] + y[at] if accumulate else y[at]
                ins = [x, y, *indices]
                got = runs(planned(launch._index_put, ins, accumulate=accumulate), ins, shape, "f")
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "width", "count"), [(5, 3, 11), (1, 1, 1), (40, 17, 300), (6, 2, 0), (0, 2, 0), (3, 0, 4)]
)
def test_rows_of_a_table(rows: int, width: int, count: int, dtype: str) -> None:
    table, dy = RNG.normal(size=(rows, width)).astype(dtype), RNG.normal(size=(count, width)).astype(dtype)
    index = RNG.integers(-1, max(rows, 1), count)
    kept = index >= 0
    sums = np.zeros((rows, width))
    np.add.at(sums, index[kept], dy[kept])
    plan = planned(launch.ROWS[0].plan, [table, index], least=-1)
    expected = np.where(kept[:, None], table[index], 0) if rows else np.zeros((count, width))
    np.testing.assert_array_equal(runs(plan, [table, index], (count, width), dtype), expected)
    back = planned(launch.ROWS_GRAD[0].plan, [dy, index], rows=rows)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(runs(back, [dy, index], (rows, width), dtype), sums, tolerance, 1e-5)


def test_the_last_of_one_place_stays() -> None:
    x, index = np.array([[1.0, 2.0, 3.0]]), np.array([[2, 0, 2]])
    plan = moves.put_rows(operand_of(x), operand_of(index), 1, (4, 0, 0), 1, "set")
    assert runs(plan, [x, index], (1, 4), "float64").tolist() == [[2.0, 0.0, 3.0, 0.0]]


def refused(make: Any, ins: list, shape: tuple[int, ...], **params: Any) -> set[tuple]:
    """The status words for one and two threads."""
    found, before = set(), number.get_num_threads()
    try:
        for threads in (1, 2):
            number.set_num_threads(threads)
            with pytest.raises(Refused) as caught:
                runs(planned(make, ins, **params), ins, shape, ins[0].dtype)
            found.add(caught.value.words)
    finally:
        number.set_num_threads(before)
    return found


def test_the_first_index_outside_is_told() -> None:
    x, index = numbers((4, 30), "float32"), np.zeros((9, 30), np.int64)
    index[5, 3], index[8, 0], index[5, 20] = -1, 7, 4
    expected = {(1, 1, 5 * 30 + 3, -1)}
    assert refused(launch._gather, [x, index], index.shape, dim=0) == expected
    y = numbers(index.shape, "float32")
    assert refused(launch._scatter, [x, index, y], x.shape, dim=0, mode="add") == expected
    wide = np.broadcast_to(index[:, :1], index.shape)
    assert refused(launch._gather, [x, wide], index.shape, dim=0) == {(1, 1, 8 * 30, 7)}
    across = np.broadcast_to(index[5], (9, 30))
    assert refused(launch._scatter, [x, across, y], x.shape, dim=0, mode="set") == {(1, 1, 3, -1)}


def test_the_first_index_outside_of_several_is_told() -> None:
    x = numbers((4, 5, 3), "float32")
    good, bad, worse = np.array([0, -4, 3]), np.array([4, 5, -6]), np.array([9, 9, 9])
    assert refused(launch._index, [x, good, bad], (3, 3)) == {(1, 2, 1, 5)}
    assert refused(launch._index, [x, worse, bad], (3, 3)) == {(1, 1, 0, 9)}
    assert refused(launch._index_put, [x, numbers((3, 3), "float32"), good, bad], x.shape, accumulate=True) == {
        (1, 3, 1, 5)
    }


def test_an_index_of_nothing_is_looked_at() -> None:
    empty, index = np.zeros((3, 0), np.float32), np.array([0, 2, 3])
    assert refused(launch._index, [empty, index], (3, 0)) == {(1, 1, 2, 3)}
    assert refused(launch._index_put, [empty, empty, index], (3, 0), accumulate=False) == {(1, 2, 2, 3)}
    bad, good = np.array([1, 9]), np.array([0, 0])
    both = np.zeros((3, 2, 0), np.float32)
    assert refused(launch._index, [both, bad, good], (2, 0)) == {(1, 1, 1, 9)}
    none = np.zeros((0, 3), np.float32)
    assert refused(launch._gather, [none, np.zeros((2, 3), np.int64)], (2, 3), dim=0) == {(1, 1, 0, 0)}
    picked = np.zeros((0, 3), np.int64)
    assert runs(planned(launch._gather, [none, picked], dim=0), [none, picked], (0, 3), "f").shape == (0, 3)
    x = numbers((2, 3), "float32")
    ins = [x, picked, none]
    np.testing.assert_array_equal(runs(planned(launch._scatter, ins, dim=0, mode="add"), ins, (2, 3), "f"), x)
