"""Every launch plan that the table of cases uses is printed, read back and run on copies elsewhere, with the same bits.

The plans are those of values and gradients, by every implementation that applies. While a launch runs, NumPy gives out no
memory and our allocator is closed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from funcnn import plans
from funcnn.core import primitive
from funcnn.kernels import plan_text
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.launching import Refused, ready
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import LaunchPlan
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case
from tests.plain import compiled_only, surrounded

ROOT = Path(__file__).parents[1]
MEMORY = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)


@contextlib.contextmanager
def evaluated(found: list[tuple]) -> Iterator[None]:
    """Notes (primitive, copies of the inputs, parameters, copies of the outputs) of every evaluation inside."""

    def around(prim: Any, values: list, params: dict, where: Any) -> list:
        ins = [np.array(value, order="C") for value in values]
        outs = primitive.evaluate(prim, values, params, where, True)
        found.append((prim, ins, params, [np.array(out) for out in outs]))
        return outs

    primitive.around[id(found)] = around
    try:
        yield
    finally:
        primitive.around.pop(id(found))


def evaluations(row: Case) -> list[tuple]:
    """Those of a row's values and gradients."""
    found: list[tuple] = []
    arrays = h.inputs(row)
    with evaluated(found):
        row.fn(*h.boxes(arrays))
        if row.grad:
            f, floats = h.differentiable(row, arrays)
            h.pulled(f, floats, h.cotangents(f, floats))
    return found


def same_bits(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two arrays hold the same numbers, NaN included."""
    return (
        one.dtype == two.dtype
        and one.shape == two.shape
        and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(two).tobytes()
    )


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
@pytest.mark.filterwarnings("ignore")
def test_plans_are_read_back_and_run_elsewhere(row: Case) -> None:
    for prim, ins, params, outs in evaluations(row):
        operands = tuple(map(operand_of, ins))
        for way in prim.on.get("cpu", ()):
            plan = way.plan(operands, params)
            if not isinstance(plan, LaunchPlan):
                continue
            again = plan_text.read(plan_text.text(plan))
            assert again == plan, f"{row.id}: the plan {way.name} of {prim.name} does not read back"
            runs = []
            for one in (plan, again):
                bounds = prim.shape(*operands, **params)
                results = [np.full(out.shape, 7).astype(out.dtype) for out in bounds]
                with contextlib.suppress(Refused):
                    ready(one, operands, tuple(map(operand_of, results)))([x.copy() for x in ins], results)
                runs.append(results)
            assert all(map(same_bits, *runs)), f"{row.id}: {prim.name} by {way.name} gives other bits elsewhere"


def printed(rows: list[Case]) -> str:
    """A line for each plan of the rows' evaluations: which one, and the digest of its text."""
    lines = []
    for row in rows:
        for prim, ins, params, _ in evaluations(row):
            operands = tuple(map(operand_of, ins))
            plans = [(way.name, way.plan(operands, params)) for way in prim.on.get("cpu", ())]
            texts = [(name, plan_text.text(plan)) for name, plan in plans if isinstance(plan, LaunchPlan)]
            lines += [f"{row.id} {prim.name} {name} {crc32(text.encode()):08x}" for name, text in texts]
    return "\n".join(lines)


@compiled_only
def test_two_processes_print_equal_plans() -> None:
    program = "from tests import test_plans as t; print(t.printed(t.TABLE[::5]))"
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(seed)}, cwd=ROOT,
        ) for seed in (1, 2)
    ]  # fmt: skip
    one, two = (run.communicate()[0].splitlines() for run in runs)
    assert one == two and len(one) > 300 and all(run.returncode == 0 for run in runs)


@compiled_only
def test_no_memory_is_given_out_while_a_launch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    running, seen = [False], set()
    take = memory.empty

    def empty(shape: Any, dtype: Any) -> np.ndarray:
        assert not running[0], "the allocator is asked while a launch runs"
        return take(shape, dtype)

    def around(kernel: Any, args: tuple) -> Any:
        if kernel in seen or kernel.compiled is None:
            return kernel.compiled(*args)
        kernel.compiled(*args)  # whatever the dispatcher makes at its first call
        seen.add(kernel)
        tracemalloc.start()
        running[0] = True
        try:
            before = len(tracemalloc.take_snapshot().filter_traces([MEMORY]).traces)
            result = kernel.compiled(*args)
            after = len(tracemalloc.take_snapshot().filter_traces([MEMORY]).traces)
        finally:
            running[0] = False
            tracemalloc.stop()
        assert after == before, f"{kernel.__name__} got memory of NumPy's"
        return result

    monkeypatch.setattr(memory, "empty", empty)
    with surrounded(around):
        for row in TABLE:
            with contextlib.suppress(ValueError, IndexError, ZeroDivisionError, RuntimeError):
                evaluations(row)
    assert len(seen) > 50


def test_every_host_implementation_of_ours_says_why_it_is_one() -> None:
    reasons = {f"{prim.name} {way.name}": way.reason for prim, _, way in plans.implementations(host=True)}
    assert len(reasons) > 100 and not [name for name, reason in reasons.items() if reason == primitive.ON_ARRAYS]
