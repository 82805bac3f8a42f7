"""One update of all tensors of an optimizer's group: a table of addresses, and chunks that cross tensors.

``numbers``: a table of the hyperparameters, each a float64. ``tensors``: a table with a row for each kind of tensor (Adam:
parameter, gradient, first and second moment, largest second moment, step) and then for each place where a result goes (the
same without the gradient), a column for each tensor; the two addresses of a kind are equal for an update in place.
``chunks``: int64 rows (tensor, first element, elements, model), cut by sizes alone; a tensor may hold those of several
models one after the other, each of which counts its steps. ``factors``: scratch in the tensors' dtype, ``COMMON`` elements
for all tensors and two for each model of each. An update elsewhere copies its chunk first and then works on the copy, which
is in the cache; so every loop sees one address a tensor and vectorises.

Cost in place: Adam reads 4 and writes 3 numbers an element, SGD with momentum 3 and 2; bound by memory.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel
from funcnn.kernels.cpu.build.facts import Row
from funcnn.kernels.cpu.build.parallel import parallel_for

ADAM_FLOPS, SGD_FLOPS = 14, 4  # an element
CHUNK_ELEMENTS = 1 << 14  # Adam's four streams of a chunk fit in the cache of a core
COMMON = 8  # factors that all tensors have in common
TENSOR, START, COUNT, MODEL = 0, 1, 2, 3  # columns of chunks


def _at_twin(address: int, size: int, kind: Any) -> Any:
    dtype = kind.dtype if isinstance(kind, np.ndarray) else np.dtype(kind)
    raw = (ctypes.c_char * (int(size) * dtype.itemsize)).from_address(int(address))
    return np.frombuffer(raw, dtype)


@intrinsic(twin=_at_twin)
def at_address(typingctx: Any, address: Any, size: Any, kind: Any) -> Any:
    """A pointer to ``size`` elements at an address, of a dtype: that of the array ``kind``, or ``kind`` itself."""
    from numba.core import types

    result = types.CPointer(kind.dtype)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(result))

    return result(types.int64, types.intp, kind), codegen


@device_function
def _number(numbers, at):
    """A hyperparameter."""
    return at_address(numbers[0, 0, at], 1, np.float64)[0]


@device_function
def _moved(source, target, start, count, kind):
    """A pointer to the chunk at ``target``, after it got the numbers of ``source``."""
    offset = start * kind.itemsize
    y = at_address(target + offset, count, kind)
    if source != target:
        x = at_address(source + offset, count, kind)
        for i in range(count):
            y[i] = x[i]
    return y


@device_function
def _adam_chunk(chunk, worker, tensors, chunks, models, factors, decays, amsgrad):
    tensor, start, count = chunks[chunk, TENSOR], chunks[chunk, START], chunks[chunk, COUNT]
    moments = 3 if amsgrad else 2
    out = 3 + moments
    own = COMMON + 2 * (tensor * models + chunks[chunk, MODEL])
    sign, add, keep = factors[0], factors[1], factors[2]
    keep1, new1, keep2, new2 = factors[3], factors[4], factors[5], factors[6]
    eps, rate, scale = factors[7], factors[own], factors[own + 1]
    zero = factors.dtype.type(0)
    p = _moved(tensors[0, 0, tensor], tensors[0, out, tensor], start, count, factors)
    g = at_address(tensors[0, 1, tensor] + start * factors.itemsize, count, factors)
    m = _moved(tensors[0, 2, tensor], tensors[0, out + 1, tensor], start, count, factors)
    v = _moved(tensors[0, 3, tensor], tensors[0, out + 2, tensor], start, count, factors)
    if amsgrad:
        top = _moved(tensors[0, 4, tensor], tensors[0, out + 3, tensor], start, count, factors)
        for i in range(count):
            x = p[i]
            slope = sign * g[i] + (add * x if decays else zero)
            first = keep1 * m[i] + new1 * slope
            second = keep2 * v[i] + new2 * (slope * slope)
            held = top[i]
            most = held if held > second or held != held else second
            m[i], v[i], top[i] = first, second, most
            p[i] = keep * x - rate * (first / (np.sqrt(most) * scale + eps))
    else:
        for i in range(count):
            x = p[i]
            slope = sign * g[i] + (add * x if decays else zero)
            first = keep1 * m[i] + new1 * slope
            second = keep2 * v[i] + new2 * (slope * slope)
            m[i], v[i] = first, second
            p[i] = keep * x - rate * (first / (np.sqrt(second) * scale + eps))


def _ends(chunks: Any, count: int) -> list[int]:
    """How far the chunks go in each tensor."""
    ends = np.zeros(count, np.int64)
    np.maximum.at(ends, chunks[:, TENSOR], chunks[:, START] + chunks[:, COUNT])
    return ends.tolist()


def _rows(tensors: Any, chunks: Any, models: int, factors: Any, slots: int, counts: bool) -> list[Row]:
    """The rows of a table of tensors with ``slots`` slots like them and, perhaps, a counter."""
    columns = tensors.shape[2]
    like, step = Row(factors.dtype, _ends(chunks, columns)), Row(np.float32, [models] * columns)
    counter = [step] if counts else []
    return [like, like, *[like] * slots, *counter, like, *[like] * slots, *counter]


def _hyper(numbers: Any) -> list[Row]:
    return [Row(np.float64, [1] * numbers.shape[2])]


_TOUCHES = {
    "factors": lambda tensors, models: COMMON + 2 * tensors.shape[2] * models,
    "chunks": lambda chunks: 4 * len(chunks),
}
_ADAM = {
    "touches": _TOUCHES,
    "tables": {
        "numbers": _hyper,
        "tensors": lambda tensors, chunks, models, factors, amsgrad: _rows(
            tensors, chunks, models, factors, 3 if amsgrad else 2, True
        ),
    },
}
_SGD = {
    "touches": _TOUCHES,
    "tables": {
        "numbers": _hyper,
        "tensors": lambda tensors, chunks, models, factors, moving, stepping: _rows(
            tensors, chunks, models, factors, int(moving), stepping
        ),
    },
}


@kernel(**_ADAM)
def adam_update(numbers, tensors, chunks, models, factors, amsgrad, maximize, decoupled, workers):
    """Adam (arXiv:1412.6980, algorithm 1) and AdamW (arXiv:1711.05101) on every tensor of the table.

    numbers: lr, beta1, beta2, eps, weight_decay. factors: the sign of the gradient, the decay added to it, what is kept of
    the parameter, both moments' weights of old and new, eps; of each model of a tensor the rate and the scale.
    """
    lr, beta1, beta2 = _number(numbers, 0), _number(numbers, 1), _number(numbers, 2)
    eps, decay = _number(numbers, 3), _number(numbers, 4)
    steps, kind = 5 if amsgrad else 4, factors.dtype.type
    for i in range(tensors.shape[2]):
        before = at_address(tensors[0, steps, i], models, np.float32)
        after = at_address(tensors[0, 2 * steps, i], models, np.float32)
        for model in range(models):
            step = before[model] + np.float32(1)
            after[model] = step
            own = COMMON + 2 * (i * models + model)
            factors[own] = kind(lr / (1.0 - beta1 ** np.float64(step)))
            factors[own + 1] = kind(1.0 / np.sqrt(1.0 - beta2 ** np.float64(step)))
    factors[0] = kind(-1.0 if maximize else 1.0)
    factors[1] = kind(0.0 if decoupled else decay)
    factors[2] = kind(1.0 - lr * decay if decoupled else 1.0)
    factors[3], factors[4] = kind(beta1), kind(1.0 - beta1)
    factors[5], factors[6] = kind(beta2), kind(1.0 - beta2)
    factors[7] = kind(eps)
    decays = decay != 0 and not decoupled
    parallel_for(_adam_chunk, chunks.shape[0], workers, (tensors, chunks, models, factors, decays, amsgrad))


@device_function
def _sgd_chunk(chunk, worker, tensors, chunks, models, factors, moving, out):
    tensor, start, count = chunks[chunk, TENSOR], chunks[chunk, START], chunks[chunk, COUNT]
    sign, add, lr = factors[0], factors[1], factors[2]
    zero, decays = factors.dtype.type(0), add != 0
    p = _moved(tensors[0, 0, tensor], tensors[0, out, tensor], start, count, factors)
    g = at_address(tensors[0, 1, tensor] + start * factors.itemsize, count, factors)
    if moving:
        keep, ahead = factors[3], factors[4]
        new = factors[COMMON + 2 * (tensor * models + chunks[chunk, MODEL])]
        direct = factors[5]  # Nesterov's step is the slope and the velocity ahead
        v = _moved(tensors[0, 2, tensor], tensors[0, out + 1, tensor], start, count, factors)
        for i in range(count):
            x = p[i]
            slope = sign * g[i] + (add * x if decays else zero)
            velocity = keep * v[i] + new * slope
            v[i] = velocity
            p[i] = x - lr * (ahead * velocity + (direct * slope if direct > zero else zero))
    else:
        for i in range(count):
            x = p[i]
            p[i] = x - lr * (sign * g[i] + (add * x if decays else zero))


@kernel(**_SGD)
def sgd_update(numbers, tensors, chunks, models, factors, moving, stepping, nesterov, maximize, workers):
    """Gradient descent with momentum (Sutskever et al., 2013) on every tensor of the table.

    numbers: lr, momentum, dampening, weight_decay. moving: the third row is the velocity; stepping: the next one counts
    steps, for the first of which there is no dampening. factors: the sign of the gradient, the decay added to it, lr, the
    velocity's weight of old and in the step, the slope's in the step; of each model of a tensor the velocity's weight of new.
    """
    lr, momentum, dampening, decay = _number(numbers, 0), _number(numbers, 1), _number(numbers, 2), _number(numbers, 3)
    out, kind = 2 + (1 if moving else 0) + (1 if stepping else 0), factors.dtype.type
    for i in range(tensors.shape[2]):
        for model in range(models):
            factors[COMMON + 2 * (i * models + model)] = kind(1.0 - dampening)
        if stepping:
            before = at_address(tensors[0, 3, i], models, np.float32)
            after = at_address(tensors[0, out + 2, i], models, np.float32)
            for model in range(models):
                if before[model] == 0:
                    factors[COMMON + 2 * (i * models + model)] = kind(1.0)
                after[model] = before[model] + np.float32(1)
    factors[0], factors[1], factors[2] = kind(-1.0 if maximize else 1.0), kind(decay), kind(lr)
    factors[3], factors[4] = kind(momentum), kind(momentum if nesterov else 1.0)
    factors[5] = kind(1.0 if nesterov else 0.0)
    parallel_for(_sgd_chunk, chunks.shape[0], workers, (tensors, chunks, models, factors, moving, out))
