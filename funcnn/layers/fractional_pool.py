"""Fractional max pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.layers.pool import for_dims
from funcnn.ops.base.dims import per_dim
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.pool import fractional as fractional_pool


@dataclass(frozen=True, repr=False)
class FractionalMaxPoolNd(Layer):
    """The largest of windows at pseudorandom places (Graham, arXiv:1412.6071): (N, C, *spatial) or (C, *spatial).

    The places are random in evaluation, too: from the key if there is one, else from the global generator.
    """

    kernel_size: Any = arg("size of the window")
    output_size: Any = arg("how many windows; either this or output_ratio", None)
    output_ratio: Any = arg("how many windows, as a share of the input's size, between 0 and 1", None)
    return_indices: bool = arg("also return where the maxima are, as flat indices", False)
    _random_samples: Any = arg("fixed samples in [0, 1) of shape (N, C, dimensions); a buffer", None)
    buffers: ClassVar[tuple[str, ...]] = ("_random_samples",)
    spatial: ClassVar[int] = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if (self.output_size is None) == (self.output_ratio is None):
            raise ValueError(
                f"{name}: expected either output_size or output_ratio, got {self.output_size} and {self.output_ratio}"
            )
        frozen_set(self, kernel_size=per_dim(name, "kernel_size", self.kernel_size, self.spatial))
        if self.output_size is not None:
            frozen_set(self, output_size=per_dim(name, "output_size", self.output_size, self.spatial))
            return
        ratio = self.output_ratio
        ratio = tuple(ratio) if isinstance(ratio, (tuple, list)) else (ratio,) * self.spatial
        if len(ratio) != self.spatial or not all(0 < r < 1 for r in ratio):
            raise ValueError(f"{name}: output_ratio must be between 0 and 1 (got {self.output_ratio})")
        frozen_set(self, output_ratio=ratio)

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether places are drawn."""
        return self._random_samples is None

    def init(self, key: Tensor) -> tuple[dict, dict]:
        return {}, {} if self.random else {"_random_samples": to_tensor(self._random_samples)}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        samples = state.get("_random_samples")
        if samples is None and training:
            key = self.key_for(training, key)
        f = getattr(fractional_pool, f"fractional_max_pool{self.spatial}d")
        return f(x, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, samples, key=key), state


FractionalMaxPool2d, FractionalMaxPool3d = (for_dims(FractionalMaxPoolNd, "FractionalMaxPool", n) for n in (2, 3))
