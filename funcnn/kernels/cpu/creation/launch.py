"""How tensors are made on the CPU: plans that fill and count up, and NumPy's functions for few elements."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.creation.ranges import count_up, fill
from funcnn.kernels.implementation import NUMPY, Implementation, Operand, host
from funcnn.kernels.launch import OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Workers

Operands = tuple[Operand, ...]
NANOSECONDS = 0.1  # of one byte
BYTES_FOR_KERNEL = 1 << 19
COUNTED = (np.dtype(np.int64), np.dtype(np.float64))  # what elements are counted in: others are made of these


def bits_of(dtype: np.dtype) -> str:
    """Returns the unsigned integer that has an element's bits."""
    return f"uint{8 * dtype.itemsize}"


def filling(size: int, number: np.ndarray) -> Launch:
    """Returns the launch that sets the whole output, of so many elements, to a 0-d array of its dtype."""
    bits = bits_of(number.dtype)
    work = Workers(size * number.itemsize * NANOSECONDS)
    return Launch(fill, (Array(OUTPUT, 0, dtype=bits), number.view(bits)[()], work))


def _full(operands: Operands, params: dict[str, Any]) -> LaunchPlan:
    size, dtype = prod(params["shape"]), np.dtype(params["dtype"])
    launches = (filling(size, np.full((), params["value"], dtype)),) if size else ()
    moved = size * dtype.itemsize
    return LaunchPlan(launches, (), (Output(),), cost=Cost(nanoseconds=moved * NANOSECONDS))


def _iota(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    size, start, step, dtype = params["size"], params["start"], params["step"], np.dtype(params["dtype"])
    whole = isinstance(start, int) and isinstance(step, int)
    if dtype not in COUNTED or whole != (dtype.kind == "i"):
        return None
    work = Workers(size * dtype.itemsize * NANOSECONDS)
    launch = Launch(count_up, (Array(OUTPUT, 0), dtype.type(start), dtype.type(step), work))
    cost = Cost(nanoseconds=work.nanoseconds)
    return LaunchPlan((launch,) if size else (), (), (Output(),), cost=cost)


def counted(size: int, start: Any, step: Any) -> np.ndarray:
    """Returns start, start + step, ... in int64, or in float64 where one of them is a fraction."""
    whole = isinstance(start, int) and isinstance(step, int)
    return start + step * np.arange(size, dtype=np.int64 if whole else np.float64)


def _plain_iota(ins: list, outs: list, size: int, start: Any, step: Any, dtype: np.dtype) -> None:
    np.copyto(outs[0], counted(size, start, step), casting="unsafe")


def _large(operands: Operands, params: dict[str, Any]) -> bool:
    size = params["size"] if "size" in params else prod(params["shape"])
    return size * np.dtype(params["dtype"]).itemsize >= BYTES_FOR_KERNEL


def _eye(ins: list, outs: list, n: int, m: int, dtype: np.dtype) -> None:
    outs[0].fill(0)
    place = np.arange(min(n, m))
    outs[0][place, place] = 1


FULL = (
    Implementation("kernel", _full, _large),
    host("numpy", lambda ins, outs, shape, value, dtype: outs[0].fill(value), NUMPY),
)
IOTA = (
    Implementation("kernel", _iota, _large),
    host("numpy", _plain_iota, "NumPy's function, which costs less for few elements; it converts to other dtypes"),
)
EYE = (host("numpy", _eye, "NumPy sets one element of each row, which is little beside the zeros around them"),)
