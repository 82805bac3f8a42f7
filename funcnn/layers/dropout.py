"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.layers.base import Layer, arg, inplace_arg
from funcnn.ops.elementwise.activation import dropout


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """In training each element is zeroed with probability p and the rest scaled by 1/(1-p) (Srivastava et al., JMLR 2014)."""

    p: float = arg("probability of an element to be zeroed", 0.5)
    inplace: bool = inplace_arg()
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"Dropout: p must be between 0 and 1, got {self.p}")

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        if not training:
            return x, state
        return dropout(x, self.p, True, self.inplace, key=self.key_for(training, key)), state

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
