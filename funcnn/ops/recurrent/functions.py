"""PyTorch's functions for recurrent layers and cells: ``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu`` and their ``_cell`` forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.elementwise.activation import dropout as dropout_
from funcnn.ops.elementwise.arithmetic import add
from funcnn.ops.matmul.matmul import linear
from funcnn.ops.movement.join import cat, stack
from funcnn.ops.movement.views import reshape, select, transpose
from funcnn.ops.random.keys import fold_in
from funcnn.ops.recurrent.primitives import gru_p, lstm_p, lstm_steps, rnn_p
from funcnn.ops.tensor.creation import zeros

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


# ---- one direction of one layer -------------------------------------------------------------------------------------------
def _bias(biases: Sequence, w: Tensor) -> Tensor:
    """The sum of the two biases, or zeros."""
    return add(*biases) if biases else zeros(w._v.shape[0], dtype=w._v.dtype, device=w.device)


def _lstm(
    x: Tensor, w_ih: Tensor, states: list, w: Tensor, biases: Sequence, project: Tensor | None, reverse: bool
) -> tuple:
    if project is None:
        return tuple(lstm_p(x, w_ih, *states, w, _bias(biases, w), reverse=reverse)[:3])
    return lstm_steps(linear(x, w_ih), *states, w, _bias(biases, w), project, reverse=reverse)


def _gru(x: Tensor, w_ih: Tensor, states: list, w: Tensor, biases: Sequence, project: None, reverse: bool) -> tuple:
    return tuple(gru_p(x, w_ih, *states, w, *(biases or [_bias((), w)] * 2), reverse=reverse)[:2])


def _rnn(
    x: Tensor, w_ih: Tensor, states: list, w: Tensor, biases: Sequence, project: None, reverse: bool, relu: bool = False
) -> tuple:
    return tuple(rnn_p(x, w_ih, *states, w, _bias(biases, w), relu=relu, reverse=reverse))


RUNS: dict[str, Callable] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn, "rnn_relu": partial(_rnn, relu=True)}


# ---- what fits ------------------------------------------------------------------------------------------------------------
def _input(name: str, input: Any, w: Tensor, ranks: tuple[int, int]) -> Tensor:
    """The input as a tensor. Raises unless its rank, last size and dtype fit the weight (gates * hidden, input_size)."""
    if not isinstance(input, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: expected a tensor, got a {type(input).__name__}; pad sequences of different lengths")
    x = to_tensor(input)
    if x.ndim not in ranks:
        raise ShapeError(
            f"{name}: expected a {ranks[0]}-d (unbatched) or {ranks[1]}-d input, got shape {tuple(x.shape)}"
        )
    if x._v.shape[-1] != w._v.shape[1]:
        raise ShapeError(f"{name}: expected an input of last size {w._v.shape[1]}, got shape {tuple(x.shape)}")
    if x._v.dtype != w._v.dtype:
        raise DTypeError(f"{name}: input is {x.dtype} but the weights are {w.dtype}; convert one with .to(dtype)")
    return x


def _states(name: str, hx: Any, shapes: list[tuple], dtype: Any) -> list[Tensor]:
    """The first states, zeros for None. Raises unless they have these shapes and this dtype."""
    if hx is None:
        return [zeros(shape, dtype=dtype) for shape in shapes]
    listed = [hx] if isinstance(hx, (Tensor, np.ndarray)) else list(hx)
    if len(listed) != len(shapes):
        raise TypeError(f"{name}: expected {len(shapes)} state(s) for hx, got {len(listed)}; an LSTM takes (h, c)")
    given = [to_tensor(t) for t in listed]
    for t, shape in zip(given, shapes, strict=True):
        if tuple(t.shape) != shape:
            raise ShapeError(f"{name}: expected a state of shape {shape}, got {tuple(t.shape)}")
        if t.dtype != dtype:
            raise DTypeError(f"{name}: a state is {t.dtype} but the weights are {dtype}; convert it with .to(dtype)")
    return given


# ---- whole sequences ------------------------------------------------------------------------------------------------------
def _sequence(
    name: str, input: Any, hx: Any, params: Sequence, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool, key: Tensor | None,
) -> tuple:  # fmt: skip
    """Layers stacked on each other, the two directions of each beside each other: ``(y, *states)``."""
    directions = 2 if bidirectional else 1
    params = [to_tensor(p) for p in params]
    each = len(params) // (num_layers * directions)
    x = _input(name, input, params[0], (2, 3))
    single = x.ndim == 2
    if single:
        x = reshape(x, (x._v.shape[0], 1, x._v.shape[1]))
    elif batch_first:
        x = transpose(x, 0, 1)
    shapes = _state_shapes(name, params, each, num_layers * directions, None if single else x._v.shape[1])
    if hx is None:
        rows = 1 if single else x._v.shape[1]
        states = [[zeros(rows, width, dtype=x._v.dtype, device=x.device)] * count for count, *_, width in shapes]
    else:
        states = [_rows(t, single) for t in _states(name, hx, shapes, x._v.dtype)]
    ends: list[tuple] = []
    for layer in range(num_layers):
        ys = []
        for d in range(directions):
            i = layer * directions + d
            y, *end = _direction(name, x, [t[i] for t in states], params[i * each : (i + 1) * each], has_biases, d == 1)
            ys.append(y)
            ends.append(tuple(end))
        x = ys[0] if directions == 1 else cat(ys, -1)
        if train and dropout > 0 and layer < num_layers - 1:
            x = dropout_(x, dropout, True, key=None if key is None else fold_in(key, layer))
    finals = [_joined(list(column), single) for column in zip(*ends, strict=True)]
    if single:
        return reshape(x, (x._v.shape[0], x._v.shape[2])), *finals
    return transpose(x, 0, 1) if batch_first else x, *finals


def _state_shapes(name: str, params: Sequence, each: int, count: int, n: int | None) -> list[tuple]:
    """Of h, and of an LSTM's c, for all layers; without the N of an unbatched input."""
    rows = () if n is None else (n,)
    width = params[1]._v.shape[1]  # of the states that the weights meet: projected ones with proj_size
    hidden = params[1]._v.shape[0] // GATES[name]
    return [(count, *rows, width)] + ([(count, *rows, hidden)] if name == "lstm" else [])


