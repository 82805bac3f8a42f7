"""Every kernel gives the same bits on one thread and on two: chunks are cut by shape, and no sum depends on who adds it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.compile import call_around
from funcnn.warmup.programs import DTYPES, PROGRAMS

pytestmark = [
    pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="plain Python runs on one thread"),
    pytest.mark.skipif(threads.available() < 2, reason="needs two CPUs"),
]


@pytest.fixture(autouse=True)
def never_too_small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """However small the work, kernels run on as many threads as they are allowed."""
    monkeypatch.setattr(threads, "WORTHWHILE", 0)
    monkeypatch.setattr(threads, "_chosen", 0)


def _recorded(program: Callable, dtype: str, count: int) -> tuple[list[np.ndarray], dict[str, set]]:
    """What a program gives on ``count`` threads, and the ``threads`` argument of each kernel that has one."""
    seen = defaultdict(set)

    def around(kernel: Any, args: tuple) -> Any:
        named = dict(zip(signature(kernel.function).parameters, args, strict=True))
        if "threads" in named:
            seen[kernel.__name__].add(named["threads"])
        return kernel.call(*args)

    fn.set_num_threads(count)
    fn.manual_seed(0)
    before = call_around(around)
    try:
        return [np.array(a) for a in program(dtype)], seen
    finally:
        call_around(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_one_thread_and_two_give_the_same_bits(name: str, dtype: str) -> None:
    one, alone = _recorded(PROGRAMS[name], dtype, 1)
    two, shared = _recorded(PROGRAMS[name], dtype, 2)
    print(name, dtype, {k: v for k, v in shared.items() if 2 not in v})
    assert all(used == {1} for used in alone.values()) and alone.keys() == shared.keys()
    assert len(one) == len(two) > 0
    for place, (mine, other) in enumerate(zip(one, two, strict=True)):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        assert mine.tobytes() == other.tobytes(), f"result {place} differs by up to {abs(mine - other).max()}"
