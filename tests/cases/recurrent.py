"""Rows of recurrent layers and cells."""

from __future__ import annotations

from typing import Any

from tests.cases.both import both
from tests.cases.case import Arr, Case

LOOSE = {"float32": 2e-5, "float64": 1e-11}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _row(
    id: str, mode: str, x: tuple, hidden: int, layers: int = 1, both_ways: bool = False, proj: int = 0,
    biases: bool = True, batch_first: bool = False, vmap: bool = True,
) -> Case:  # fmt: skip
    """A row of a sequence function; its inputs are x, the first states, then the parameters."""
    directions, width = 1 + both_ways, proj or hidden
    n = x[0 if batch_first else 1]
    states = [Arr((layers * directions, n, w)) for w in ([width, hidden] if mode == "lstm" else [width])]
    params = []
    for layer in range(layers):
        size = width * directions if layer else x[-1]
        shapes = [(GATES[mode] * hidden, size), (GATES[mode] * hidden, width)]
        shapes += [(GATES[mode] * hidden,)] * 2 if biases else []
        params += ([Arr(s) for s in shapes] + ([Arr((proj, hidden))] if proj else [])) * directions

    def call(m: Any, x: Any, *rest: Any) -> Any:
        hx = rest[: len(states)] if mode == "lstm" else rest[0]
        return getattr(m, mode)(x, hx, rest[len(states) :], biases, layers, 0.0, True, both_ways, batch_first)

    return both(id, call, Arr(x), *states, *params, rtol=LOOSE, vmap=vmap)


def _cell(name: str, gates: int, states: int) -> Case:
    def call(m: Any, x: Any, *rest: Any) -> Any:
        return getattr(m, name)(x, rest[:2] if states == 2 else rest[0], *rest[states:])

    hidden = [Arr((2, 3))] * states
    return both(
        name, call, Arr((2, 4)), *hidden, Arr((gates * 3, 4)), Arr((gates * 3, 3)), *[Arr((gates * 3,))] * 2, rtol=LOOSE
    )


ROWS = [
    _row("lstm", "lstm", (3, 2, 2), 3, biases=False),
    _row("lstm_stacked", "lstm", (2, 3, 2), 2, 2, True, vmap=False, batch_first=True),
    _row("lstm_both_ways", "lstm", (3, 2, 2), 2, both_ways=True, biases=False, vmap=False),
    _row("lstm_projected", "lstm", (2, 2, 2), 3, proj=2, vmap=False),
    _row("gru", "gru", (3, 2, 2), 3),
    _row("gru_both_ways", "gru", (2, 3, 2), 2, both_ways=True, biases=False, vmap=False),
    _row("rnn_tanh", "rnn_tanh", (3, 2, 2), 3),
    _row("rnn_tanh_both_ways", "rnn_tanh", (3, 2, 2), 2, 2, True, vmap=False),
    _row("rnn_relu", "rnn_relu", (3, 2, 2), 3),
    _cell("lstm_cell", 4, 2),
    _cell("gru_cell", 3, 1),
    _cell("rnn_tanh_cell", 1, 1),
    _cell("rnn_relu_cell", 1, 1),
]
