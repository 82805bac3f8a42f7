"""How arrays are sorted, and the first of each row found, on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.movement.regions import laid_out
from funcnn.kernels.cpu.reduce.topk import top_rows
from funcnn.kernels.implementation import NUMPY, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts

FEW = 64  # the first of a row that are kept in order by insertion
LARGE = 1 << 12  # numbers; below, NumPy's sort costs less
COST = 1.0  # nanoseconds a number


def argsort(ins: list, outs: list, dim: int, descending: bool) -> None:
    x = ins[0]
    if descending:
        x = np.flip(x, dim)
    order = np.argsort(x, axis=dim, kind="stable")
    outs[0][...] = np.flip(x.shape[dim] - 1 - order, dim) if descending else order


def sorted_top(ins: list, outs: list, dim: int, k: int, largest: bool) -> None:
    order = fresh(ins[0].shape, np.int64)
    argsort(ins, [order], dim, largest)
    np.copyto(outs[0], order[(slice(None),) * dim + (slice(k),)])


def _inserted_top(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    """The first k of each row by insertion; places along an inner axis are found in rows and laid out afterwards."""
    (x,), dim, k = operands, params["dim"], params["k"]
    if not x.size or not k or x.dtype.char not in "fd":
        return None
    n, outer, inner = x.shape[dim], prod(x.shape[:dim]), prod(x.shape[dim + 1 :])
    work, parts, access = x.size * COST, Parts(), Access()
    rows = Array(OUTPUT, 0) if inner == 1 else parts.room("int64", outer * inner * k)
    launches = [Launch(top_rows, (Array(INPUT, 0), rows, n, k, params["largest"], Workers(work)))]
    if inner > 1:
        access = Access(order=(*range(dim), *range(dim + 1, x.ndim), dim))
        launches.append(laid_out(parts, rows, (inner * k, 1, k), Array(OUTPUT, 0), (outer, k, inner), "int64"))
    return parts.plan(tuple(launches), (access,), (Output(),), cost=Cost(x.size, x.nbytes, work))


def _inserts(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    x = operands[0]
    return 0 < params["k"] <= min(FEW, x.shape[params["dim"]] // 4) and x.size >= LARGE


TOP = (Implementation("kernel", _inserted_top, _inserts), host("numpy", sorted_top, NUMPY))
