"""What an evaluation or a launch costs, for the profiler: as its primitive declares (``core.cost``), from the shapes it met."""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import numpy as np

from funcnn.core.cost import Sized, bytes_of, flops_of
from funcnn.core.primitive import Primitive
from funcnn.kernels.cpu.build.facts import NO_FACTS, evaluated, given_by_name


def facts(arrays: list) -> tuple:
    """Shape, dtype and bytes of the first, of the second and so on, in one plain tuple."""
    found: list = []
    for a in arrays:
        found += (a.shape, a.dtype, a.nbytes if 0 not in a.strides else _real(a))
    return tuple(found)


def arrays(found: tuple) -> list[Sized]:
    """What ``facts`` were noted of."""
    return [Sized(*found[i : i + 3]) for i in range(0, len(found), 3)]


def _real(array: np.ndarray) -> int:
    """The bytes without what broadcasting repeats."""
    real = prod([n for n, stride in zip(array.shape, array.strides, strict=True) if stride])
    return real * array.itemsize if array.size else 0


def of(prim: Primitive, ins: list[Sized], outs: list[Sized], params: dict) -> tuple[float, float]:
    """Returns the flops and the bytes of one application; a rule that raises costs a warning, and counts as none."""
    if prim.view is not None:
        return 0.0, 0.0
    found = []
    for rule in (flops_of, bytes_of):
        try:
            found.append(rule(prim, ins, outs, params))
        except Exception as error:
            warnings.warn(
                f"profile: the cost rule of {prim.name} raised {type(error).__name__}: {error}; it is charged nothing",
                stacklevel=2,
            )
            found.append(0.0)
    return found[0], found[1]


# ---- kernels -----------------------------------------------------------------------------------------------------------
MOVERS = (
    "copy",
    "fill",
    "gather",
    "pack",
    "put",
    "repeat",
    "spread",
    "take",
    "transpose",
)  # names of kernels that only move elements


def of_kernel(kernel: Any, args: tuple) -> float:
    """The bytes that a kernel's own arguments tell: of its arrays, scratch included, and behind its tables of addresses."""
    tables = getattr(kernel, "facts", NO_FACTS).tables
    if not tables:
        return kernel_bytes(args)
    named = given_by_name(kernel, args)
    rows = [row for rule in tables.values() for row in evaluated(rule, named)]
    behind = sum(np.dtype(row.dtype).itemsize * sum(row.touched) for row in rows)
    return float(behind) + kernel_bytes(tuple(value for name, value in named.items() if name not in tables))


def kernel_bytes(args: tuple) -> float:
    """The bytes of a kernel's array arguments, scratch included, each array once."""
    total, stack, met = 0, list(args), set()
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, np.ndarray) and id(item) not in met:
            met.add(id(item))
            total += item.nbytes
    return float(total)
