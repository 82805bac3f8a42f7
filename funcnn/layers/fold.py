"""Fold and Unfold: images as columns of windows, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from funcnn.layers.base import Layer, arg
from funcnn.ops.conv.fold import fold, unfold


@dataclass(frozen=True, repr=False)
class Unfold(Layer):
    """(N, C, H, W) to (N, C * kh * kw, L): each of the L windows as a column."""

    kernel_size: Any = arg("size of the window")
    dilation: Any = arg("distance between window elements", 1)
    padding: Any = arg("zeros added on both sides", 0)
    stride: Any = arg("step of the window", 1)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride), state

    def extra_repr(self) -> str:
        names = "kernel_size", "dilation", "padding", "stride"
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, repr=False)
class Fold(Layer):
    """(N, C * kh * kw, L) to (N, C, *output_size): overlapping windows add up."""

    output_size: Any = arg("height and width of the result")
    kernel_size: Any = arg("size of the window")
    dilation: Any = arg("distance between window elements", 1)
    padding: Any = arg("zeros added on both sides", 0)
    stride: Any = arg("step of the window", 1)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride), state

    def extra_repr(self) -> str:
        names = "output_size", "kernel_size", "dilation", "padding", "stride"
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
