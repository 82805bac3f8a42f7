"""Linear and Identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, bounded
from funcnn.ops.matmul.matmul import linear
from funcnn.ops.random.keys import split


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """``y = x @ weight.T + bias`` over the last dimension: (*, in_features) to (*, out_features)."""

    in_features: int = arg("size of the last dimension of the input")
    out_features: int = arg("size of the last dimension of the output")
    bias: bool = arg("whether to add a learned bias", True)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight (out_features, in_features) and bias (out_features,), uniform in +-1/sqrt(in_features)."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
        weight, bias = split(key)
        params = {"weight": bounded(weight, (self.out_features, self.in_features), bound, self.dtype)}
        if self.bias:
            params["bias"] = bounded(bias, (self.out_features,), bound, self.dtype)
        return params, {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return linear(x, params["weight"], params.get("bias")), state

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias}"


@dataclass(frozen=True, init=False, repr=False)
class Identity(Layer):
    """The input, unchanged. Takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return x, state
