"""How a product of two matrices runs on the CPU: NumPy's BLAS where it is small, our kernel where that is faster."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.elementwise.loops import repeat_number
from funcnn.kernels.cpu.matmul.epilogue import ACTIVATIONS, EACH_LANE, EACH_ROW, NO_AFFINE
from funcnn.kernels.cpu.matmul.product import multiply, work_size
from funcnn.kernels.cpu.vector.tiles import strided_shape
from funcnn.kernels.implementation import ANY, CONTIGUOUS, REAL, Implementation, Operand, host
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    SCRATCH,
    Access,
    Array,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Workers,
)  # fmt: skip

PRODUCTS_FOR_KERNEL = 1 << 18  # from so many on NumPy's BLAS uses, and spins, threads of its own; below, it costs less
FLOP_NS = 0.01  # a flop on one core
LEAST_EXTENT = 8  # rows, columns and terms of a sum below which the kernel's tiles are mostly empty
BLAS = "NumPy's BLAS, which costs less for small products; what is no float has no kernel"
RESULT = Array(OUTPUT, 0)


# ---- one product ------------------------------------------------------------------------------------------------------
class Matrix(NamedTuple):
    """A factor: its memory, rows and columns, and how many elements on its next row and its next column lie."""

    array: Array
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def transposed(self) -> Matrix:
        """Returns the transpose."""
        return Matrix(self.array, self.shape[::-1], self.strides[::-1])

    def packing(self, wide: int) -> float:
        """Returns what packing it costs in moved elements, with the work on columns that are not there."""
        count, lanes = self.shape
        waste = -(-lanes // wide) * wide / lanes - 1
        return (1 if self.strides[1] == 1 else 3) * count * lanes + waste * lanes * count * 4

    def reading(self) -> float:
        """Returns what packing it costs as the left factor: nothing where its rows are contiguous."""
        return 0 if self.strides[1] == 1 else 2 * prod(self.shape)


class Epilogue(NamedTuple):
    """What is done to the product before it is written: ``activation(product * scale + shift + residual)``.

    extra: a shift for each column, then, if ``scaled``, the scales. residual: it lies as the result does. activation: one of
    ``ACTIVATIONS``.
    """

    extra: Array | None = None
    scaled: bool = False
    residual: Array | None = None
    activation: str | None = None


def product(
    a: Matrix, b: Matrix, out: Array, dtype: np.dtype, scratch: list[Scratch], epilogue: Epilogue = Epilogue(),
    times: int = 1,
) -> Launch:  # fmt: skip
    """Returns the launch of out (m, n) = epilogue(a (m, k) @ b (k, n)), one stride of each factor 1, and in ``scratch`` their memory.

    Which of the two is packed into panels, whole, is what costs less.
    """
    n, wide = b.shape[1], strided_shape(dtype.itemsize)[1]
    if b.packing(wide) + a.reading() <= a.transposed.packing(wide) + b.transposed.reading():
        return _launch(a, b, out, (n, 1), EACH_LANE, dtype, scratch, epilogue, times)
    return _launch(b.transposed, a.transposed, out, (1, n), EACH_ROW, dtype, scratch, epilogue, times)


def _launch(
    a: Matrix, b: Matrix, out: Array, lie: tuple[int, int], each: int, dtype: np.dtype, scratch: list[Scratch],
    epilogue: Epilogue, times: int,
) -> Launch:  # fmt: skip
    """Returns the kernel on a (many, count) and b (count, lanes); element (i, j) of its result ``lie``s i, j times that far in out."""
    rows, wide = tile = strided_shape(dtype.itemsize)
    (many, count), lanes = a.shape, b.shape[1]
    tiles, panels = -(-many // rows), -(-lanes // wide)
    threads = Workers(2 * FLOP_NS * many * count * lanes)
    block = max(1, -(-tiles * panels // 16) // panels) if panels < 16 else tiles
    sizes, strides = (many, count, lanes), (*a.strides, *b.strides, *lie)
    work = _room(scratch, dtype, work_size(tile, sizes, strides))
    room = _room(scratch, dtype, rows * wide, each_worker=True)
    extra, scaled, residual, activation = epilogue
    finish = (
        each if extra is not None else NO_AFFINE,
        scaled,
        residual is not None,
        ACTIVATIONS.index(activation),
    )
    args = (a.array, b.array, out, extra or work, residual or out, work, room, tile, sizes, strides, block, finish,
            threads)  # fmt: skip
    return Launch(multiply, args, times)


def _room(scratch: list[Scratch], dtype: np.dtype, size: int, each_worker: bool = False) -> Array:
    scratch.append(Scratch(dtype.name, size, each_worker))
    return Array(SCRATCH, len(scratch) - 1)


def _cost(m: int, k: int, n: int, times: int = 1) -> Cost:
    return Cost(nanoseconds=2.0 * FLOP_NS * m * k * n * times)


# ---- how factors lie ----------------------------------------------------------------------------------------------------
def _laid(x: Operand) -> tuple[Access, tuple[int, ...], tuple[int, int]]:
    """Returns how a batch of factors is to lie, and in elements its strides and those of a factor.

    It lies as it is where each is contiguous, or its transpose is. An axis of the batch along which one stands for all is left out.
    """
    lead = x.ndim - 2
    repeated = tuple(axis for axis in x.repeated if axis < lead)
    seen = x.without(repeated)
    order, plain = seen.order, tuple(range(seen.ndim))
    if order is None or set(order[-2:]) != set(plain[-2:]):
        order = plain
    strides, step = [0] * seen.ndim, 1
    for axis in reversed(order):
        strides[axis] = step
        step *= seen.shape[axis]
    own = iter(strides)
    whole = tuple(0 if axis in repeated else next(own) for axis in range(lead))
    return Access(None if order == plain else order, repeated), whole, (strides[-2], strides[-1])


def _simple(x: Operand) -> bool:
    """Whether each matrix is contiguous, as it is or transposed."""
    matrix = Operand(x.shape[-2:], x.dtype, x.strides[-2:])
    return matrix.contiguous or matrix.permuted((1, 0)).contiguous


def _large(m: int, k: int, n: int, *factors: Operand) -> bool:
    """Whether our kernel is chosen: for large products of factors that are contiguous, as they are or transposed."""
    fits = factors[0].dtype.char in REAL and min(m, k, n) >= LEAST_EXTENT and m * k * n >= PRODUCTS_FOR_KERNEL
    return fits and all(map(_simple, factors))


# ---- batches of products ------------------------------------------------------------------------------------------------
def _runs(lead: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Returns the products of a batch as runs ``(times, offsets, steps)`` whose factors and results lie evenly apart."""
    grid = np.indices(lead).reshape(len(lead), prod(lead))
    places = np.array(strides, np.int64).reshape(len(strides), len(lead)) @ grid
    ahead, runs, first = np.diff(places, axis=1), [], 0
    while first < places.shape[1]:
        step = ahead[:, first] if first < ahead.shape[1] else np.zeros(len(strides), np.int64)
        uneven = np.flatnonzero((ahead[:, first:] != step[:, None]).any(0))
        times = int(uneven[0]) + 1 if uneven.size else places.shape[1] - first
        runs.append((times, tuple(places[:, first].tolist()), tuple(step.tolist())))
        first += times
    return runs


