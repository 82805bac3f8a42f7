"""Adaptive max and average pooling: the output's size is given, not the window's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.layers.base import Layer, arg
from funcnn.layers.pool import for_dims
from funcnn.ops.pool import adaptive as adaptive_pool


@dataclass(frozen=True, repr=False)
class AdaptiveAvgPoolNd(Layer):
    """The mean of each of ``output_size`` windows that cover the input: (N, C, *spatial) or (C, *spatial)."""

    output_size: Any = arg("an int or one for each dimension; None keeps a dimension's size")
    spatial: ClassVar[int] = 0

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return getattr(adaptive_pool, f"adaptive_avg_pool{self.spatial}d")(x, self.output_size), state

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


@dataclass(frozen=True, repr=False)
class AdaptiveMaxPoolNd(Layer):
    """The largest of each of ``output_size`` windows that cover the input: (N, C, *spatial) or (C, *spatial)."""

    output_size: Any = arg("an int or one for each dimension; None keeps a dimension's size")
    return_indices: bool = arg("also return where the maxima are, as flat indices", False)
    spatial: ClassVar[int] = 0

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        f = getattr(adaptive_pool, f"adaptive_max_pool{self.spatial}d")
        return f(x, self.output_size, self.return_indices), state

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (
    for_dims(AdaptiveAvgPoolNd, "AdaptiveAvgPool", n) for n in (1, 2, 3)
)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (
    for_dims(AdaptiveMaxPoolNd, "AdaptiveMaxPool", n) for n in (1, 2, 3)
)
