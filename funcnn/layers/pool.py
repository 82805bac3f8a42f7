"""Max, average and power-average pooling in one, two and three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.ops.base.dims import per_dim
from funcnn.ops.pool import lp as lp_pool
from funcnn.ops.pool import pool


@dataclass(frozen=True, repr=False)
class MaxPoolNd(Layer):
    """The largest element of each window: (N, C, *spatial) or (C, *spatial), padded with minus infinity."""

    kernel_size: Any = arg("size of the window")
    stride: Any = arg("step of the window, None for kernel_size", None)
    padding: Any = arg("added on both sides, at most half the window", 0)
    dilation: Any = arg("distance between window elements", 1)
    return_indices: bool = arg("also return where the maxima are, as flat indices", False)
    ceil_mode: bool = arg("keep a last window that runs over the edge", False)
    spatial: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.stride is None:
            frozen_set(self, stride=self.kernel_size)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        f = getattr(pool, f"max_pool{self.spatial}d")
        y = f(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return y, state

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


@dataclass(frozen=True, repr=False)
class _AvgPool(Layer):
    """The mean of each window: (N, C, *spatial) or (C, *spatial), padded with zeros."""

    kernel_size: Any = arg("size of the window")
    stride: Any = arg("step of the window, None for kernel_size", None)
    padding: Any = arg("added on both sides, at most half the window", 0)
    ceil_mode: bool = arg("keep a last window that runs over the edge", False)
    count_include_pad: bool = arg("divide by the window's size even where it covers padding", True)
    spatial: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.stride is None:
            frozen_set(self, stride=self.kernel_size)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        f = getattr(pool, f"avg_pool{self.spatial}d")
        more = () if self.spatial == 1 else (getattr(self, "divisor_override", None),)
        return f(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, *more), state

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


@dataclass(frozen=True, repr=False)
class AvgPool1d(_AvgPool):
    spatial: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        frozen_set(
            self,
            kernel_size=per_dim("AvgPool1d", "kernel_size", self.kernel_size, 1),
            stride=per_dim("AvgPool1d", "stride", self.stride, 1),
            padding=per_dim("AvgPool1d", "padding", self.padding, 1, least=0),
        )


@dataclass(frozen=True, repr=False)
class AvgPoolNd(_AvgPool):
    divisor_override: int | None = arg("divide by this instead of the window's size", None)


AvgPool1d.__doc__ = AvgPoolNd.__doc__ = _AvgPool.__doc__


@dataclass(frozen=True, repr=False)
class LPPoolNd(Layer):
    """The p-norm of each window: (N, C, *spatial) or (C, *spatial)."""

    norm_type: float = arg("the p of the norm; 1 sums, large ones come near the maximum")
    kernel_size: Any = arg("size of the window")
    stride: Any = arg("step of the window, None for kernel_size", None)
    ceil_mode: bool = arg("keep a last window that runs over the edge", False)
    spatial: ClassVar[int] = 0

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        f = getattr(lp_pool, f"lp_pool{self.spatial}d")
        return f(x, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode), state

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


def for_dims(base: type, stem: str, n: int) -> type:
    """The layer for ``n`` spatial dimensions, made of the one for all."""
    return type(f"{stem}{n}d", (base,), {"spatial": n, "__module__": base.__module__, "__doc__": base.__doc__})


MaxPool1d, MaxPool2d, MaxPool3d = (for_dims(MaxPoolNd, "MaxPool", n) for n in (1, 2, 3))
AvgPool2d, AvgPool3d = (for_dims(AvgPoolNd, "AvgPool", n) for n in (2, 3))
LPPool1d, LPPool2d, LPPool3d = (for_dims(LPPoolNd, "LPPool", n) for n in (1, 2, 3))
