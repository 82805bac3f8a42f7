"""Channels moved into space and back, and channels dealt anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from funcnn.layers.base import Layer, arg
from funcnn.ops.movement.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle


@dataclass(frozen=True, repr=False)
class PixelShuffle(Layer):
    """(*, C * r * r, H, W) to (*, C, H * r, W * r) (Shi et al., arXiv:1609.05158)."""

    upscale_factor: int = arg("r, by which height and width grow")

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return pixel_shuffle(x, self.upscale_factor), state

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


@dataclass(frozen=True, repr=False)
class PixelUnshuffle(Layer):
    """(*, C, H * r, W * r) to (*, C * r * r, H, W): the inverse of PixelShuffle."""

    downscale_factor: int = arg("r, by which height and width shrink")

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return pixel_unshuffle(x, self.downscale_factor), state

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


@dataclass(frozen=True, repr=False)
class ChannelShuffle(Layer):
    """(N, C, *) with the channels of ``groups`` runs dealt in turn (Zhang et al., arXiv:1707.01083)."""

    groups: int = arg("runs of channels, which divide their number")

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return channel_shuffle(x, self.groups), state

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
