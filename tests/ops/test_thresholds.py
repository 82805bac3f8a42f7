"""Every primitive at the sizes around every threshold in the code: one less, itself, one more, and twice."""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import core, ops, optim
from funcnn.core.primitive import Primitive
from funcnn.kernels import cpu as kernels_cpu
from funcnn.kernels.cpu.elementwise import launch as loops
from funcnn.kernels.cpu.elementwise import loops as elementwise
from funcnn.kernels.cpu.launching import Runner
from funcnn.kernels.cpu.random import host
from funcnn.kernels.cpu.threads.number import NANOSECONDS_FOR_THREADS
from funcnn.kernels.implementation import CONTIGUOUS, operand_of
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Launch, LaunchPlan, Output, Workers
from funcnn.ops.elementwise import activation
from funcnn.optim import fused
from funcnn.optim.rules import ADAM, ADAMW, SGD
from tests import helpers as h

# The constants of the code that decide by size how something runs, by the family whose sweep goes around them.
SWEPT = {
    "elementwise": {
        "kernels.cpu.elementwise.launch": ("LEAST_RUN", "ELEMENTS_FOR_SELECT", "BLOCK_ELEMENTS"), "ops.elementwise.math": ("ELEMENTS_FOR_KERNEL", "ELEMENTS_FOR_TRIG"), "kernels.cpu.elementwise.loops": ("CHUNK_ELEMENTS",), "kernels.cpu.elementwise.looking": ("CHUNK_ELEMENTS",),
        "kernels.cpu.memory": ("RECYCLED_BYTES",),
    },
    "reduction": {
        "kernels.cpu.reduce.launch": ("ELEMENTS_FOR_KERNEL", "STRIDED_ELEMENTS_FOR_KERNEL", "SUMMED_ROWS"),
        "kernels.cpu.reduce.back_launch": ("ELEMENTS_FOR_SPREAD", "INDEX_ROWS_FOR_KERNEL", "INDEX_ELEMENTS_FOR_KERNEL"), "kernels.cpu.reduce.spread": ("CHUNK_ELEMENTS", "COPY_ELEMENTS"),
        "kernels.cpu.reduce.runs": ("RUN_ELEMENTS", "BLOCK_ROWS", "BLOCK_COLUMNS", "ACCUMULATORS", "CHUNK_ELEMENTS"),
        "kernels.cpu.reduce.argument": ("ROW_ELEMENTS", "CHUNK_ELEMENTS"),
        "kernels.cpu.softmax.launch": ("CHUNK_ELEMENTS", "ELEMENTS_PER_ROW", "BLOCK_COLUMNS", "NARROW_BYTES", "TRANSPOSED_ROWS", "TRANSPOSED_BYTES", "COLUMN_BYTES"),
        "kernels.cpu.softmax.rows": ("SUM_ELEMENTS", "GROUP_ROWS", "GROUP_ELEMENTS"),
    },
    "copy": {"kernels.cpu.movement.launch": ("ELEMENTS_FOR_KERNEL",), "kernels.cpu.movement.permute": ("BLOCK_SIDE",), "kernels.cpu.movement.regions": ("BYTES_FOR_KERNEL",), "kernels.cpu.movement.strided": ("CHUNK_ELEMENTS",),
        "kernels.cpu.indexing.problem": ("CHUNK_BYTES", "RANGE_BYTES", "PARTS"), "kernels.cpu.indexing.geometry": ("BLOCK_ELEMENTS",),
        "kernels.cpu.indexing.masks": ("CHUNK_ELEMENTS",), "ops.indexing.along": ("ELEMENTS_FOR_VIEW",), "kernels.cpu.creation.launch": ("BYTES_FOR_KERNEL",),
        "kernels.cpu.creation.ranges": ("CHUNK_ELEMENTS",)},
    "scan": {"kernels.cpu.reduce.running": ("ELEMENTS_FOR_KERNEL",), "kernels.cpu.reduce.scan": ("CHUNK_ELEMENTS",)},
    "sort": {"kernels.cpu.reduce.sorting": ("INSERTED_ELEMENTS", "ELEMENTS_FOR_KERNEL"), "kernels.cpu.reduce.topk": ("CHUNK_ELEMENTS",)},
    "random": {
        "kernels.cpu.random.host": ("WORDS_IN_PYTHON",), "kernels.cpu.random.launch": ("ELEMENTS_FOR_KERNEL", "KEYS_FOR_KERNEL"),
        "kernels.cpu.random.draw": ("SPAN_ELEMENTS", "CHUNK_ELEMENTS"),
    },
    "optimizer": {"kernels.cpu.optim.step": ("CHUNK_ELEMENTS",)},
}  # fmt: skip
OTHERS = {  # families with sweeps of their own, in tests of their kernels
    "kernels.cpu.attention.blocks", "kernels.cpu.attention.forward", "kernels.cpu.attention.launch", "kernels.cpu.conv.channels_weight",
    "kernels.cpu.conv.depthwise_weight", "kernels.cpu.conv.direct", "kernels.cpu.conv.few",
    "kernels.cpu.conv.finite", "kernels.cpu.conv.gather",
    "kernels.cpu.conv.launch.channels", "kernels.cpu.conv.launch.depthwise", "kernels.cpu.conv.launch.direct",
    "kernels.cpu.conv.launch.few", "kernels.cpu.conv.launch.gather", "kernels.cpu.conv.launch.pointwise",
    "kernels.cpu.conv.launch.winograd", "kernels.cpu.conv.winograd", "kernels.cpu.matmul.launch",
    "kernels.cpu.norm.launch", "kernels.cpu.norm.layer_norm", "kernels.cpu.norm.lrn", "kernels.cpu.norm.runs",
    "kernels.cpu.pool.launch", "kernels.cpu.pool.planes", "kernels.cpu.vector.tap_tables",
    "kernels.cpu.recurrent.launch", "kernels.cpu.recurrent.tasks", "kernels.cpu.recurrent.weights",
    "kernels.cpu.sampling.fold", "kernels.cpu.sampling.grid_sample", "kernels.cpu.sampling.grid_taps",
    "kernels.cpu.sampling.interpolate", "kernels.cpu.sampling.resize_launch", "kernels.cpu.vector.lanes", "kernels.cpu.vector.table_taps",
    "kernels.cpu.vector.tiles", "ops.conv.conv", "kernels.cpu.sampling.columns", "ops.sampling.grid_sample", "ops.sampling.interpolate",
    "kernels.cpu.sampling.host", "kernels.cpu.norm.lrn_launch",
}  # fmt: skip
NO_SIZES = {  # what is no size of an operation
    ("ops.base.costs", "*"),
    ("kernels.cpu.elementwise.activation", "SATURATED"), ("ops.elementwise.activation", "SATURATED"),
    *(("kernels.cpu.indexing.geometry", name) for name in ("START", "AXES", "SEEN", "HEAD")),
    ("core.evaluation", "PLANNED"), ("kernels.cpu.build.check", "BAND_BYTES"), ("kernels.cpu.build.check", "LINE_BYTES"),
    ("kernels.cpu.random.draw", "SCRATCH_WORDS"), ("kernels.cpu.build.parallel", "MOST_SHARES"),
    ("kernels.cpu.threads.code", "*"),
    ("kernels.cpu.softmax.launch", "ROW_NS"), ("kernels.cpu.vector.streaming", "LINE_BYTES"),
    ("kernels.cpu.threads.number", "NANOSECONDS_FOR_THREADS"), ("kernels.cpu.norm.layer_norm", "FACTOR_ELEMENTS"), ("kernels.cpu.pool.max", "HEAD_ENTRIES"), ("kernels.cpu.pool.max_values", "HEAD_ENTRIES"),
}  # fmt: skip


