"""LSTM, GRU and the simple RNN over whole sequences: three primitives with their backward ones, and layers stacked of them.

A primitive is one direction of one layer. It takes the input (steps, N, inputs) with its weights, the first states (N, hidden)
with theirs, and the biases; beside the outputs it gives what its backward needs. The backward primitive gives the gradient of
the gates; from it, over all steps at once, a product makes the input's and ``recurrent_weights`` the weights'. Its own
derivative goes through the same recurrence written step by step in ordinary operations.

All arrays may have leading axes that count models, each with weights of its own: what vmap adds where weights are mapped.
The kernels then take one model after the other.

Kinds of array in the tables below: "s" a sequence (steps, N, ...), "h" a state (N, hidden), "w" a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from funcnn.core.aval import Aval
from funcnn.core.composition import mapped, pullback
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.recurrent import launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.promote import require_kernel_float, require_same_dtype
from funcnn.ops.elementwise.arithmetic import add, mul, sub
from funcnn.ops.elementwise.math import relu as relu_
from funcnn.ops.elementwise.math import sigmoid, tanh
from funcnn.ops.matmul.matmul import linear, matmul_p
from funcnn.ops.movement.join import chunk, stack
from funcnn.ops.movement.views import expand, movedim, reshape, select
from funcnn.ops.recurrent.weights import weight_gradients
from funcnn.ops.tensor.creation import zeros_like


# ---- shapes ---------------------------------------------------------------------------------------------------------------
def _sequence(name: str, gates: int, x: Any, w_ih: Any, w: Any, biases: tuple, *states: Any) -> tuple:
    """Avals of y, of a state and of the gates. Raises unless everything fits the sequence and the states' weights."""
    require_same_dtype(name, x, w_ih, w, *biases, *states)
    require_kernel_float(name, x)
    *lead, steps, n, inputs = x.shape
    rows = w_ih.shape[-2]
    hidden = rows // gates
    if steps == 0:
        raise ShapeError(f"{name}: expected a sequence of at least one step, got shape {tuple(x.shape)}")
    fit = [(w_ih, (gates * hidden, inputs)), (w, (rows, hidden)), *[(b, (rows,)) for b in biases]]
    for t, shape in [*fit, *[(s, (n, hidden)) for s in states]]:
        if tuple(t.shape) != (*lead, *shape):
            raise ShapeError(f"{name}: {rows} rows of gates need {(*lead, *shape)}, got {tuple(t.shape)}")
    return tuple(Aval((*lead, *last), x.dtype) for last in ((steps, n, hidden), (n, hidden), (steps, n, rows)))


def _lstm_shape(x: Any, w_ih: Any, h0: Any, c0: Any, w: Any, bias: Any, reverse: bool, residuals: bool = True) -> tuple:
    y, state, gates = _sequence("lstm", 4, x, w_ih, w, (bias,), h0, c0)
    return (y, state, state, gates, y)[: 5 if residuals else 3]


def _gru_shape(
    x: Any, w_ih: Any, h0: Any, w: Any, b_ih: Any, b_hh: Any, reverse: bool, residuals: bool = True
) -> tuple:
    y, state, gates = _sequence("gru", 3, x, w_ih, w, (b_ih, b_hh), h0)
    return (y, state, gates, y)[: 4 if residuals else 2]


def _rnn_shape(x: Any, w_ih: Any, h0: Any, w: Any, bias: Any, relu: bool, reverse: bool) -> tuple:
    return _sequence("rnn", 1, x, w_ih, w, (bias,), h0)[:2]


def _like(*places: int) -> Callable:
    """The shape rule of outputs that are like some of the inputs."""
    return lambda *avals, **params: tuple(Aval(avals[i].shape, avals[i].dtype) for i in places)


# ---- batching -------------------------------------------------------------------------------------------------------------
def _into_rows(t: Tensor, kind: str) -> Tensor:
    """The batch axis 0 merged into N."""
    whole = movedim(t, 0, 1) if kind == "s" else t
    at = 1 if kind == "s" else 0
    shape = whole._v.shape
    return reshape(whole, (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]))


def _out_of_rows(t: Tensor, kind: str, b: int, rows: int) -> Tensor:
    at = 1 if kind == "s" else 0
    shape = t._v.shape
    whole = reshape(t, (*shape[:at], b, rows, *shape[at + 1 :]))
    return movedim(whole, 1, 0) if kind == "s" else whole


