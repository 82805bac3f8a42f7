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

INSERTED_ELEMENTS = 64  # of a row at most, which are kept in order by insertion
ELEMENTS_FOR_KERNEL = 1 << 12  # below, NumPy's sort costs less
ELEMENT_NS = 1.0  # nanoseconds of an element


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
    """Plans the first k of each row by insertion; indices along an inner axis are found in rows and transposed afterwards."""
    (x,), dim, k = operands, params["dim"], params["k"]
    if not x.size or not k or x.dtype.char not in "fd":
        return None
    n, outer, inner = x.shape[dim], prod(x.shape[:dim]), prod(x.shape[dim + 1 :])
    work, parts, access = x.size * ELEMENT_NS, Parts(), Access()
    rows = Array(OUTPUT, 0) if inner == 1 else parts.room("int64", outer * inner * k)
    launches = [Launch(top_rows, (Array(INPUT, 0), rows, n, k, params["largest"], Workers(work)))]
    if inner > 1:
        access = Access(order=(*range(dim), *range(dim + 1, x.ndim), dim))
        launches.append(laid_out(parts, rows, (inner * k, 1, k), Array(OUTPUT, 0), (outer, k, inner), "int64"))
    return parts.plan(tuple(launches), (access,), (Output(),), cost=Cost(nanoseconds=work))


def _inserts(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    x = operands[0]
    return 0 < params["k"] <= min(INSERTED_ELEMENTS, x.shape[params["dim"]] // 4) and x.size >= ELEMENTS_FOR_KERNEL


TOP = (Implementation("kernel", _inserted_top, _inserts), host("numpy", sorted_top, NUMPY))
ORDER = (host("numpy", argsort, "NumPy sorts whole rows; a kernel keeps the first few of a row in order (topk)"),)