def _matmul_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    a, b = operands
    (m, k), n = a.shape[-2:], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if a.dtype.char not in REAL:
        return None
    if not (m and k and n and prod(lead)):
        return LaunchPlan((), (ANY, ANY), (Output("zeros"),))
    (first, ahead_a, by_a), (second, ahead_b, by_b) = _laid(a), _laid(b)
    steps = [
        tuple(0 if size == 1 else stride for size, stride in zip(x.shape[:-2], ahead, strict=True))
        for x, ahead in ((a, ahead_a), (b, ahead_b))
    ]
    steps = [(0,) * (len(lead) - len(step)) + step for step in steps]
    of_out = tuple(m * n * prod(lead[axis + 1 :]) for axis in range(len(lead)))
    launches: list[Launch] = []
    for times, offsets, ahead in _runs(lead, *steps, of_out):
        arrays = [
            Array(*place, (rows * columns,), offset, step) if lead else Array(*place)
            for place, (rows, columns), offset, step in zip(
                ((INPUT, 0), (INPUT, 1), (OUTPUT, 0)), ((m, k), (k, n), (m, n)), offsets, ahead, strict=True
            )
        ]
        scratch: list[Scratch] = []  # the same for all
        left, right = Matrix(arrays[0], (m, k), by_a), Matrix(arrays[1], (k, n), by_b)
        launches.append(product(left, right, arrays[2], a.dtype, scratch, times=times))
    cost = _cost(m, k, n, prod(lead))
    return LaunchPlan(tuple(launches), (first, second), (Output(),), tuple(scratch), cost=cost)


