"""Local response normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from funcnn.layers.base import Layer, arg
from funcnn.ops.norm.lrn import local_response_norm


@dataclass(frozen=True, repr=False)
class LocalResponseNorm(Layer):
    """``x / (k + alpha / size * sum(x ** 2)) ** beta`` over neighbouring channels (Krizhevsky et al., 2012, section 3.3).

    Input (N, C, *spatial), output of the same shape.
    """

    size: int = arg("channels in the window")
    alpha: float = arg("factor of the mean square", 1e-4)
    beta: float = arg("exponent", 0.75)
    k: float = arg("added to the mean square", 1.0)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k), state

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
