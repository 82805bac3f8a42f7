"""Checks, once for each plan, that each argument of its launches has the elements that its kernel declares to touch."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.facts import evaluated, given_by_name
from funcnn.kernels.cpu.tables import with_lengths
from funcnn.kernels.cpu.threads.number import available
from funcnn.kernels.launch import (
    CONSTANT,
    INPUT,
    OUTPUT,
    STATUS_WORDS,
    Array,
    Count,
    Launch,
    LaunchPlan,
    Status,
    Table,
    Workers,
)  # fmt: skip


class Length:
    """Stands for an array of which the shape and dtype are known."""

    __slots__ = ("dtype", "itemsize", "ndim", "shape", "size")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self.size, self.ndim, self.itemsize = prod(shape), len(shape), dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]


def compare_lengths(plan: LaunchPlan, ins: tuple, outs: tuple, shapes: dict) -> None:
    """Raises ``ValueError`` where a launch touches more elements of an argument than it has.

    shapes: the shape of each buffer, by its kind and number; None for scratch of each worker, which is checked for the most workers.
    """
    dtypes = {
        **{
            (INPUT, i): np.dtype(read.dtype or x.dtype)
            for i, (x, read) in enumerate(zip(ins, plan.inputs, strict=True))
        },
        **{
            (OUTPUT, i): np.dtype(out.dtype or y.dtype)
            for i, (y, out) in enumerate(zip(outs, plan.outputs, strict=True))
        },
        **{("scratch", i): np.dtype(s.dtype) for i, s in enumerate(plan.scratch)},
    }
    lengths = {
        key: shape if shape is not None else (plan.scratch[key[1]].size * available(),) for key, shape in shapes.items()
    }
    for launch in plan.launches:
        args = tuple(_known(arg, launch, plan, lengths, dtypes) for arg in launch.args)
        named = given_by_name(launch.kernel, args)
        _compare(launch.kernel, named)
        _compare_tables(
            launch, named, {key: Length(shape, dtypes[key]) for key, shape in lengths.items() if key in dtypes}
        )


def _known(arg: Any, launch: Launch, plan: LaunchPlan, lengths: dict, dtypes: dict) -> Any:
    """Returns what stands for an argument: a ``Length`` for an array, the value itself for a constant or a number."""
    if isinstance(arg, Workers):
        return available()
    if isinstance(arg, Status):
        return Length((STATUS_WORDS,), np.dtype(np.int64))
    if isinstance(arg, Count):
        return Length((1,), np.dtype(np.int64))
    if isinstance(arg, Table):
        return with_lengths(arg, {key: prod(shape) for key, shape in lengths.items()})
    if not isinstance(arg, Array):
        return arg
    if arg.buffer == CONSTANT and not arg.offset and launch.times == 1:
        array = plan.constants[arg.number].array
        if arg.shape is None or prod(arg.shape) == array.size:
            return array.reshape(-1 if arg.shape is None else arg.shape)
    dtype = plan.constants[arg.number].array.dtype if arg.buffer == CONSTANT else dtypes[arg.buffer, arg.number]
    whole = prod(lengths[arg.buffer, arg.number])
    shape = (whole - arg.offset,) if arg.shape is None else arg.shape
    last = arg.offset + arg.step * (launch.times - 1) + (prod(shape) if arg.shape is not None else 0)
    if last > whole:
        raise ValueError(f"kernel {launch.kernel.__name__}: {arg} ends at {last}, but the buffer has {whole} elements")
    return Length(shape, np.dtype(arg.dtype or dtype))


def _compare(kernel: Any, named: dict[str, Any]) -> None:
    for name, rule in kernel.facts.touches.items():
        touched = int(evaluated(rule, named))
        if named[name].size < touched:
            told = ", ".join(f"{k}={v.dtype}{v.shape}" if hasattr(v, "shape") else f"{k}={v}" for k, v in named.items())
            raise ValueError(
                f"kernel {kernel.__name__} touches {touched} elements of its argument {name}, which has "
                f"{named[name].size}; the arguments are {told}"
            )


def _compare_tables(launch: Launch, named: dict[str, Any], buffers: dict[tuple[str, int], Length]) -> None:
    """Compares what lies behind the addresses of tables, by length and by dtype."""
    kernel = launch.kernel
    tables = given_by_name(kernel, launch.args)
    for name, rule in kernel.facts.tables.items():
        rows = tables[name].rows
        for r, (row, known) in enumerate(zip(rows, evaluated(rule, named), strict=True)):
            for one, touched in zip(row, known.touched, strict=True):
                if buffers[one].size < touched or buffers[one].dtype != known.dtype:
                    raise ValueError(
                        f"kernel {kernel.__name__} touches {touched} elements of {np.dtype(known.dtype)} behind row {r} of "
                        f"its argument {name}, where {' '.join(map(str, one))} has {buffers[one].size} of {buffers[one].dtype}"
                    )