def _matmul_pays(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    a, b = operands
    return _large(a.shape[-2], a.shape[-1], b.shape[-1], a, b)


def _matmul(ins: list, outs: list) -> None:
    np.matmul(ins[0], ins[1], out=outs[0])


matmul = (Implementation("kernel", _matmul_plan, _matmul_pays), host("blas", _matmul, BLAS))


# ---- linear -------------------------------------------------------------------------------------------------------------
def _rows(x: Operand) -> Operand:
    """Returns (*, k) as (rows, k), with the strides that it has there, or those of a contiguous copy."""
    step = x.itemsize
    copied = Operand((prod(x.shape[:-1]), x.shape[-1]), x.dtype, (x.shape[-1] * step, step))
    if x.ndim == 1 or not x.size:
        return copied
    axes = [axis for axis in range(x.ndim - 1) if x.shape[axis] > 1]
    if any(x.strides[one] != x.strides[two] * x.shape[two] for one, two in zip(axes, axes[1:], strict=False)):
        return copied
    return Operand(copied.shape, x.dtype, (x.strides[axes[-1]], x.strides[-1])) if axes else copied


def _linear_plan(activation: str | None, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    """Computes out (*, n) = activation(x (*, k) @ w (n, k)' (+ bias))."""
    x, w, *biases = operands
    (n, k), m = w.shape, prod(x.shape[:-1])
    if x.dtype.char not in REAL or (k == 0 and m * n):
        return None
    if not m * n:
        return LaunchPlan((), (ANY,) * len(operands), (Output(),))
    scratch: list[Scratch] = []
    access, _, strides = _laid(x) if x.ndim == 2 else (CONTIGUOUS, (), (k, 1))
    left, (second, _, transposed) = Matrix(Array(INPUT, 0), (m, k), strides), _laid(w)
    right = Matrix(Array(INPUT, 1), (n, k), transposed).transposed
    launches: list[Launch] = []
    extra = None
    if biases:
        extra = Array(INPUT, 2)
        if biases[0].size < n:
            extra = _room(scratch, x.dtype, n)
            launches.append(Launch(repeat_number, (Array(INPUT, 2), extra), once=True))
    launches.append(product(left, right, RESULT, x.dtype, scratch, Epilogue(extra, activation=activation)))
    accesses = (access, second, *(CONTIGUOUS for _ in biases))
    cost = _cost(m, k, n)
    return LaunchPlan(tuple(launches), accesses, (Output(),), tuple(scratch), cost=cost)


def _linear_pays(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    x, w = operands[:2]
    return _large(prod(x.shape[:-1]), w.shape[1], w.shape[0], _rows(x), w)


def _linear(ins: list, outs: list) -> None:
    x, w = ins[0], ins[1]
    out = outs[0].reshape(-1, w.shape[0]) if outs[0].size else outs[0]
    if not x.size or not out.size:
        outs[0][...] = ins[2] if len(ins) > 2 else 0
        return
    np.matmul(x.reshape(-1, w.shape[1]), w.T, out=out)
    if len(ins) > 2:
        out += ins[2]


def _linear_relu(ins: list, outs: list) -> None:
    _linear(ins, outs)
    np.maximum(outs[0], 0, out=outs[0])


linear = (Implementation("kernel", partial(_linear_plan, None), _linear_pays), host("blas", _linear, BLAS))
linear_relu = (Implementation("kernel", partial(_linear_plan, "relu"), _linear_pays), host("blas", _linear_relu, BLAS))
