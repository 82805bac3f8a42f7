"""One update of all tensors of an optimizer's group: a table of addresses, and chunks that cross tensors.

``table``: int64, addresses and behind them as many lengths, in numbers, which nothing but ``check.py`` reads: a row for each
kind of tensor (Adam: parameter, gradient, first and second moment, largest second moment, step) and then for each place
where a result goes (the same without the gradient), a column for each tensor; the two addresses of a kind are equal for an
update in place. ``chunks``: int64 rows (tensor, first element, elements),
cut by sizes alone. ``kind``: any array of the tensors' dtype. An update elsewhere copies its chunk first and then works
on the copy, which is in the cache; so every loop sees one address a tensor and vectorises.

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


def _at_twin(address: int, size: int, kind: Any) -> Any:
    raw = (ctypes.c_char * (int(size) * kind.itemsize)).from_address(int(address))
    return np.frombuffer(raw, kind.dtype)


@intrinsic(twin=_at_twin)
def at_address(typingctx: Any, address: Any, size: Any, kind: Any) -> Any:
    """A pointer to ``size`` numbers of the dtype of the array ``kind`` at an address."""
    from numba.core import types

    result = types.CPointer(kind.dtype)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(result))

    return result(types.int64, types.intp, kind), codegen


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
def _adam_chunk(chunk, worker, places, chunks, kind, rates, numbers, amsgrad):
    tensor, start, count = chunks[chunk, 0], chunks[chunk, 1], chunks[chunk, 2]
    moments = 3 if amsgrad else 2
    out = 3 + moments
    number = kind.dtype.type
    sign, add, keep = number(numbers[0]), number(numbers[1]), number(numbers[2])
    keep1, new1, keep2, new2 = number(numbers[3]), number(numbers[4]), number(numbers[5]), number(numbers[6])
    eps, rate, scale = number(numbers[7]), number(rates[0, tensor]), number(rates[1, tensor])
    zero, decays = number(0), numbers[1] != 0
    p = _moved(places[0, tensor], places[out, tensor], start, count, kind)
    g = at_address(places[1, tensor] + start * kind.itemsize, count, kind)
    m = _moved(places[2, tensor], places[out + 1, tensor], start, count, kind)
    v = _moved(places[3, tensor], places[out + 2, tensor], start, count, kind)
    if amsgrad:
        top = _moved(places[4, tensor], places[out + 3, tensor], start, count, kind)
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
    np.maximum.at(ends, chunks[:, 0], chunks[:, 1] + chunks[:, 2])
    return ends.tolist()


def _rows(table: Any, chunks: Any, kind: Any, slots: int, counts: bool) -> list[Row]:
    """The rows of a table of tensors with ``slots`` slots like them and, perhaps, a counter."""
    like, step = Row(kind.dtype, _ends(chunks, table.shape[2])), Row(np.float32, [1] * table.shape[2])
    counter = [step] if counts else []
    return [like, like, *[like] * slots, *counter, like, *[like] * slots, *counter]


_ADAM = {
    "touches": {
        "hyper": lambda: 5,
        "rates": lambda table: 2 * table.shape[2],
        "chunks": lambda chunks: 3 * len(chunks),
    },
    "tables": {"table": lambda table, chunks, kind, amsgrad: _rows(table, chunks, kind, 3 if amsgrad else 2, True)},
}
_SGD = {
    "touches": {"hyper": lambda: 4, "rates": lambda table: table.shape[2], "chunks": lambda chunks: 3 * len(chunks)},
    "tables": {
        "table": lambda table, chunks, kind, moving, stepping: _rows(table, chunks, kind, int(moving), stepping)
    },
}


@kernel(**_ADAM)
def adam_update(table, chunks, kind, rates, hyper, amsgrad, maximize, decoupled, threads):
    """Adam (arXiv:1412.6980, algorithm 1) and AdamW (arXiv:1711.05101) on every tensor of the table.

    hyper: lr, beta1, beta2, eps, weight_decay, in float64. rates: scratch (2, tensors). numbers of a chunk: the sign of
    the gradient, the decay added to it, what is kept of the parameter, both moments' weights of old and new, eps.
    """
    lr, beta1, beta2, eps, decay = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4]
    places, steps = table[0], 5 if amsgrad else 4
    one = np.empty(0, np.float32)
    for i in range(places.shape[1]):
        before = at_address(places[steps, i], 1, one)
        after = at_address(places[2 * steps, i], 1, one)
        step = before[0] + np.float32(1)
        after[0] = step
        rates[0, i] = lr / (1.0 - beta1 ** np.float64(step))
        rates[1, i] = 1.0 / np.sqrt(1.0 - beta2 ** np.float64(step))
    numbers = np.empty(8, np.float64)
    numbers[0] = -1.0 if maximize else 1.0
    numbers[1] = 0.0 if decoupled else decay
    numbers[2] = 1.0 - lr * decay if decoupled else 1.0
    numbers[3], numbers[4], numbers[5], numbers[6], numbers[7] = beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps
    parallel_for(_adam_chunk, chunks.shape[0], threads, (places, chunks, kind, rates, numbers, amsgrad))


@device_function
def _sgd_chunk(chunk, worker, places, chunks, kind, rates, numbers, moving, out):
    tensor, start, count = chunks[chunk, 0], chunks[chunk, 1], chunks[chunk, 2]
    number = kind.dtype.type
    sign, add, lr = number(numbers[0]), number(numbers[1]), number(numbers[2])
    zero, decays = number(0), numbers[1] != 0
    p = _moved(places[0, tensor], places[out, tensor], start, count, kind)
    g = at_address(places[1, tensor] + start * kind.itemsize, count, kind)
    if moving:
        keep, ahead, new = number(numbers[3]), number(numbers[4]), number(rates[0, tensor])
        straight = numbers[5]  # 1: the step is the velocity; 0: Nesterov's, the slope and the velocity ahead
        direct = number(0 if straight else 1)
        v = _moved(places[2, tensor], places[out + 1, tensor], start, count, kind)
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
def sgd_update(table, chunks, kind, rates, hyper, moving, stepping, nesterov, maximize, threads):
    """Gradient descent with momentum (Sutskever et al., 2013) on every tensor of the table.

    hyper: lr, momentum, dampening, weight_decay, in float64. moving: the third row is the velocity; stepping: the next
    one counts steps, for the first of which there is no dampening. rates: scratch (1, tensors).
    """
    lr, momentum, dampening, decay = hyper[0], hyper[1], hyper[2], hyper[3]
    places, out = table[0], 2 + (1 if moving else 0) + (1 if stepping else 0)
    one = np.empty(0, np.float32)
    for i in range(places.shape[1]):
        rates[0, i] = 1.0 - dampening
        if stepping:
            before = at_address(places[3, i], 1, one)
            after = at_address(places[out + 2, i], 1, one)
            rates[0, i] = 1.0 if before[0] == 0 else rates[0, i]
            after[0] = before[0] + np.float32(1)
    numbers = np.empty(6, np.float64)
    numbers[0], numbers[1], numbers[2], numbers[3] = -1.0 if maximize else 1.0, decay, lr, momentum
    numbers[4], numbers[5] = momentum if nesterov else 1.0, 0.0 if nesterov else 1.0
    parallel_for(_sgd_chunk, chunks.shape[0], threads, (places, chunks, kind, rates, numbers, moving, out))