def constants(package: Any) -> Iterator[tuple[str, str]]:
    """The whole numbers above 15 and up to 2^20 that modules of a package assign to names in capitals."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for node in ast.parse(inspect.getsource(module)).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(one, ast.Name) and one.id.strip("_").isupper():
                        value = getattr(module, one.id)
                        if type(value) in (int, float) and 16 <= value <= 1 << 20:
                            yield info.name.removeprefix("funcnn."), one.id


def test_every_threshold_in_the_code_is_in_a_sweep() -> None:
    swept = {(module, name) for family in SWEPT.values() for module in family for name in family[module]}
    found = {pair for package in (core, kernels_cpu, ops, optim) for pair in constants(package)}
    others = {pair for pair in found if pair[0] in OTHERS or pair in NO_SIZES or (pair[0], "*") in NO_SIZES}
    assert found - others == swept, "a new constant: add it to a family of SWEPT, or say in NO_SIZES that it is no size"


def thresholds(family: str) -> list[int]:
    """The numbers behind a family's constants."""
    return sorted({
        int(getattr(importlib.import_module(f"funcnn.{module}"), name))
        for module, names in SWEPT[family].items() for name in names
    })  # fmt: skip


def around(numbers: Iterable[float]) -> list[int]:
    """One less, the number, one more, and twice as many, of each."""
    return sorted({n for t in map(math.ceil, numbers) for n in (t - 1, t, t + 1, 2 * t)})


