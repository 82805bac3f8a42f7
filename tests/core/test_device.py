"""Devices: who computes where, what is refused, and that no rule touches the numbers of a value."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DeviceError
from funcnn.testing import engine
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests import helpers as h
from tests import second_device as second
from tests.cases import TABLE
from tests.cases.case import Case

MADE = ("tensor", "zeros", "ones", "full", "empty", "arange", "eye", "linspace", "logspace", "as_tensor")

# Rows that cannot be without numbers, with the reason.
NEED_NUMBERS = {
    "getitem_mask": "a mask selects as many elements as it holds",
    "masked_select": "a mask selects as many elements as it holds",
    "nonzero": "the size of the result depends on the numbers",
}
ON_THE_HOST = {
    "isclose": "the row adds an array of its own, which is on the host",
    "running_statistics": "the row has arrays of its own, which are on the host",
}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        second.install(made)
        yield made


@pytest.fixture
def remote(patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second device, and all that a row or a helper makes of data made there."""
    for module in (h, engine):
        monkeypatch.setattr(module, "boxes", second.boxes)
    monkeypatch.setattr(engine, "as_tensor", second.box)
    for name in MADE:
        monkeypatch.setattr(fn, name, partial(getattr(fn, name), device=second.NAME))
    second.touches.clear()


def types(result: Any) -> list[tuple]:
    return [(t._v.shape, t._v.dtype) for t in h.outputs(result)]


def on_device(result: Any) -> list[tuple]:
    assert {t.device for t in h.outputs(result)} <= {second.NAME}
    return types(result)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
@pytest.mark.filterwarnings("ignore")
def test_no_rule_touches_memory(row: Case, remote: None) -> None:
    arrays = h.inputs(row)
    if row.id in NEED_NUMBERS or row.id in ON_THE_HOST:
        words = (
            "numbers are not on the host"
            if row.id in NEED_NUMBERS
            else "expected operands on one device, got 'fake' and 'cpu'"
        )
        with pytest.raises(DeviceError, match=words):
            row.fn(*second.boxes(arrays))
        assert not second.touches
        return
    on_device(row.fn(*second.boxes(arrays)))
    if row.vmap and arrays:
        on_device(vmap(row.fn)(*second.boxes([np.stack([array, array]) for array in arrays])))
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        weights = h.cotangents(f, floats)
        pulled = vjp(f, *second.boxes(floats))[1](tuple(second.boxes(weights)))
        assert on_device(pulled) == [(x.shape, x.dtype) for x in floats]
        if row.second:
            scalar, at = h.second_order(f, floats)
            pulled = vjp(scalar, *second.boxes(at))[1](second.box(np.ones(())))
            assert on_device(pulled) == [(x.shape, x.dtype) for x in at]
    assert not second.touches