def _rows(t: Tensor, single: bool) -> list[Tensor]:
    """The state (N, hidden) of each layer and direction."""
    count, *_, width = t._v.shape
    if count == 1:
        return [reshape(t, (-1 if t._v.size else 0, width))]
    parts = [select(t, 0, i) for i in range(count)]
    return [reshape(part, (1, width)) for part in parts] if single else parts


def _joined(parts: list[Tensor], single: bool) -> Tensor:
    if single:
        parts = [reshape(part, (part._v.shape[1],)) for part in parts]
    return reshape(parts[0], (1, *parts[0]._v.shape)) if len(parts) == 1 else stack(parts)


def _direction(name: str, x: Tensor, states: list, weights: Sequence, has_biases: bool, reverse: bool) -> tuple:
    w_ih, w_hh, *rest = weights
    biases, project = (rest[:2], rest[2:]) if has_biases else ((), rest)
    return RUNS[name](x, w_ih, states, w_hh, biases, project[0] if project else None, reverse)


def _sequence_function(name: str, result: str) -> Callable:
    def function(
        input: Any, hx: Any, params: Sequence, has_biases: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool, *, key: Tensor | None = None,
    ) -> tuple:  # fmt: skip
        return _sequence(
            name, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, key
        )

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""``{result}`` of a sequence (steps, N, input_size).

    input: (N, steps, input_size) with ``batch_first``; an unbatched (steps, input_size) gives unbatched results. hx: the
    first states (num_layers * directions, N, hidden), None for zeros. params: of each layer and direction weight_ih,
    weight_hh, with ``has_biases`` bias_ih and bias_hh, of an LSTM with projections weight_hr. key: decides the dropout
    between layers. Raises ``ShapeError``, ``DTypeError``, ``TypeError``.
    """
    return function


lstm = _sequence_function("lstm", "(y, h, c)")
gru = _sequence_function("gru", "(y, h)")
rnn_tanh = _sequence_function("rnn_tanh", "(y, h)")
rnn_relu = _sequence_function("rnn_relu", "(y, h)")


# ---- cells ----------------------------------------------------------------------------------------------------------------
def _cell(name: str, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> list[Tensor]:
    w_ih, w_hh, *biases = [to_tensor(t) for t in (w_ih, w_hh, b_ih, b_hh) if t is not None]
    x = _input(f"{name}_cell", input, w_ih, (1, 2))
    rows = tuple(x._v.shape[:-1])
    hidden = w_hh._v.shape[1]
    states = _states(f"{name}_cell", hx, [(*rows, hidden)] * (2 if name == "lstm" else 1), x._v.dtype)
    n = rows[0] if rows else 1
    step = reshape(x, (1, n, x._v.shape[-1]))
    outs = RUNS[name](step, w_ih, [reshape(t, (n, hidden)) for t in states], w_hh, biases, None, False)
    return [reshape(t, (*rows, hidden)) for t in outs[1:]]


def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Tensor, Tensor]:
    """``(h, c)`` after one step of an LSTM: input (N, input_size) or (input_size,), hx a pair of (N, hidden) or None."""
    h, c = _cell("lstm", input, hx, w_ih, w_hh, b_ih, b_hh)
    return h, c


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """The state after one step of a GRU: input (N, input_size) or (input_size,), hx (N, hidden) or None."""
    return _cell("gru", input, hx, w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """``tanh(w_ih x + b_ih + w_hh h + b_hh)``: input (N, input_size) or (input_size,), hx (N, hidden) or None."""
    return _cell("rnn_tanh", input, hx, w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """As ``rnn_tanh_cell`` with relu."""
    return _cell("rnn_relu", input, hx, w_ih, w_hh, b_ih, b_hh)[0]
