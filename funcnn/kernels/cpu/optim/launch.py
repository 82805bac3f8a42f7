"""How an optimizer's update is computed on the CPU: launch plans with tables of the addresses of all its tensors.

The operands are the hyperparameters, then the parameters, the gradients, and each kind of slot; the results the new
parameters and slots, each of which may take over the memory of the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.optim import step as kernels
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Constant, Cost, Launch, LaunchPlan, Output, Table, Workers
from funcnn.kernels.plan_parts import Parts

BYTE_NS = 0.25  # nanoseconds a byte of the parameters


@lru_cache(maxsize=64)
def chunk_table(sizes: tuple[int, ...], models: int = 1) -> Constant:
    """Rows (tensor, first element, elements, model) that cover tensors of these sizes a model; cut by the sizes alone."""
    chunk = kernels.CHUNK_ELEMENTS
    rows = [
        (i, model * n + at, min(chunk, n - at), model)
        for i, n in enumerate(sizes)
        for model in range(models)
        for at in range(0, n, chunk)
    ]
    return Constant(np.array(rows, np.int64).reshape(-1, 4))


def _plan(kernel: Any, flags_of: Callable, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    count, names = params["count"], params["names"]
    kinds = 2 + len(names)  # of tensors
    first = len(operands) - kinds * count
    tensors = operands[first : first + count]
    models = prod(tensors[0].shape[: params["lead"]])
    accesses = (CONTIGUOUS,) * len(operands)
    read = [[(INPUT, first + row * count + i) for i in range(count)] for row in range(kinds)]
    written = [[(OUTPUT, row * count + i) for i in range(count)] for row in range(kinds - 1)]
    outputs = tuple(Output(shares=(source,)) for row in (read[0], *read[2:]) for _, source in row)
    if not models:
        return LaunchPlan((), accesses, outputs)
    parts, dtype = Parts(), tensors[0].dtype
    chunks = chunk_table(tuple(t.size // models for t in tensors), models)
    args = (
        Table((tuple((INPUT, i) for i in range(first)),)),
        Table(tuple(map(tuple, (*read, *written)))),
        parts.constant(chunks, chunks.array.shape),
        models,
        parts.room(dtype, kernels.COMMON + 2 * count * models),
        *flags_of(names, params["flags"]),
    )
    elements = sum(t.size for t in tensors)
    nanoseconds = BYTE_NS * dtype.itemsize * elements
    launch = Launch(kernel, (*args, Workers(nanoseconds)))
    return parts.plan((launch,), accesses, outputs, cost=Cost(nanoseconds=nanoseconds))


def _adam_flags(names: tuple[str, ...], flags: tuple[bool, ...]) -> tuple[bool, ...]:
    return "max_exp_avg_sq" in names, *flags


def _sgd_flags(names: tuple[str, ...], flags: tuple[bool, ...]) -> tuple[bool, ...]:
    return "momentum_buffer" in names, "step" in names, *flags


ADAM = Implementation("kernel", partial(_plan, kernels.adam_update, _adam_flags))
SGD = Implementation("kernel", partial(_plan, kernels.sgd_update, _sgd_flags))