def _batch(prim: Callable, kinds: str, results: str) -> Callable:
    """The batch goes into N; with mapped weights the examples are models."""

    def rule(n: int, ins: list, batched: list, **params: Any) -> list:
        models = ins[0].ndim - batched[0] > 3
        if models or any(b for b, kind in zip(batched, kinds, strict=True) if kind == "w"):
            return prim()(*all_batched(n, ins, batched), **params)
        merged = [
            t if kind == "w" else _into_rows(t if b else expand(t, (n, *t._v.shape)), kind)
            for t, b, kind in zip(ins, batched, kinds, strict=True)
        ]
        outs = prim()(*merged, **params)
        size = ins[0]._v.shape[1 + batched[0]]
        return [_out_of_rows(out, kind, n, size) for out, kind in zip(outs, results, strict=True)]

    return rule


# ---- derivatives ------------------------------------------------------------------------------------------------------------
def lstm_steps(gx: Tensor, h: Tensor, c: Tensor, w: Tensor, bias: Tensor, *project: Tensor, reverse: bool) -> tuple:
    """The recurrence in ordinary operations; ``project`` (hidden to projected states) is the weight of an LSTMP."""
    ys = []
    for x in _in_order(gx, reverse):
        i, f, g, o = chunk(add(linear(h, w, bias), x), 4, -1)
        c = add(mul(sigmoid(f), c), mul(sigmoid(i), tanh(g)))
        h = mul(sigmoid(o), tanh(c))
        h = linear(h, project[0]) if project else h
        ys.append(h)
    return _stacked(ys, reverse), h, c


def _gru_steps(gx: Tensor, gh: Tensor, h: Tensor, w: Tensor, b_ih: Tensor, *, reverse: bool) -> tuple:
    """``gh`` is added to the products with the states, step by step: their bias, expanded."""
    ys = []
    for x, bias in zip(_in_order(add(gx, b_ih), reverse), _in_order(gh, reverse), strict=True):
        (xr, xz, xn), (r, z, m) = chunk(x, 3, -1), chunk(add(linear(h, w), bias), 3, -1)
        new = tanh(add(xn, mul(sigmoid(add(xr, r)), m)))
        h = add(new, mul(sigmoid(add(xz, z)), sub(h, new)))
        ys.append(h)
    return _stacked(ys, reverse), h


def _rnn_steps(gx: Tensor, h: Tensor, w: Tensor, bias: Tensor, *, relu: bool, reverse: bool) -> tuple:
    ys = []
    for x in _in_order(gx, reverse):
        h = (relu_ if relu else tanh)(add(linear(h, w, bias), x))
        ys.append(h)
    return _stacked(ys, reverse), h


def _in_order(gx: Tensor, reverse: bool) -> list[Tensor]:
    steps = gx._v.shape[0]
    return [select(gx, 0, steps - 1 - s if reverse else s) for s in range(steps)]


def _stacked(ys: list[Tensor], reverse: bool) -> Tensor:
    return stack(ys[::-1] if reverse else ys)


def _filled(g: list, outs: list) -> list[Tensor]:
    """The cotangents, zeros where none arrived."""
    return [zeros_like(out) if g[i] is None else g[i] for i, out in enumerate(outs)]


def _input_grad(dgates: Tensor, x: Tensor, w_ih: Tensor) -> Tensor:
    *lead, steps, n, gates = dgates._v.shape
    return reshape(matmul_p(reshape(dgates, (*lead, steps * n, gates)), w_ih), x._v.shape)


def _lstm_vjp(g: list, ins: list, outs: list, reverse: bool) -> tuple:
    x, w_ih, h0 = ins[:3]
    y, hn, cn, gates, cells = outs
    d, dh0, dc0 = lstm_grad_p(*_filled(g, [y, hn, cn]), gates, cells, *ins, reverse=reverse)
    dw_ih, dw, db = weight_gradients(d, x, y, h0, reverse)
    return lambda: _input_grad(d, x, w_ih), dw_ih, dh0, dc0, dw, db


def _gru_vjp(g: list, ins: list, outs: list, reverse: bool) -> tuple:
    x, w_ih, h0 = ins[:3]
    y, hn, gates, inner = outs
    dx, d, dh0 = gru_grad_p(*_filled(g, [y, hn]), gates, inner, y, *ins, reverse=reverse)
    dw_ih, dw, db_ih, db_hh = weight_gradients(dx, x, y, h0, reverse, d)
    return lambda: _input_grad(dx, x, w_ih), dw_ih, dh0, dw, db_ih, db_hh


def _rnn_vjp(g: list, ins: list, outs: list, relu: bool, reverse: bool) -> tuple:
    x, w_ih, h0 = ins[:3]
    y = outs[0]
    d, dh0 = rnn_grad_p(*_filled(g, outs), y, *ins, relu=relu, reverse=reverse)
    dw_ih, dw, db = weight_gradients(d, x, y, h0, reverse)
    return lambda: _input_grad(d, x, w_ih), dw_ih, dh0, dw, db


def _lstm_gradient(
    steps: Callable, cotangents: tuple, x: Tensor, w_ih: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor
) -> tuple:
    return pullback(lambda *starts: steps(*starts, *weights), (linear(x, w_ih), h0, c0), cotangents)


