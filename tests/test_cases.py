"""Every row of the table of cases through every check: values, gradients to second order, batching, jit, memory."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from funcnn.ops.elementwise.arithmetic import add
from funcnn.testing import checks, engine
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case


def rows(*flags: str) -> Any:
    """Parametrize over the rows for which all these flags hold."""
    chosen = [row for row in TABLE if all(getattr(row, flag) for flag in flags)]
    return pytest.mark.parametrize("row", chosen, ids=[row.id for row in chosen])


def tolerance(row: Case, dtype: str) -> tuple[float, float]:
    """rtol and atol of a row's values."""
    rtol = (row.rtol or {}).get(dtype, 1e-5 if dtype == "float32" else 1e-12)
    return rtol, rtol


def test_row_names_are_distinct() -> None:
    names = [row.id for row in TABLE]
    assert len(set(names)) == len(names), sorted({name for name in names if names.count(name) > 1})
    assert all(row.numpy or row.torch for row in TABLE), "a row needs an oracle"


# ---- values ---------------------------------------------------------------------------------------------------------
@rows()
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_value_against_numpy(row: Case) -> None:
    if row.numpy is None:
        return
    for dtype in row.dtypes:
        arrays = h.inputs(row, dtype)
        got = h.numbers(row.fn(*h.boxes(arrays)))
        expected = row.numpy(*[a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays])
        expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
        h.close(got, expected, f"{row.id} in {dtype}", *tolerance(row, dtype))
        mixed = any(a.dtype.kind == "f" for a in arrays)
        for out, ref in zip(got, expected, strict=True):
            assert out.dtype.kind == np.asarray(ref).dtype.kind, f"{row.id}: {out.dtype}, NumPy {np.asarray(ref).dtype}"
            if mixed and out.dtype.kind == "f":
                assert out.dtype == dtype, f"{row.id}: a result of {out.dtype} from {dtype}"


@rows()
@pytest.mark.filterwarnings("ignore")
def test_value_against_torch(row: Case) -> None:
    torch = pytest.importorskip("torch")
    if row.torch is None:
        return
    for dtype in row.dtypes:
        arrays = h.inputs(row, dtype)
        got = h.numbers(row.fn(*h.boxes(arrays)))
        theirs = row.torch(*[torch.from_numpy(np.array(a)) for a in arrays])
        theirs = [theirs] if isinstance(theirs, torch.Tensor) else list(theirs)
        h.close(got, [t.detach().numpy() for t in theirs], f"{row.id} in {dtype}", *tolerance(row, dtype))
        for out, ref in zip(got, theirs, strict=True):
            assert str(ref.dtype) == f"torch.{out.dtype}", f"{row.id} in {dtype}: {out.dtype}, torch gives {ref.dtype}"


@rows()
def test_outputs_are_filled_completely(row: Case) -> None:
    checks.filled_completely(row.fn, h.inputs(row), row.id, row.grad)


def test_dirty_memory_is_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(engine, "dirty", lambda shape, dtype: seen.append(shape) or np.empty(shape, dtype))
    with engine.in_dirty_memory():
        add(*h.boxes([np.ones((2, 3)), np.ones((2, 3))]))
    add(*h.boxes([np.ones((2, 3)), np.ones((2, 3))]))
    assert seen == [(2, 3)]


@rows()
def test_any_memory_layout(row: Case) -> None:
    checks.any_layout(row.fn, h.inputs(row), row.id, row.grad)


# ---- gradients ------------------------------------------------------------------------------------------------------
@rows("grad")
def test_gradient(row: Case) -> None:
    checks.gradient(row.fn, h.inputs(row), row.id)


@rows("grad")
def test_gradient_keeps_float32(row: Case) -> None:
    if "float32" in row.dtypes:
        checks.gradient_keeps_float32(row.fn, h.inputs(row, "float32"), row.id)


@rows("grad")
def test_second_order(row: Case) -> None:
    checks.second_order(row.fn, h.inputs(row), row.id, row.second)  # else it must refuse, never be wrong


@rows("grad")
def test_backward_is_vjp(row: Case) -> None:
    checks.backward_is_vjp(row.fn, h.inputs(row), row.id)


# ---- batching -------------------------------------------------------------------------------------------------------
@rows("vmap")
def test_vmap_against_a_loop(row: Case) -> None:
    checks.vmap_is_a_loop(row.fn, h.stacked(row, checks.BATCH), row.id)


@rows("vmap")
def test_vmap_over_other_axes(row: Case) -> None:
    draws = h.stacked(row, checks.BATCH)
    if draws:
        checks.vmap_over_other_axes(row.fn, draws, row.id)


@rows("vmap", "grad")
def test_vmap_of_gradients(row: Case) -> None:
    checks.vmap_of_gradients(row.fn, h.stacked(row, checks.BATCH), row.id)


@rows("vmap", "jit")
def test_vmap_is_not_unrolled(row: Case) -> None:
    checks.vmap_is_not_unrolled(row.fn, h.stacked(row, 3), row.id, row.grad)


# ---- jit ------------------------------------------------------------------------------------------------------------
@rows("jit")
def test_jit_is_eager(row: Case) -> None:
    dtype = row.dtypes[0]
    checks.jit_is_eager(row.fn, [h.inputs(row, dtype, seed) for seed in (0, 0, 1)], row.id, tolerance(row, dtype)[0])


@rows("jit", "grad")
def test_jit_of_gradients(row: Case) -> None:
    checks.jit_of_gradients(row.fn, h.inputs(row), row.id)


# ---- the table itself -----------------------------------------------------------------------------------------------
def _exercise(row: Case) -> None:
    arrays = h.inputs(row)
    row.fn(*h.boxes(arrays))
    if row.grad and row.second:
        scalar, at = h.second_order(*h.differentiable(row, arrays))
        vjp(scalar, *h.boxes(at))[1](h.boxes([np.ones(())])[0])
    elif row.grad:
        f, floats = h.differentiable(row, arrays)
        h.pulled(f, floats, h.cotangents(f, floats))
    if row.vmap and arrays:
        vmap(row.fn)(*h.boxes([np.stack([array, array]) for array in arrays]))


def test_every_primitive_has_a_row() -> None:
    with h.witnessed() as seen:
        for row in TABLE:
            with contextlib.suppress(Exception):  # a row that fails is reported by its own tests
                _exercise(row)
    missing = sorted(place for prim, place in h.all_primitives().items() if prim not in seen)
    assert not missing, f"primitives that no row of tests/cases exercises: {', '.join(missing)}"