SIZES = {family: around(thresholds(family)) for family in SWEPT}


# ---- elementwise ------------------------------------------------------------------------------------------------------
def looped() -> dict[Any, list[int]]:
    """The primitives that elementwise kernels run, and the sizes around their own thresholds."""
    result = {}
    for prim in (*h.all_primitives(), *GRADIENTS):
        for way in prim.on.get("cpu", ()):
            loop = way.plan.args[0] if isinstance(way.plan, partial) and way.plan.args else None
            if isinstance(loop, loops.Loop):
                own = [
                    NANOSECONDS_FOR_THREADS / loop.nanoseconds,
                    way.pays.args[0] if isinstance(way.pays, partial) else loops.ELEMENTS_FOR_SELECT,
                ]
                if max(own) < math.inf:
                    result[prim] = around(
                        [t for t in own if t <= 1 << 20] + [loops.BLOCK_ELEMENTS, loops.ELEMENTS_FOR_SELECT]
                    )
    return result


GRADIENTS = [prim for prim in vars(activation).values() if isinstance(prim, Primitive)]
PARAMS: dict[str, dict[str, Any]] = {
    "clamp": {"low": 0.2, "high": 0.6}, "elu": {"above": 1.0, "below": 1.1, "inner": 0.9},
    "leaky_relu": {"slope": 0.1}, "softplus": {"beta": 1.5, "threshold": 20.0},
}  # fmt: skip
LOOPED = looped()


