"""Every row of the table of cases through every implementation that applies to it, forced by ``prefer``.

Values in both precisions, gradients to second order, batching, jit, memory layouts and dirty memory have to be what the
implementations give that are chosen by themselves.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.primitive import Primitive
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case

RTOL = {"float32": 2e-5, "float64": 1e-10}


def exercised(row: Case) -> set[Primitive]:
    """The primitives of a row and of its gradients."""
    with h.witnessed() as seen, contextlib.suppress(Exception):  # a row that fails is reported by tests/test_cases.py
        arrays = h.inputs(row)
        row.fn(*h.boxes(arrays))
        if row.grad and row.second:
            scalar, at = h.second_order(*h.differentiable(row, arrays))
            vjp(scalar, *h.boxes(at))[1](h.boxes([np.ones(())])[0])
    return seen


def forced() -> list[Any]:
    """A parameter for each row and each name of an implementation of its primitives that have several."""
    pairs = []
    for row in TABLE:
        several = [prim.on["cpu"] for prim in exercised(row) if len(prim.on.get("cpu", ())) > 1]
        pairs += [
            pytest.param(row, name, id=f"{row.id}-{name}")
            for name in sorted({w.name for ways in several for w in ways})
        ]
    return pairs


def results(row: Case) -> list[tuple[str, list[np.ndarray]]]:
    """What a row gives, by the check."""
    found = [(dtype, h.numbers(row.fn(*h.boxes(h.inputs(row, dtype))))) for dtype in RTOL if dtype in row.dtypes]
    arrays = h.inputs(row)
    found.append(("float64", h.numbers(row.fn(*h.boxes(arrays)))))
    for variants in zip(*[list(h.layouts(array)) for array in arrays], strict=False):
        found.append(("layout", h.numbers(row.fn(*h.boxes(variants)))))
    if row.jit:
        found.append(("jit", h.numbers(fn.jit(row.fn)(*h.boxes(arrays)))))
    if row.vmap and arrays:
        found.append(("vmap", h.numbers(vmap(row.fn)(*h.boxes([np.stack([array, array]) for array in arrays])))))
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        found.append(("gradient", h.pulled(f, floats, h.cotangents(f, floats))))
        if row.second:
            scalar, at = h.second_order(f, floats)
            found.append(("second", h.numbers(vjp(scalar, *h.boxes(at))[1](h.boxes([np.ones(())])[0]))))
    return found


@pytest.mark.parametrize(("row", "name"), forced())
@pytest.mark.filterwarnings("ignore")
def test_a_forced_implementation_gives_the_same(row: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results(row)
    h.dirty_memory(monkeypatch)
    try:
        with fn.prefer(name):
            got = results(row)
    except ValueError as error:
        if f"prefer: {name!r} applied nowhere inside" not in str(error):
            raise
        pytest.skip(f"{name} applies to none of the row's shapes")
    for (what, one), (_, two) in zip(got, expected, strict=True):
        tolerance = max([RTOL.get(out.dtype.name, 0) for out in two] + [1e-9] * (what in ("gradient", "second")))
        h.close(one, two, f"{row.id} by {name}, {what}", tolerance, tolerance)
