"""Every row of the table of cases through every check: values, gradients to second order, batching, jit, memory."""

from __future__ import annotations

import contextlib
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from funcnn.core.context import running
from funcnn.core.errors import GradientError
from funcnn.ops.elementwise.arithmetic import add
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case

BATCH = 3


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
def test_outputs_are_filled_completely(row: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = h.inputs(row)
    clean = _value_and_gradient(row, arrays)
    h.dirty_memory(monkeypatch)
    h.close(_value_and_gradient(row, arrays), clean, f"{row.id} in dirty memory", 0, 0)


def test_dirty_memory_is_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(h, "dirty", lambda shape, dtype: seen.append(shape) or np.empty(shape, dtype))
    h.dirty_memory(monkeypatch)
    add(*h.boxes([np.ones((2, 3)), np.ones((2, 3))]))
    assert seen == [(2, 3)]


@rows()
def test_any_memory_layout(row: Case) -> None:
    arrays = h.inputs(row)
    expected = _value_and_gradient(row, arrays)
    for variants in zip(*[_four(array) for array in arrays], strict=True):
        h.close(_value_and_gradient(row, list(variants)), expected, f"{row.id} in another layout", 1e-12, 1e-12)


def _four(array: np.ndarray) -> list[np.ndarray]:
    variants = list(h.layouts(array))
    return (variants * 4)[:4]


def _value_and_gradient(row: Case, arrays: list[np.ndarray]) -> list[np.ndarray]:
    values = h.numbers(row.fn(*h.boxes(arrays)))
    if not row.grad:
        return values
    f, floats = h.differentiable(row, arrays)
    return values + h.pulled(f, floats, h.cotangents(f, floats))


# ---- gradients ------------------------------------------------------------------------------------------------------
@rows("grad")
def test_gradient(row: Case) -> None:
    f, floats = h.differentiable(row, h.inputs(row))
    assert floats, f"{row.id}: no floating input, yet grad=True"
    weights = h.cotangents(f, floats)
    h.check_slopes(h.weighted(f, weights), floats, h.pulled(f, floats, weights), row.id)


@rows("grad")
def test_gradient_keeps_float32(row: Case) -> None:
    if "float32" not in row.dtypes:
        return
    wide = h.inputs(row, "float32")
    f, floats = h.differentiable(row, wide)
    got = h.pulled(f, floats, h.cotangents(f, floats))
    assert all(g.dtype == x.dtype for g, x in zip(got, floats, strict=True)), [str(g.dtype) for g in got]
    f, floats = h.differentiable(row, [a.astype(np.float64) if a.dtype == np.float32 else a for a in wide])
    h.close(got, h.pulled(f, floats, h.cotangents(f, floats)), f"gradient of {row.id} in float32", 1e-3, 1e-3)


@rows("grad")
def test_second_order(row: Case) -> None:
    f, floats = h.differentiable(row, h.inputs(row))
    scalar, at = h.second_order(f, floats)
    if not row.second:  # then it must refuse, never be wrong
        with pytest.raises(GradientError):
            vjp(scalar, *h.boxes(at))[1](h.boxes([np.ones(())])[0])
        return
    gradient = h.numbers(vjp(scalar, *h.boxes(at))[1](h.boxes([np.ones(())])[0]))
    h.check_slopes(scalar, at, gradient, f"{row.id}, second order")


@rows("grad")
def test_backward_is_vjp(row: Case) -> None:
    f, floats = h.differentiable(row, h.inputs(row))
    weights = h.cotangents(f, floats)
    leaves = [t.requires_grad_() for t in h.boxes([x.copy() for x in floats])]
    h.weighted(f, weights)(*leaves).backward()
    got = [np.zeros_like(leaf._v) if leaf.grad is None else leaf.grad._v for leaf in leaves]
    h.close(got, h.pulled(f, floats, weights), f"backward of {row.id}", 1e-12, 1e-12)


# ---- batching -------------------------------------------------------------------------------------------------------
def _subsets(n: int) -> list[tuple[int, ...]]:
    """The nonempty subsets of n inputs; for many inputs only single ones, pairs of neighbours, and all."""
    if n > 3:
        return [*[(i,) for i in range(n)], *[(i, i + 1) for i in range(n - 1)], tuple(range(n))]
    return [subset for size in range(1, n + 1) for subset in combinations(range(n), size)]


def _looped(f: Any, draws: list[list[np.ndarray]], subset: tuple[int, ...]) -> list[np.ndarray]:
    runs = [
        h.numbers(f(*h.boxes([draw[i if k in subset else 0] for k, draw in enumerate(draws)]))) for i in range(BATCH)
    ]
    return [np.stack(column) for column in zip(*runs, strict=True)]


@rows("vmap")
def test_vmap_against_a_loop(row: Case) -> None:
    draws = h.stacked(row, BATCH)
    for subset in _subsets(len(draws)):
        args = [np.stack(draw) if k in subset else draw[0] for k, draw in enumerate(draws)]
        axes = tuple(0 if k in subset else None for k in range(len(draws)))
        got = h.numbers(vmap(row.fn, in_axes=axes)(*h.boxes(args)))
        h.close(got, _looped(row.fn, draws, subset), f"vmap of {row.id} over inputs {subset}", 1e-10, 1e-10)


@rows("vmap")
def test_vmap_over_other_axes(row: Case) -> None:
    draws = h.stacked(row, BATCH)
    if not draws:
        return
    everything = tuple(range(len(draws)))
    args = [np.stack(draw, axis=-1) for draw in draws]
    got = h.numbers(vmap(row.fn, in_axes=-1, out_axes=-1)(*h.boxes(args)))
    expected = [np.moveaxis(out, 0, -1) for out in _looped(row.fn, draws, everything)]
    h.close(got, expected, f"vmap of {row.id} over the last axes", 1e-10, 1e-10)


@rows("vmap", "grad")
def test_vmap_of_gradients(row: Case) -> None:
    """Per-example gradients (all inputs batched), and a batch of cotangents at one point (a Jacobian)."""
    draws = h.stacked(row, BATCH)
    arrays = [draw[0] for draw in draws]
    f, floats = h.differentiable(row, arrays)
    weights = h.cotangents(f, floats)
    draws += [[w, 2.0 * w + 1.0, w[..., ::-1] if w.ndim else -w] for w in weights]
    primals = len(arrays)
    slots = [k for k, array in enumerate(arrays) if array.dtype.kind == "f"]

    def pull(*args: Any) -> tuple:
        def of_floats(*xs: Any) -> tuple:
            full = list(args[:primals])
            for slot, x in zip(slots, xs, strict=True):
                full[slot] = x
            return tuple(t for t in h.outputs(row.fn(*full)) if t.dtype.kind == "f")

        return vjp(of_floats, *[args[slot] for slot in slots])[1](tuple(args[primals:]))

    for subset in (tuple(range(len(draws))), tuple(range(primals, len(draws)))):
        args = [np.stack(draw) if k in subset else draw[0] for k, draw in enumerate(draws)]
        axes = tuple(0 if k in subset else None for k in range(len(draws)))
        got = h.numbers(vmap(pull, in_axes=axes)(*h.boxes(args)))
        h.close(got, _looped(pull, draws, subset), f"vmap of the vjp of {row.id} over {subset}", 1e-9, 1e-9)


@rows("vmap", "jit")
def test_vmap_is_not_unrolled(row: Case) -> None:
    """The program, of the value and of the gradients, is as long for three examples as for two."""
    from funcnn.transforms.jit import jit

    draws = h.stacked(row, 3)
    f, floats = h.differentiable(row, [draw[0] for draw in draws])
    runs = [(row.fn, draws)]
    if row.grad and len(floats) == len(draws):
        gradient = lambda *xs: vjp(f, *xs)[1](f(*xs))  # at one more point: the value as the cotangent
        runs.append((gradient, draws))
    for function, given in runs:
        for subset in _subsets(len(given)):
            axes = tuple(0 if k in subset else None for k in range(len(given)))
            lengths = []
            for n in (2, 3):
                args = [np.stack(draw[:n]) if k in subset else draw[0] for k, draw in enumerate(given)]
                lengths.append(jit(vmap(function, in_axes=axes)).program(*h.boxes(args)).count("\n"))
            assert lengths[0] == lengths[1], f"{row.id} over inputs {subset}: {lengths} equations for 2 and 3 examples"


# ---- jit ------------------------------------------------------------------------------------------------------------
@rows("jit")
def test_jit_is_eager(row: Case) -> None:
    from funcnn.transforms.jit import jit

    compiled = jit(row.fn)
    dtype = row.dtypes[0]
    rtol, atol = tolerance(row, dtype)
    for seed in (0, 0, 1):
        arrays = h.inputs(row, dtype, seed)
        got, expected = h.numbers(compiled(*h.boxes(arrays))), h.numbers(row.fn(*h.boxes(arrays)))
        assert [out.dtype for out in got] == [out.dtype for out in expected]
        h.close(got, expected, f"jit of {row.id}, seed {seed}", rtol, atol)


@rows("jit", "grad")
def test_jit_of_gradients(row: Case) -> None:
    from funcnn.transforms.jit import jit

    f, floats = h.differentiable(row, h.inputs(row))
    weights = h.cotangents(f, floats)
    compiled = jit(lambda xs, ws: vjp(f, *xs)[1](ws))
    for scale in (1.0, 1.0, -0.5):
        scaled = [scale * w for w in weights]
        got = h.numbers(compiled(tuple(h.boxes(floats)), tuple(h.boxes(scaled))))
        h.close(got, h.pulled(f, floats, scaled), f"jit of the vjp of {row.id}", 1e-10, 1e-10)


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
    witness = h.Witness()
    with running(witness, True):
        for row in TABLE:
            with contextlib.suppress(Exception):  # a row that fails is reported by its own tests
                _exercise(row)
    missing = sorted(place for prim, place in h.all_primitives().items() if prim not in witness.seen)
    assert not missing, f"primitives that no row of tests/cases exercises: {', '.join(missing)}"