@pytest.mark.parametrize("prim", LOOPED, ids=lambda prim: prim.name)
def test_elementwise_primitives(prim: Any) -> None:
    """The same numbers as of pieces, which are below every threshold; a lone number beside an array, either way."""
    count, given = operands(prim)
    for n in LOOPED[prim]:
        rng = np.random.default_rng(n)
        full = [rng.uniform(0.1, 0.9, n).astype(np.float32) for _ in range(count)]
        for lone in ((), (0,), (1,)) if count == 2 and prim.name in ALONE else ((),):
            ins = [x[:1].reshape(()) if i in lone else x for i, x in enumerate(full)]
            got = prim(*map(fn.tensor, ins), **given).numpy()
            for at in sorted({0, n // 2, max(0, n - 900), *range(0, n, 1 << 14)}):
                piece = [x if x.ndim == 0 else x[at : at + 900] for x in ins]
                np.testing.assert_allclose(
                    got[at : at + 900], prim(*map(fn.tensor, piece), **given).numpy(), 1e-5, 1e-6
                )


ALONE = ("add", "sub", "mul", "div", "maximum", "minimum", "logaddexp")


def operands(prim: Any) -> tuple[int, dict[str, Any]]:
    """How many inputs a primitive takes, and parameters for it."""
    x = fn.tensor(np.full(3, 0.5, np.float32))
    given = PARAMS.get(prim.name.removesuffix("_grad"), {})
    for count in (1, 2):
        try:
            assert prim(*[x] * count, **given).shape == (3,)
        except (TypeError, ValueError):
            continue
        return count, given
    raise AssertionError(f"{prim.name}: takes neither one input nor two with the parameters {given}")


@pytest.mark.parametrize("n", SIZES["elementwise"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lone_number_stands_for_an_array_of_any_size(n: int, dtype: str) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    t, half = fn.tensor(x), np.array(0.5, dtype)
    np.testing.assert_array_equal(fn.where(t > 0, t, 0.0).numpy(), np.where(x > 0, x, 0))
    np.testing.assert_array_equal(fn.where(t > 0, fn.tensor(half), t).numpy(), np.where(x > 0, half, x))
    np.testing.assert_array_equal(t.masked_fill(t > 0, 7.0).numpy(), np.where(x > 0, 7, x).astype(dtype))
    for left, right in ((t, fn.tensor(half)), (fn.tensor(half), t)):
        np.testing.assert_allclose(fn.logaddexp(left, right).numpy(), np.logaddexp(x, half), 2e-6)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_a_vector_meets_an_array(name: str) -> None:
    for n in SIZES["elementwise"]:
        rng = np.random.default_rng(n)
        for shape, vector in (((2, n), (n,)), ((n, 17), (17,)), ((3, n), (3, 1)), ((n, 1, 16), (n, 1, 1))):
            x, y = (rng.uniform(0.1, 0.9, size).astype(np.float32) for size in (shape, vector))
            got = getattr(fn, name)(fn.tensor(x), fn.tensor(y)).numpy()
            np.testing.assert_array_equal(
                got, getattr(np, {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name))(x, y)
            )


def test_a_kernel_refuses_an_array_of_another_length_or_dtype() -> None:
    x, out = (operand_of(np.zeros(n, np.float32)) for n in (19, 20))
    assert loops.loop_plan(loops.Loop(elementwise.add), (out, x), {}) is None
    launch = Launch(elementwise.add, (Array(INPUT, 0), Array(INPUT, 1), Array(OUTPUT, 0), (), Workers(1.0)))
    plan = LaunchPlan((launch,), (CONTIGUOUS, CONTIGUOUS), (Output(),))
    Runner(plan, (out, out), (out,))
    with pytest.raises(ValueError, match="add touches 20 elements of its argument y, which has 19"):
        Runner(plan, (out, x), (out,))


# ---- reductions, scans, orders ----------------------------------------------------------------------------------------
def shapes(n: int, rows: int = 3) -> list[tuple[tuple[int, ...], int]]:
    """Arrays whose reduced axis is long, and those whose other axis is."""
    return [((n,), 0), ((rows, n), 1), ((n, rows), 0), ((rows, n), 0), ((n, rows), 1)]


REDUCTIONS = {
    "sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min, "prod": np.prod, "argmax": np.argmax, "argmin": np.argmin,
    "logsumexp": lambda x, axis: np.log(np.exp(x).sum(axis)),
    "var": lambda x, axis: x.var(axis, ddof=1 if x.shape[axis] > 1 else 0),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    for n in SIZES["reduction"]:
        for shape, axis in shapes(n):
            x = np.random.default_rng(n).uniform(0.999, 1.001, shape)
            x = x if name in ("prod", "var") else x.astype(np.float32)
            want = REDUCTIONS[name](x.astype(np.float64), axis)
            np.testing.assert_allclose(
                getattr(fn, name)(fn.tensor(x), axis).numpy(), want, 1e-9 if x.dtype == np.float64 else 2e-5, 0
            )


def test_gradients_of_reductions() -> None:
    for n in SIZES["reduction"]:
        for shape, axis in shapes(n):
            x = fn.tensor(np.random.default_rng(n).permutation(math.prod(shape)).reshape(shape).astype(np.float32))
            got = fn.grad(lambda x, axis=axis: (fn.amax(x, axis) * 3.0).sum() + x.sum(axis).sum())(x).numpy()
            top = x.numpy() == x.numpy().max(axis, keepdims=True)
            np.testing.assert_array_equal(got, np.where(top, 4, 1).astype(np.float32))


def test_softmax() -> None:
    for n in SIZES["reduction"]:
        for shape, axis in shapes(n, 2):
            x = np.random.default_rng(n).standard_normal(shape)
            want = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
            np.testing.assert_allclose(F.softmax(fn.tensor(x), axis).numpy(), want, 1e-9)
            np.testing.assert_allclose(F.log_softmax(fn.tensor(x), axis).numpy(), np.log(want), 1e-9, 1e-9)


def test_scans() -> None:
    for n in around([*thresholds("scan"), *thresholds("reduction")]):
        for shape, axis in shapes(n):
            x = np.random.default_rng(n).uniform(0.999, 1.001, shape)
            np.testing.assert_allclose(fn.cumsum(fn.tensor(x), axis).numpy(), x.cumsum(axis), 1e-12)
            np.testing.assert_allclose(fn.cumprod(fn.tensor(x), axis).numpy(), x.cumprod(axis), 1e-9)
            np.testing.assert_array_equal(fn.cummax(fn.tensor(x), axis)[0].numpy(), np.maximum.accumulate(x, axis))


def test_orders() -> None:
    for n in SIZES["sort"]:
        for shape, axis in shapes(n):
            x = np.random.default_rng(n).permutation(math.prod(shape)).reshape(shape).astype(np.float32)
            np.testing.assert_array_equal(fn.sort(fn.tensor(x), axis)[0].numpy(), np.sort(x, axis))
            for k in {1, min(63, x.shape[axis]), min(64, x.shape[axis]), min(65, x.shape[axis])}:
                best = -np.sort(-x, axis).take(range(k), axis)
                np.testing.assert_array_equal(fn.topk(fn.tensor(x), k, axis)[0].numpy(), best)


# ---- copies, draws, optimizers ------------------------------------------------------------------------------------------
def test_copies() -> None:
    for n in SIZES["copy"]:
        for side in {1, 7, 8, 9, 16, 17, 65} if n < 1 << 17 else {1, 8, 9}:
            x = np.arange(n // side * side, dtype=np.float32).reshape(side, n // side)
            t = fn.tensor(x)
            np.testing.assert_array_equal(t.t().contiguous().numpy(), x.T)
            np.testing.assert_array_equal(fn.cat([t, t], 1).numpy(), np.concatenate([x, x], 1))
            np.testing.assert_array_equal(fn.flip(t, (1,)).numpy(), x[:, ::-1])
        index = np.random.default_rng(n).integers(0, n, 50)
        table = fn.tensor(np.arange(3 * n, dtype=np.float32).reshape(n, 3))
        np.testing.assert_array_equal(F.embedding(fn.tensor(index), table).numpy(), table.numpy()[index])
        got = fn.grad(lambda table, index=index: F.embedding(fn.tensor(index), table).sum())(table).numpy()
        np.testing.assert_array_equal(got, np.repeat(np.bincount(index, minlength=n), 3).reshape(n, 3))
        line = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(fn.arange(n, dtype=fn.float32).numpy(), line)
        np.testing.assert_array_equal(fn.tensor(line)[fn.tensor(line % 3 == 1)].numpy(), line[line % 3 == 1])
        got = fn.grad(lambda line, index=index: fn.gather(line, 0, fn.tensor(index)).sum())(fn.tensor(line)).numpy()
        np.testing.assert_array_equal(got, np.bincount(index, minlength=n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws(dtype: str) -> None:
    key, kind = fn.random.key(7), np.dtype(dtype)
    whole = fn.random.bits(key, (2 * max(SIZES["random"]),)).numpy()
    units = host.units(key.numpy().reshape(1, 2), (whole.size // 2,), kind)[0]
    for n in SIZES["random"]:
        np.testing.assert_array_equal(fn.random.bits(key, (n,)).numpy(), whole[:n])
        np.testing.assert_array_equal(fn.random.uniform(key, (n,), dtype=kind).numpy(), units[:n])
        want = host.normals(key.numpy().reshape(1, 2), (n,), kind)[0]
        np.testing.assert_allclose(fn.random.normal(key, (n,), dtype=kind).numpy(), want, 2e-5, 2e-6)
        kept = F.dropout(fn.ones(n), 0.5, True, key=key).numpy()
        assert set(np.unique(kept)) <= {0.0, 2.0} and abs((kept > 0).mean() - 0.5) < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("rule", "options"), [(SGD, {"momentum": 0.9}), (ADAM, {}), (ADAM, {"amsgrad": True}), (ADAMW, {})]
)
def test_optimizers(rule: Any, options: dict) -> None:
    hyper = {**rule.defaults, "lr": 0.1, **options}
    for n in SIZES["optimizer"]:
        p, g = (fn.tensor(np.random.default_rng(n + i).standard_normal(n)) for i in range(2))
        slots = rule.init(p, hyper)
        ((new, after),) = fused.update(rule, [(p, g, slots)], hyper)
        want, kept = rule.step(g, slots, p, hyper)
        for got, oracle in zip([new, *after.values()], [want, *(kept[name] for name in after)], strict=True):
            np.testing.assert_allclose(got.numpy(), oracle.numpy(), 1e-12, 1e-14)
