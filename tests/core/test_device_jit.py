"""Functions of tensors on another device are traced and compiled; only a runtime for it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.compiler.ir import Program
from funcnn.core.errors import DeviceError
from funcnn.testing import engine
from funcnn.transforms.grad import vjp
from tests import helpers as h
from tests import second_device as second
from tests.cases import TABLE
from tests.cases.case import Case
from tests.core.test_device import MADE, NEED_NUMBERS, ON_THE_HOST


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        second.install(made)
        made.setattr(engine, "as_tensor", second.box)
        for name in MADE:
            made.setattr(
                fn, name, lambda *args, _make=getattr(fn, name), **how: _make(*args, **{"device": second.NAME, **how})
            )
        yield made


def compiled(f: Any, *boxes: Any) -> Program:
    """The program for these arguments, whose numbers nobody has looked at."""
    second.touches.clear()
    step = fn.jit(f)
    step.program(*boxes)
    assert not second.touches
    return next(iter(step.steps.values()))[0].program


ROWS = [row for row in TABLE if row.jit and row.id not in {**NEED_NUMBERS, **ON_THE_HOST} and h.inputs(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
@pytest.mark.filterwarnings("ignore")
def test_every_row_compiles_on_the_device(row: Case, patch: pytest.MonkeyPatch) -> None:
    arrays = h.inputs(row)
    runs = [(row.fn, arrays)]
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        runs.append((lambda *xs: vjp(f, *xs)[1](f(*xs)), floats))
    for run, given in runs:
        program = compiled(run, *second.boxes(given))
        made = [*program.inputs, *(out for eq in program.equations for out in eq.outs)]
        assert {var.device for var in made} <= {second.NAME}


def test_memory_on_the_device_is_told_apart(patch: pytest.MonkeyPatch) -> None:
    x = second.box(np.ones((3, 4)))

    def step(row: Any, whole: Any) -> Any:
        row.mul_(2.0)
        return whole.sum()

    assert "memory_view" in fn.jit(step).program(x[1], x), "the row lies in the whole"
    assert "memory_view" not in fn.jit(step).program(second.box(np.ones(4)), x)
    here = fn.tensor(np.ones((3, 4)), device="cpu")
    again = fn.jit(lambda t: t * 2)
    assert "on fake" in again.program(x) and "on fake" not in again.program(here)


def test_a_run_is_refused_by_name(patch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="jit: a program with values on 'fake' cannot be run here, only on 'cpu'"):
        fn.jit(lambda t: t * 2)(second.box(np.ones(3)))
