"""What the engine of the table of cases is made of: running a row, its gradients, finite differences, comparisons."""

from __future__ import annotations

import builtins
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import funcnn.ops
from funcnn.core import primitive, tree
from funcnn.core.interpreter import Interpreter
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.launching import Runner
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import HostPlan
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import vjp
from tests.cases.case import Case

STEP = 1e-5  # of central differences in float64: truncation and rounding errors are both near 1e-10


def boxes(arrays: Any) -> list[Tensor]:
    """Fresh tensors on these arrays."""
    return [as_tensor(array) for array in arrays]


def by_each_way(
    prim: Primitive, arrays: list[np.ndarray], garbage: float = 7, **params: Any
) -> dict[str, list[np.ndarray]]:
    """What each implementation that applies makes of the arrays, by its name; the outputs' memory held ``garbage``."""
    results = {}
    operands = tuple(map(operand_of, arrays))
    for way in prim.on["cpu"]:
        plan = way.plan(operands, params)
        if plan is not None:
            avals = prim.shape(*operands, **params)
            outs = [np.full(aval.shape, garbage).astype(aval.dtype) for aval in avals]
            with np.errstate(all="ignore"):
                if isinstance(plan, HostPlan):
                    plan.run(list(arrays), outs, **params)
                else:
                    Runner(plan, operands, avals)(list(arrays), outs)
            results[way.name] = outs
    return results


def outputs(result: Any) -> list[Tensor]:
    """The tensors among what a function returned."""
    return [leaf for leaf in tree.leaves(result) if isinstance(leaf, Tensor)]


def numbers(result: Any) -> list[np.ndarray]:
    """The arrays in a result of tensors."""
    return [t._v for t in outputs(result)]


def inputs(row: Case, dtype: str = "float64", seed: int = 0) -> list[np.ndarray]:
    """Fresh arrays for a row; its seed depends on the row, so that no two rows see the same numbers."""
    return [np.asarray(array) for array in row.arrays(dtype, seed + 1000 * (builtins.sum(map(ord, row.id)) % 997))]


def close(got: Any, expected: Any, what: str, rtol: float, atol: float) -> None:
    """Assert that two lists of arrays agree in number, shape and value (NaN equals NaN)."""
    assert len(got) == len(expected), f"{what}: {len(got)} results, expected {len(expected)}"
    for position, (one, two) in enumerate(zip(got, expected, strict=True)):
        one, two = np.asarray(one), np.asarray(two)
        assert one.shape == two.shape, f"{what}, output {position}: shape {one.shape}, expected {two.shape}"
        np.testing.assert_allclose(one, two, rtol, atol, err_msg=f"{what}, output {position}")


def differentiable(row: Case, arrays: list[np.ndarray]) -> tuple[Callable, list[np.ndarray]]:
    """The row as a function of its floating inputs alone, giving its floating outputs; and those inputs."""
    slots = [i for i, array in enumerate(arrays) if array.dtype.kind == "f"]

    def f(*floats: Tensor) -> tuple:
        full: list = boxes(arrays)
        for slot, x in zip(slots, floats, strict=True):
            full[slot] = x
        return tuple(t for t in outputs(row.fn(*full)) if t.dtype.kind == "f")

    return f, [arrays[slot] for slot in slots]


def cotangents(f: Callable, floats: list[np.ndarray], seed: int = 7) -> list[np.ndarray]:
    """A random cotangent for each output of ``f``."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(out.shape).astype(out.dtype) for out in numbers(f(*boxes(floats)))]


def pulled(f: Callable, floats: list[np.ndarray], weights: list[np.ndarray]) -> list[np.ndarray]:
    """The vjp of ``f`` at these arrays."""
    return numbers(vjp(f, *boxes(floats))[1](tuple(boxes(weights))))


def weighted(f: Callable, weights: list[np.ndarray]) -> Callable:
    """The scalar ``<weights, f(...)>`` as a function of tensors."""

    def scalar(*args: Tensor) -> Tensor:
        terms = [sum_(mul(out, as_tensor(w))) for out, w in zip(outputs(f(*args)), weights, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = add(total, term)
        return total

    return scalar


def check_slopes(
    scalar: Callable, at: list[np.ndarray], gradient: list[np.ndarray], what: str, rtol: float = 1e-6
) -> None:
    """Assert that ``<gradient, d>`` is the central difference of ``scalar`` along a random ``d`` of each argument."""
    rng = np.random.default_rng(11)
    for k, (x, g) in enumerate(zip(at, gradient, strict=True)):
        assert g.shape == x.shape and g.dtype == x.dtype, (
            f"{what}, argument {k}: gradient {g.dtype}{g.shape} for {x.shape}"
        )
        d = rng.standard_normal(x.shape).astype(x.dtype)  # a cotangent keeps its output's dtype
        ends = [scalar(*boxes([*at[:k], x + side * STEP * d, *at[k + 1 :]]))._v.item() for side in (1.0, -1.0)]
        slope, scale = (ends[0] - ends[1]) / (2 * STEP), 1.0 + abs(ends[0])
        got = np.sum(g * d)
        assert abs(got - slope) <= rtol * (scale + abs(slope)), f"{what}, argument {k}: vjp {got}, difference {slope}"


def second_order(f: Callable, floats: list[np.ndarray]) -> tuple[Callable, list[np.ndarray]]:
    """The scalar ``<w, vjp(x, g)>`` with random ``w``, as a function of all of x and g; and where to take it."""
    weights = cotangents(f, floats)
    rng = np.random.default_rng(13)
    probes = [rng.standard_normal(x.shape) for x in floats]

    def pull(*args: Tensor) -> tuple:
        return vjp(f, *args[: len(floats)])[1](tuple(args[len(floats) :]))

    return weighted(pull, probes), [*floats, *weights]


def stacked(row: Case, n: int, dtype: str = "float64") -> list[list[np.ndarray]]:
    """``n`` draws of each input."""
    return [list(column) for column in zip(*[inputs(row, dtype, seed) for seed in range(n)], strict=True)]


def layouts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The same numbers in other memory: read-only, every second element, Fortran order, walked backwards."""
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
    if array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        yield wide[..., ::2]
        yield np.asfortranarray(array)
        yield np.ascontiguousarray(array[::-1])[::-1]


def dirty(shape: Any, dtype: Any) -> np.ndarray:
    """New memory full of NaN, of the largest integer, or of True."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max, dtype)


def dirty_memory(monkeypatch: Any) -> None:
    """From here on the evaluator allocates outputs that hold garbage."""
    monkeypatch.setattr(primitive, "empty", lambda shape, dtype: dirty(shape, dtype))


class Witness(Interpreter):
    """A transformation that changes nothing and remembers which primitives were applied."""

    name = "witness"

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Primitive] = set()

    def bind(self, prim: Any, ins: tuple, params: dict) -> Any:
        self.seen.add(prim)
        with self.outside():
            return self.passed(prim(*ins, **params))


def all_primitives() -> dict[Primitive, str]:
    """Every primitive that a module of ``funcnn.ops`` holds, directly or as ``function.primitive``, with its place."""
    found: dict[Primitive, str] = {}
    for info in pkgutil.walk_packages(funcnn.ops.__path__, "funcnn.ops."):
        module = importlib.import_module(info.name)
        for attribute, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            for item in held:
                prim = item if isinstance(item, Primitive) else getattr(item, "primitive", None)
                if isinstance(prim, Primitive):
                    found.setdefault(prim, f"{info.name}.{attribute} ({prim.name})")
    return found
