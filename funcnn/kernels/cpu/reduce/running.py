"""How running sums, products and affine recurrences run on the CPU: by kernels where there are many elements, else by NumPy."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.reduce import scan as kernels
from funcnn.kernels.cpu.reduce.launch import FEW_OR_OTHER
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Workers

ELEMENTS_FOR_KERNEL = 1 << 12  # below, NumPy's call costs less
ELEMENT_NS, AFFINE_ELEMENT_NS = 0.4, 1.6  # nanoseconds of an element
NO_KERNEL = "a running logarithm of a sum has no kernel yet: NumPy's logaddexp goes along the axis"
LATEST = "no training step asks where a running extremum was met: NumPy's ufuncs go along the axis"
Operands = tuple[Operand, ...]


def _plan(kernel: Any, cost: float, operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """Makes the plan along ``dim`` by a kernel that reads all operands, of the output's shape."""
    x = operands[-1]
    if not x.size or x.dtype.char not in "fd":
        return None
    n, inner = x.shape[params["dim"]], prod(x.shape[params["dim"] + 1 :])
    arrays, work = [Array(INPUT, i) for i in range(len(operands))], x.size * cost
    args = (*arrays, Array(OUTPUT, 0), n, inner, params.get("backwards", False), Workers(work))
    return LaunchPlan((Launch(kernel, args),), (CONTIGUOUS,) * len(operands), (Output(),), cost=Cost(nanoseconds=work))


def _many(operands: Operands, params: dict[str, Any]) -> bool:
    return operands[-1].size >= ELEMENTS_FOR_KERNEL


def running(ufunc: np.ufunc, kernel: Any = None) -> tuple[Implementation, ...]:
    """Makes the implementations of a running reduction whose accumulator is float64 for every floating dtype.

    Its parameters are ``dim`` and, from the end, ``backwards``. kernel: what does it where there are many elements.
    """

    def plain(ins: list, outs: list, dim: int, backwards: bool = False) -> None:
        x, out = (np.flip(t, dim) if backwards else t for t in (ins[0], outs[0]))
        wide = x.dtype if x.dtype.kind != "f" else np.float64
        np.copyto(out, ufunc.accumulate(x, dim, dtype=wide), casting="unsafe")

    if kernel is None:
        return (host("numpy", plain, NO_KERNEL),)
    return (
        Implementation("kernel", lambda operands, params: _plan(kernel, ELEMENT_NS, operands, params), _many),
        host("numpy", plain, FEW_OR_OTHER),
    )


def latest(ufunc: np.ufunc) -> tuple[Implementation, ...]:
    """Makes what finds where a running extremum was met last: the latest index that equals it (or is NaN)."""

    def plain(ins: list, outs: list, dim: int) -> None:
        x = ins[0]
        best = ufunc.accumulate(x, dim)
        steps = np.arange(x.shape[dim]).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
        np.maximum.accumulate(np.where((x == best) | (x != x), steps, 0), dim, out=outs[0])

    return (host("numpy", plain, LATEST),)


def _plain_affine(ins: list, outs: list, dim: int, backwards: bool = False) -> None:
    a, b, s = (np.moveaxis(t, dim, 0) for t in (*ins, outs[0]))
    if backwards:
        a, b, s = np.roll(a[::-1], 1, 0), b[::-1], s[::-1]  # a of the step before
    s[:1] = b[:1]
    for t in range(1, len(s)):
        np.multiply(a[t : t + 1], s[t - 1 : t], out=s[t : t + 1])
        s[t] += b[t]


affine = (
    Implementation(
        "kernel", lambda operands, params: _plan(kernels.affine_scan, AFFINE_ELEMENT_NS, operands, params), _many
    ),
    host("numpy", _plain_affine, FEW_OR_OTHER),
)
