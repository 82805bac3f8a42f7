"""The gradients of a recurrent layer's weights and biases from those of its gates, as one primitive for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.composition import pullback
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.recurrent import launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.structure import sum_p
from funcnn.ops.matmul.matmul import matmul_p
from funcnn.ops.movement.join import cat
from funcnn.ops.movement.views import reshape, slice_dim, transpose
from funcnn.ops.tensor.creation import zeros_like


def weight_gradients(d: Tensor, x: Tensor, y: Tensor, h0: Tensor, reverse: bool, *d_state: Tensor) -> tuple:
    """Of w_ih, of w_hh and of b_ih; of b_hh too if the states' products got other gradients, ``d_state``, than x' got.

    They are callables that share one run, for what is not wanted need not be computed.
    """
    ins = (d, *d_state, x, y, h0)
    models = d.ndim > 3  # each with weights of its own
    made = cache(lambda: _composed(ins, reverse) if models else recurrent_weights_p(*ins, reverse=reverse))
    return tuple(_one_of(made, i) for i in range(3 + len(d_state)))


def _one_of(made: Callable, i: int) -> Callable:
    return lambda: made()[i]


def _shape(d: Any, *rest: Any, reverse: bool) -> tuple:
    gates, dtype = d.shape[2], d.dtype
    weights = [Aval((gates, t.shape[2]), dtype) for t in rest[-3:-1]]
    return (*weights, *[Aval((gates,), dtype)] * (len(rest) - 2))


def _composed(ins: Any, reverse: bool) -> tuple:
    """The same in ordinary operations, with any number of leading dimensions."""
    d, *other, x, y, h0 = ins
    d_state = other[0] if other else d
    return (
        matmul_p(transpose(_flat(d), -2, -1), _flat(x)),
        matmul_p(transpose(_flat(d_state), -2, -1), _flat(_before(y, h0, reverse))),
        *[sum_p(_flat(t), axes=(d.ndim - 3,)) for t in (d, *other)],
    )


def _before(y: Tensor, h0: Tensor, reverse: bool) -> Tensor:
    """The states before each step."""
    axis = y.ndim - 3
    steps = y._v.shape[axis]
    first = reshape(h0, (*h0._v.shape[:-2], 1, *h0._v.shape[-2:]))
    rest = slice_dim(y, axis, 1, steps) if reverse else slice_dim(y, axis, 0, steps - 1)
    return cat([rest, first] if reverse else [first, rest], axis)


def _flat(t: Tensor) -> Tensor:
    *lead, steps, n, width = t._v.shape
    return reshape(t, (*lead, steps * n, width))


def _vjp(g: list, ins: list, outs: list, reverse: bool) -> tuple:
    filled = tuple(zeros_like(out) if g[i] is None else g[i] for i, out in enumerate(outs))
    return tuple(pullback(lambda *values: _composed(values, reverse), tuple(ins), filled))


def _batch(n: int, ins: list, batched: list, reverse: bool) -> list:
    return list(_composed(all_batched(n, ins, batched), reverse))


recurrent_weights_p = Primitive(
    "recurrent_weights",
    _shape,
    launch.recurrent_weights,
    vjp=_vjp,
    batch=_batch,
    keeps="io",
    multiple=True,
    flops=costs.recurrence_weights,
)
