"""Recurrent layers over sequences: LSTM, GRU and RNN."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, bounded, positive
from funcnn.ops.movement.views import select
from funcnn.ops.random.keys import split
from funcnn.ops.recurrent import functions as rnn

INPUT, HIDDEN = arg("size of an input vector"), arg("size of a state")
LAYERS = arg("layers, each of which reads the outputs of the one before", 1)
BIAS = arg("whether there are biases", True)
BATCH_FIRST = arg("input and output are (N, steps, size), not (steps, N, size)", False)
DROPOUT = arg("probability of dropout on the outputs of every layer but the last", 0.0)
BIDIRECTIONAL = arg("a second direction from the end, its outputs beside the first's", False)
NONLINEARITY = arg('"tanh" or "relu"', "tanh")
DEVICE = arg("cpu or None", None)
DTYPE = arg("dtype of the parameters, None for the default float", None)


def drawn(layer: Any, shapes: dict[str, tuple], key: Tensor) -> tuple[dict, dict]:
    """All parameters uniform in +-1/sqrt(hidden_size)."""
    keys, bound = split(key, len(shapes)), 1.0 / math.sqrt(layer.hidden_size)
    return {n: bounded(select(keys, 0, i), s, bound, layer.dtype) for i, (n, s) in enumerate(shapes.items())}, {}


class Recurrent(Layer):
    """What LSTM, GRU and RNN share; ``gates`` vectors of hidden_size are made of each input and state."""

    parameters: ClassVar[tuple[str, ...]] = ("weight_ih_l0", "weight_hh_l0")
    gates: ClassVar[int]
    input_size: int  # the fields that every subclass declares
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    module_methods: ClassVar[dict[str, Callable]] = {
        "flatten_parameters": lambda self: None
    }  # nothing to rearrange here

    def function(self) -> Callable:
        """The operation that applies the layer."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        name, p = type(self).__name__, self.dropout
        positive(name, input_size=self.input_size, hidden_size=self.hidden_size, num_layers=self.num_layers)
        for option in ("bias", "batch_first"):
            if not isinstance(given := getattr(self, option), bool):
                raise TypeError(f"{name}: {option} must be a bool, got {given!r} ({type(given).__name__})")
        if isinstance(p, bool) or not 0.0 <= p <= 1.0:
            raise ValueError(f"{name}: dropout must be a probability between 0 and 1, got {p!r}")
        if p > 0 and self.num_layers == 1:
            warnings.warn(f"{name}: dropout={p} stands between layers and does nothing with num_layers=1", stacklevel=4)

    @property
    def needs_key(self) -> bool:
        return self.dropout > 0 and self.num_layers > 1

    def shapes(self) -> dict[str, tuple]:
        """Names and shapes of the parameters, in PyTorch's order."""
        directions, projected = 1 + self.bidirectional, getattr(self, "proj_size", 0)
        rows, width = self.gates * self.hidden_size, projected or self.hidden_size
        found: dict[str, tuple] = {}
        for layer in range(self.num_layers):
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[:directions]:
                found["weight_ih" + suffix] = (rows, width * directions if layer else self.input_size)
                found["weight_hh" + suffix] = (rows, width)
                if self.bias:
                    found["bias_ih" + suffix] = found["bias_hh" + suffix] = (rows,)
                if projected:
                    found["weight_hr" + suffix] = (projected, self.hidden_size)
        return found

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Weights and biases uniform in +-1/sqrt(hidden_size)."""
        return drawn(self, self.shapes(), key)

    def __call__(
        self, params: dict, state: dict, x: Any, hx: Any = None, *, training: bool = False, key: Any = None
    ) -> tuple:
        if training and self.needs_key:
            key = self.key_for(training, key)
        weights = [params[name] for name in self.shapes()]
        y, *ends = self.function()(
            x, hx, weights, self.bias, self.num_layers, self.dropout, training, self.bidirectional, self.batch_first,
            key=key,
        )  # fmt: skip
        return (y, tuple(ends) if len(ends) > 1 else ends[0]), state

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        usual = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0}
        shown += [f"{n}={getattr(self, n)}" for n, value in usual.items() if getattr(self, n, value) != value]
        shown += ["bidirectional=True"] if self.bidirectional else []
        return ", ".join(shown)


@dataclass(frozen=True, repr=False)
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, Neural Computation 9(8), 1997) over a sequence.

    ``y, (h, c) = lstm(x, (h0, c0))``, zeros without first states; x (steps, N, input_size), y (steps, N, directions *
    hidden_size), states (num_layers * directions, N, hidden_size); x may lack N, then everything does.
    """

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    num_layers: int = LAYERS
    bias: bool = BIAS
    batch_first: bool = BATCH_FIRST
    dropout: float = DROPOUT
    bidirectional: bool = BIDIRECTIONAL
    proj_size: int = arg("states are projected to this size, 0: they are not (Sak et al., arXiv:1402.1128)", 0)
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(f"LSTM: proj_size must be 0 or below hidden_size {self.hidden_size}, got {self.proj_size}")

    def function(self) -> Callable:
        return rnn.lstm


@dataclass(frozen=True, repr=False)
class GRU(Recurrent):
    """Gated recurrent units (Cho et al., arXiv:1406.1078) over a sequence.

    ``y, h = gru(x, h0)``, zeros without a first state; shapes as for LSTM.
    """

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    num_layers: int = LAYERS
    bias: bool = BIAS
    batch_first: bool = BATCH_FIRST
    dropout: float = DROPOUT
    bidirectional: bool = BIDIRECTIONAL
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 3

    def function(self) -> Callable:
        return rnn.gru


@dataclass(frozen=True, repr=False)
class RNN(Recurrent):
    """The simple recurrent layer (Elman, Cognitive Science 14(2), 1990) over a sequence.

    ``y, h = rnn(x, h0)``, zeros without a first state; shapes as for LSTM.
    """

    input_size: int = INPUT
    hidden_size: int = HIDDEN
    num_layers: int = LAYERS
    nonlinearity: str = NONLINEARITY
    bias: bool = BIAS
    batch_first: bool = BATCH_FIRST
    dropout: float = DROPOUT
    bidirectional: bool = BIDIRECTIONAL
    device: Any = DEVICE
    dtype: Any = DTYPE
    gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        known_nonlinearity("RNN", self.nonlinearity)

    def function(self) -> Callable:
        return rnn.rnn_tanh if self.nonlinearity == "tanh" else rnn.rnn_relu


def known_nonlinearity(name: str, nonlinearity: str) -> None:
    """Raise ``ValueError`` for one that there is not."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'{name}: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
