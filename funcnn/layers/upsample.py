"""Upsampling: interpolation as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.ops.sampling.interpolate import interpolate


@dataclass(frozen=True, repr=False)
class _Resampling(Layer):
    """(N, C, *spatial) resampled to ``size``, or by ``scale_factor``."""

    size: Any = arg("output size, one int or one for each spatial dimension", None)
    scale_factor: Any = arg("output size over input size, one number or one for each spatial dimension", None)
    mode: ClassVar[str] = "nearest"
    align_corners: ClassVar[bool | None] = None
    recompute_scale_factor: ClassVar[bool | None] = None

    def __post_init__(self) -> None:
        given = self.scale_factor
        if isinstance(given, (tuple, list)):
            frozen_set(self, scale_factor=tuple(float(factor) for factor in given))
        elif given is not None:
            frozen_set(self, scale_factor=float(given))

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        again = self.recompute_scale_factor
        return interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners, again), state

    def extra_repr(self) -> str:
        shown = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{shown}, mode={self.mode!r}"


@dataclass(frozen=True, repr=False)
class Upsample(_Resampling):
    mode: str = arg("nearest, nearest-exact, linear, bilinear, bicubic, trilinear or area", "nearest")
    align_corners: bool | None = arg("whether corner pixels stay at the corners", None)
    recompute_scale_factor: bool | None = arg("place pixels by the ratio of the sizes, not by scale_factor", None)


@dataclass(frozen=True, repr=False)
class UpsamplingNearest2d(_Resampling):
    pass


@dataclass(frozen=True, repr=False)
class UpsamplingBilinear2d(_Resampling):
    mode: ClassVar[str] = "bilinear"
    align_corners: ClassVar[bool | None] = True


Upsample.__doc__ = _Resampling.__doc__
UpsamplingNearest2d.__doc__ = "(N, C, H, W) resampled to ``size``, or by ``scale_factor``, from the nearest pixel."
UpsamplingBilinear2d.__doc__ = (
    "(N, C, H, W) resampled to ``size``, or by ``scale_factor``; corner pixels stay in place."
)
