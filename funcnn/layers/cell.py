"""Recurrent cells, one step of the layers in ``recurrent.py``: LSTMCell, GRUCell and RNNCell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, positive
from funcnn.layers.recurrent import BIAS, DEVICE, DTYPE, HIDDEN, INPUT, NONLINEARITY, drawn, known_nonlinearity
from funcnn.ops.recurrent import functions as rnn


class Cell(Layer):
    """What the cells share."""

    parameters: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    gates: ClassVar[int]
    input_size: int  # the fields that every subclass declares
    hidden_size: int
    bias: bool

    def function(self) -> Callable:
        """The operation that applies the cell."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        positive(type(self).__name__, input_size=self.input_size, hidden_size=self.hidden_size)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Weights and biases uniform in +-1/sqrt(hidden_size)."""
        rows = self.gates * self.hidden_size
        shapes = [(rows, self.input_size), (rows, self.hidden_size), *[(rows,)] * (2 if self.bias else 0)]
        return drawn(self, dict(zip(self.parameters, shapes, strict=False)), key)

    def __call__(
        self, params: dict, state: dict, x: Any, hx: Any = None, *, training: bool = False, key: Any = None
    ) -> tuple:
        return self.function()(x, hx, *[params.get(name) for name in self.parameters]), state

    def extra_repr(self) -> str:
        bias = "" if self.bias else f", bias={self.bias}"
        kind = getattr(self, "nonlinearity", "tanh")
        return f"{self.input_size}, {self.hidden_size}{bias}" + (f", nonlinearity={kind}" if kind != "tanh" else "")


@dataclass(frozen=True, repr=False)
class LSTMCell(Cell):
    """One step of an LSTM: ``h, c = cell(x, (h0, c0))``; x (N, input_size), states (N, hidden_size), or both without N."""

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    bias: bool = BIAS
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 4

    def function(self) -> Callable:
        return rnn.lstm_cell


@dataclass(frozen=True, repr=False)
class GRUCell(Cell):
    """One step of a GRU: ``h = cell(x, h0)``; x (N, input_size), states (N, hidden_size), or both without N."""

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    bias: bool = BIAS
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 3

    def function(self) -> Callable:
        return rnn.gru_cell


@dataclass(frozen=True, repr=False)
class RNNCell(Cell):
    """One step of a simple RNN: ``h = cell(x, h0)``; x (N, input_size), states (N, hidden_size), or both without N."""

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    bias: bool = BIAS
    nonlinearity: str = NONLINEARITY
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        known_nonlinearity("RNNCell", self.nonlinearity)

    def function(self) -> Callable:
        return rnn.rnn_tanh_cell if self.nonlinearity == "tanh" else rnn.rnn_relu_cell
