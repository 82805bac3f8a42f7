"""Kernels that only look at numbers, and refuse the first that is not as an operation wants it: by the status words."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.refusal import word

CHUNK_ELEMENTS = 1 << 14


@intrinsic(twin=lambda value: word(np.asarray(value)[()]))
def status_word(typingctx: Any, value: Any) -> Any:
    """A number as a status word: an integer as it is, of a float the bits in float64."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if isinstance(value, types.Float):
            return builder.bitcast(
                context.cast(builder, values[0], value, types.float64), context.get_value_type(types.int64)
            )
        return context.cast(builder, values[0], value, types.int64)

    return types.int64(value), codegen


def _chunk(chunk, worker, x, params, status):
    p, found = pointer(x, chunk * CHUNK_ELEMENTS), False
    for i in range(min(CHUNK_ELEMENTS, x.size - chunk * CHUNK_ELEMENTS)):
        found |= bad(p[i], *params)  # noqa: F821, a helper that the template is given
    if found:
        status[0] = 1


def _look(x, params, operand, status, threads):
    """Refuses the first element of operand ``operand`` that is bad by ``bad(element, *params)``."""
    parallel_for(body, (x.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS, threads, (x, params, status))  # noqa: F821
    if status[0] != 0:
        p, at = pointer(x, 0), 0
        while not bad(p[at], *params):  # noqa: F821
            at += 1
        status[1], status[2], status[3] = operand, at, status_word(p[at])


def look(name, bad):
    """The kernel ``(x, params, operand, status, threads)`` that refuses the first x for which ``bad(x, *params)`` holds."""
    whole = Facts(touches={"x": lambda x: x.size})
    return kernel_from(_look, name, whole, body=kernel_from(_chunk, name + "_chunk", bad=bad), bad=bad)


@device_function
def _no_class(target, classes, ignored):
    return ((target < 0) | (target >= classes)) & (target != ignored)


@device_function
def _no_probability(p):
    return (p < 0) | (p > 1)


@device_function
def _no_chance(p):
    return not ((p >= 0) & (p <= 1))


@device_function
def _no_deviation(x):
    return not x >= 0


look_at_classes = look("look_at_classes", _no_class)
look_at_probabilities = look("look_at_probabilities", _no_probability)  # NaN passes: a loss of it is NaN
look_at_chances = look("look_at_chances", _no_chance)
look_at_deviations = look("look_at_deviations", _no_deviation)


@kernel(touches={"x": lambda rows, count: rows * count})
def look_at_weights(x, rows, count, status):
    """Refuses the first row of x (rows, count) whose numbers are not finite, at least 0, with a sum above 0."""
    for row in range(rows):
        p, total, good = pointer(x, row * count), 0.0, True
        for i in range(count):
            good &= (p[i] >= 0) & (p[i] < np.inf)
            total += p[i]
        if not (good and total > 0):
            status[0], status[1], status[2], status[3] = 1, 0, row, 0
            return
