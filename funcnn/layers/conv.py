"""Conv1d, Conv2d, Conv3d: one N-d layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, bounded, frozen_set, positive
from funcnn.ops.base.dims import per_dim
from funcnn.ops.conv import conv
from funcnn.ops.movement.pad import pad
from funcnn.ops.random.keys import split

_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True, repr=False)
class ConvNd(Layer):
    """Convolution (cross-correlation, as everywhere in the field) over N spatial dimensions.

    Input (N, in_channels, *spatial) or without N; output (N, out_channels, *spatial'), with
    ``out = floor((in + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1``.
    """

    in_channels: int = arg("channels of the input")
    out_channels: int = arg("channels of the output")
    kernel_size: Any = arg("size of the kernel, an int or one for each dimension")
    stride: Any = arg("step of the kernel", 1)
    padding: Any = arg("added on both sides: an int, one for each dimension, 'same' or 'valid'", 0)
    dilation: Any = arg("distance between kernel elements", 1)
    groups: int = arg("blocks of channels that are convolved apart", 1)
    bias: bool = arg("whether to add a learned bias", True)
    padding_mode: str = arg("'zeros', 'reflect', 'replicate' or 'circular'", "zeros")
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")
    spatial: ClassVar[int] = 0

    def __post_init__(self) -> None:
        name, n = type(self).__name__, self.spatial
        frozen_set(
            self,
            kernel_size=per_dim(name, "kernel_size", self.kernel_size, n),
            stride=per_dim(name, "stride", self.stride, n),
            dilation=per_dim(name, "dilation", self.dilation, n),
        )
        if not isinstance(self.padding, str):
            frozen_set(self, padding=per_dim(name, "padding", self.padding, n, least=0))
        elif self.padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding must be ints, 'same' or 'valid', got {self.padding!r}")
        positive(name, groups=self.groups)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: in_channels={self.in_channels} and out_channels={self.out_channels} must be divisible by "
                f"groups={self.groups}"
            )
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(f"{name}: padding='same' needs stride 1, got {self.stride}")
        if self.padding_mode not in _MODES:
            raise ValueError(f"{name}: padding_mode must be one of {_MODES}, got {self.padding_mode!r}")

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight (out_channels, in_channels / groups, *kernel_size) and bias, uniform in +-1/sqrt(fan_in)."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        fan_in = math.prod(shape[1:])
        bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        weight, bias = split(key)
        params = {"weight": bounded(weight, shape, bound, self.dtype)}
        if self.bias:
            params["bias"] = bounded(bias, (self.out_channels,), bound, self.dtype)
        return params, {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = pad(x, self._border(), mode=self.padding_mode), 0
        f = getattr(conv, f"conv{self.spatial}d")
        y = f(x, params["weight"], params.get("bias"), self.stride, padding, self.dilation, self.groups)
        return y, state

    def _border(self) -> tuple[int, ...]:
        """The padding as ``ops.movement.pad`` takes it: last dimension first, before and after."""
        if self.padding == "valid":
            return (0,) * (2 * self.spatial)
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple(side for total in reversed(totals) for side in (total // 2, total - total // 2))
        return tuple(side for p in reversed(self.padding) for side in (p, p))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.spatial:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.spatial:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if not self.bias:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


Conv1d, Conv2d, Conv3d = (
    type(f"Conv{n}d", (ConvNd,), {"spatial": n, "__module__": __name__, "__doc__": ConvNd.__doc__}) for n in (1, 2, 3)
)
