"""What goes by masks, by plans, against NumPy; outputs whose size depends on values hand out their front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcnn.kernels.cpu.indexing import mask_launch, masks
from funcnn.kernels.cpu.launching import Counting, Refused, ready
from funcnn.kernels.cpu.threads import number
from funcnn.kernels.implementation import operand_of

RNG = np.random.default_rng(0)
SHAPES = [(1,), (70,), (7, 9), (3, 4, 5), (2, 0, 3), (0,)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of several chunks for small arrays where kernels are Python; the work is never too small for two threads."""
    monkeypatch.setattr(number, "NANOSECONDS_FOR_THREADS", 0)


def run(ways: tuple, ins: list, bound: tuple[int, ...], dtype: Any, **params: Any) -> np.ndarray:
    """What the plan gives, the same for one and two threads."""
    operands, found, before = tuple(map(operand_of, ins)), [], number.get_num_threads()
    plan = ways[0].plan(operands, params)
    try:
        for threads in (1, 2):
            number.set_num_threads(threads)
            outs = [np.full(bound, 1).astype(dtype)]
            ready(plan, operands, tuple(map(operand_of, outs)))(ins, outs)
            found.append(outs[0])
    finally:
        number.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    return found[0]


def masks_of(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Random masks, some of them with gaps, and those that hold everywhere and nowhere."""
    some = RNG.random(shape) < 0.4
    return [some, np.repeat(some, 2, -1)[..., ::2], np.ones(shape, bool), np.zeros(shape, bool)]


@pytest.mark.parametrize("shape", SHAPES, ids=map(str, SHAPES))
def test_places_where_a_mask_holds(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    for x in masks_of(shape):
        expected = np.argwhere(x)
        np.testing.assert_array_equal(
            run(mask_launch.NONZERO, [x], (size, len(shape)), "int64", by_axis=False), expected
        )
        by_axis = run(mask_launch.NONZERO, [x], (len(shape), size), "int64", by_axis=True)
        np.testing.assert_array_equal(by_axis, expected.T)


def test_places_in_many_chunks() -> None:
    mask = RNG.random((3, masks.CHUNK_ELEMENTS)) < 0.1
    found = run(mask_launch.NONZERO, [mask], (mask.size, 2), "int64", by_axis=False)
    np.testing.assert_array_equal(found, np.argwhere(mask))
    assert (
        found.base is None or found.base.nbytes <= 4 * found.nbytes
    )  # what is handed out does not hold the bound's memory


def test_only_plans_with_a_front_count() -> None:
    operands = (operand_of(np.ones((2, 3), bool)),)
    plan = mask_launch.NONZERO[0].plan(operands, {"by_axis": True})
    assert plan is not None and type(ready(plan, operands, (operand_of(np.ones((2, 6), np.int64)),))) is Counting
    assert plan.outputs[0].front == 1


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "int64"])
@pytest.mark.parametrize("shape", [*SHAPES, (2, masks.CHUNK_ELEMENTS)], ids=str)
def test_elements_by_a_mask(shape: tuple[int, ...], dtype: str) -> None:
    for mask in masks_of(shape):
        x, count = RNG.integers(0, 2, shape).astype(dtype), int(mask.sum())
        source = RNG.integers(0, 2, count + 3).astype(dtype)
        expected = x.copy()
        expected[mask] = source[:count]
        np.testing.assert_array_equal(run(mask_launch.MASKED_PUT, [x, mask, source], shape, dtype), expected)
        for room in {count, count + 2, count // 2}:
            taken = np.zeros(room, dtype)
            taken[: min(room, count)] = x[mask][:room]
            np.testing.assert_array_equal(run(mask_launch.MASKED_TAKE, [x, mask], (room,), dtype, count=room), taken)


def test_too_few_elements_are_refused() -> None:
    x, mask, source = np.ones(6), np.array([True, False, True, True, False, False]), np.ones(2)
    for ways, shape in ((mask_launch.MASKED_PUT, (6,)), (mask_launch.LOOK_MASKED, None)):
        operands = tuple(map(operand_of, (x, mask, source)))
        outs = [] if shape is None else [np.empty(shape)]
        with pytest.raises(Refused) as refused:
            ready(ways[0].plan(operands, {}), operands, tuple(map(operand_of, outs)))([x, mask, source], outs)
        assert refused.value.words == (1, 1, 0, 3)
