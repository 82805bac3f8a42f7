"""What the engine of the table of cases is made of, beside ``funcnn.testing``: rows, ways, primitives, dirty memory."""

from __future__ import annotations

import builtins
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import funcnn.ops
from funcnn.core import primitive
from funcnn.core.context import running
from funcnn.core.interpreter import Interpreter
from funcnn.core.primitive import Primitive
from funcnn.kernels.cpu import launching, memory
from funcnn.kernels.cpu.launching import ready
from funcnn.kernels.cpu.threads import number
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import HostPlan
from funcnn.testing import engine
from funcnn.testing.engine import (
    boxes,
    check_slopes,
    close,
    cotangents,
    dirty,
    layouts,
    numbers,
    outputs,
    pulled,
    second_order,
    weighted,
)
from tests.cases.case import Case

__all__ = [
    "all_primitives", "boxes", "by_each_way", "check_slopes", "close", "cotangents", "differentiable", "dirty",
    "dirty_memory", "inputs", "layouts", "numbers", "on_workers", "outputs", "pulled", "second_order", "stacked", "weighted",
    "witnessed",
]  # fmt: skip


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
                    ready(plan, operands, avals)(list(arrays), outs)
            results[way.name] = outs
    return results


def inputs(row: Case, dtype: str = "float64", seed: int = 0) -> list[np.ndarray]:
    """Fresh arrays for a row; its seed depends on the row, so that no two rows see the same numbers."""
    return [np.asarray(array) for array in row.arrays(dtype, seed + 1000 * (builtins.sum(map(ord, row.id)) % 997))]


def differentiable(row: Case, arrays: list[np.ndarray]) -> tuple[Callable, list[np.ndarray]]:
    """The row as a function of its floating inputs alone, giving its floating outputs; and those inputs."""
    return engine.differentiable(row.fn, arrays)


def stacked(row: Case, n: int, dtype: str = "float64") -> list[list[np.ndarray]]:
    """``n`` draws of each input."""
    return [list(column) for column in zip(*[inputs(row, dtype, seed) for seed in range(n)], strict=True)]


def dirty_memory(monkeypatch: Any) -> None:
    """From here on the evaluator allocates outputs that hold garbage."""
    for name in ("empty", "fresh"):
        monkeypatch.setattr(primitive, name, lambda shape, dtype: dirty(shape, dtype))


def dirty_scratch(monkeypatch: Any) -> None:
    """From here on kernels find garbage in their scratch, unless their plan asks for zeros."""
    for name in ("empty", "fresh"):
        monkeypatch.setattr(memory, name, dirty)


def on_workers(monkeypatch: Any, count: int) -> None:
    """From here on kernels run on so many workers, however little they have to do."""
    monkeypatch.setattr(number, "NANOSECONDS_FOR_THREADS", 0)
    monkeypatch.setattr(launching, "workers", lambda work: count)


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


@contextmanager
def witnessed() -> Iterator[set[Primitive]]:
    """Gathers the primitives that are applied inside, and those that are evaluated without being applied."""
    witness = Witness()

    def around(prim: Primitive, values: list, params: dict, where: Any) -> list:
        witness.seen.add(prim)
        return primitive.evaluate(prim, values, params, where, True)

    primitive.around[id(witness)] = around
    try:
        with running(witness, True):
            yield witness.seen
    finally:
        del primitive.around[id(witness)]


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
