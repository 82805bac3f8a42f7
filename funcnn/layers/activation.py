"""Activations without and with a parameter, softmax, and Flatten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, float_dtype, inplace_arg
from funcnn.ops.elementwise import activation
from funcnn.ops.elementwise.math import sigmoid, tanh
from funcnn.ops.movement.views import flatten
from funcnn.ops.softmax import softmax
from funcnn.ops.tensor.creation import full


@dataclass(frozen=True, repr=False)
class ReLU(Layer):
    """``max(0, x)``, elementwise."""

    inplace: bool = inplace_arg()

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return activation.relu(x, self.inplace), state

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


@dataclass(frozen=True, repr=False)
class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``, elementwise."""

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return sigmoid(x), state


@dataclass(frozen=True, repr=False)
class Tanh(Layer):
    """The hyperbolic tangent, elementwise."""

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return tanh(x), state


@dataclass(frozen=True, repr=False)
class GELU(Layer):
    """``x * Phi(x)`` with the normal distribution's Phi (Hendrycks and Gimpel, arXiv:1606.08415)."""

    approximate: str = arg("'none' for erf, 'tanh' for the paper's approximation", "none")

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return activation.gelu(x, approximate=self.approximate), state

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


@dataclass(frozen=True, repr=False)
class LeakyReLU(Layer):
    """``x`` above 0, ``negative_slope * x`` below, elementwise."""

    negative_slope: float = arg("the slope below 0", 0.01)
    inplace: bool = inplace_arg()

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return activation.leaky_relu(x, self.negative_slope, self.inplace), state

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}{', inplace=True' if self.inplace else ''}"


@dataclass(frozen=True, repr=False)
class PReLU(Layer):
    """``x`` above 0, a learned slope times ``x`` below (He et al., arXiv:1502.01852, section 2.1)."""

    num_parameters: int = arg("1, or one slope for each channel (dimension 1)", 1)
    init_value: float = arg("the first slope", 0.25, torch="init")
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameter, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight",)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight (num_parameters,), all ``init_value``."""
        return {"weight": full((self.num_parameters,), self.init_value, dtype=float_dtype(self.dtype))}, {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return activation.prelu(x, params["weight"]), state

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


@dataclass(frozen=True, repr=False)
class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` along ``dim``."""

    dim: int | None = arg("the dimension that sums to 1", None)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return softmax.softmax(x, self.dim), state

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


@dataclass(frozen=True, repr=False)
class LogSoftmax(Layer):
    """``log(softmax(x))`` along ``dim``, without overflow."""

    dim: int | None = arg("the dimension whose exponentials sum to 1", None)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return softmax.log_softmax(x, self.dim), state

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """Dimensions ``start_dim`` to ``end_dim`` as one."""

    start_dim: int = arg("the first dimension to merge", 1)
    end_dim: int = arg("the last dimension to merge", -1)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return flatten(x, self.start_dim, self.end_dim), state

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