def _gru_gradient(
    steps: Callable, cotangents: tuple, x: Tensor, w_ih: Tensor, h0: Tensor, w: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple:
    gx = linear(x, w_ih)
    return pullback(lambda *starts: steps(*starts, w, b_ih), (gx, expand(b_hh, gx._v.shape), h0), cotangents)


def _rnn_gradient(steps: Callable, cotangents: tuple, x: Tensor, w_ih: Tensor, h0: Tensor, *weights: Tensor) -> tuple:
    return pullback(lambda *starts: steps(*starts, *weights), (linear(x, w_ih), h0), cotangents)


def _second(steps: Callable, gradient: Callable, given: int, kept: int) -> Callable:
    """The vjp of a backward primitive of ``given`` cotangents, ``kept`` values of the forward pass and the forward's inputs.

    The kept values are functions of the inputs, so the derivative goes through the inputs alone. ``gradient`` is the
    backward primitive as a composition.
    """

    def rule(g: list, ins: list, outs: list, **params: Any) -> tuple:
        def backward(*values: Tensor) -> tuple:
            return gradient(partial(steps, **params), values[:given], *values[given:])

        backward = mapped(backward, ins[0].ndim - 3)
        found = pullback(backward, (*ins[:given], *ins[given + kept :]), tuple(_filled(g, outs)))
        return (*found[:given], *(None,) * kept, *found[given:])

    return rule


# ---- the primitives -------------------------------------------------------------------------------------------------------
class Recurrence(NamedTuple):
    """Declares a recurrence forward and backward; arrays by their kinds.

    ins, outs: of the forward primitive; ``given`` of the first outputs have cotangents, the others are ``kept`` for the
    backward primitive, which takes ``(*cotangents, *kept, *ins)``. grads: what that makes, each like the operand at ``like``.
    """

    shape: Callable
    ways: tuple[Any, Any]
    vjp: Callable
    steps: Callable
    gradient: Callable
    ins: str
    outs: str
    given: int
    kept: str
    grads: str
    like: tuple[int, ...]


def _without_residuals(prim: Callable, given: int) -> Callable:
    """The rule where nobody reads what is for the backward primitive alone (``Primitive.unused``)."""

    def rule(used: tuple[bool, ...], params: dict) -> tuple | None:
        if any(used[given:]):
            return None
        return prim(), {**params, "residuals": False}, tuple([at < given for at in range(len(used))])

    return rule


def _declared(name: str, its: Recurrence, gates: int, flops: float, flops_back: float) -> tuple[Primitive, Primitive]:
    """The forward and the backward primitive of a recurrence; flops: of an element of a gate, besides the products."""
    forward = Primitive(
        name,
        its.shape,
        its.ways[0],
        vjp=its.vjp,
        batch=_batch(lambda: forward, its.ins, its.outs),
        keeps="io",
        multiple=True,
        unused=_without_residuals(lambda: forward, its.given) if its.outs[its.given :] else None,
        flops=costs.recurrence(gates, flops),
    )
    operands = its.outs[: its.given] + its.kept + its.ins
    backward = Primitive(
        f"{name}_grad",
        _like(*its.like),
        its.ways[1],
        vjp=_second(its.steps, its.gradient, its.given, len(its.kept)),
        batch=_batch(lambda: backward, operands, its.grads),
        keeps="io",
        multiple=True,
        flops=costs.recurrence_grad(gates, flops_back),
    )
    return forward, backward


LSTM = Recurrence(
    _lstm_shape,
    (launch.lstm_ways, launch.lstm_grad),
    _lstm_vjp,
    lstm_steps,
    _lstm_gradient,
    ins="swhhww",
    outs="shhss",
    given=3,
    kept="ss",
    grads="shh",
    like=(3, 7, 8),
)
GRU = Recurrence(
    _gru_shape,
    (launch.gru_ways, launch.gru_grad),
    _gru_vjp,
    _gru_steps,
    _gru_gradient,
    ins="swhwww",
    outs="shss",
    given=2,
    kept="sss",
    grads="ssh",
    like=(2, 2, 7),
)
RNN = Recurrence(
    _rnn_shape,
    (launch.rnn_ways, launch.rnn_grad),
    _rnn_vjp,
    _rnn_steps,
    _rnn_gradient,
    ins="swhww",
    outs="sh",
    given=2,
    kept="s",
    grads="sh",
    like=(2, 5),
)
lstm_p, lstm_grad_p = _declared("lstm", LSTM, 4, costs.EXP_FLOPS + 4, 8)
gru_p, gru_grad_p = _declared("gru", GRU, 3, costs.EXP_FLOPS + 4, 8)
rnn_p, rnn_grad_p = _declared("rnn", RNN, 1, costs.TANH_FLOPS + 2, 4)
