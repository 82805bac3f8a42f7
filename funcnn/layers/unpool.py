"""Max unpooling, the partial inverse of max pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.layers.pool import for_dims
from funcnn.ops.base.dims import per_dim
from funcnn.ops.pool import unpool


@dataclass(frozen=True, repr=False)
class MaxUnpoolNd(Layer):
    """Each value where max pooling with ``return_indices`` found it, zeros elsewhere; called with the values, the indices
    and, where pooling rounded sizes down, the ``output_size``."""

    kernel_size: Any = arg("size of the window that was pooled with")
    stride: Any = arg("its step, None for kernel_size", None)
    padding: Any = arg("its padding", 0)
    spatial: ClassVar[int] = 0

    def __post_init__(self) -> None:
        stride = self.kernel_size if self.stride is None else self.stride
        name, n = type(self).__name__, self.spatial
        frozen_set(
            self,
            kernel_size=per_dim(name, "kernel_size", self.kernel_size, n),
            stride=per_dim(name, "stride", stride, n),
            padding=per_dim(name, "padding", self.padding, n, least=0),
        )

    def __call__(
        self, params: dict, state: dict, x: Any, indices: Any, output_size: Any = None, *, training: bool = False,
        key: Any = None,
    ) -> tuple:  # fmt: skip
        f = getattr(unpool, f"max_unpool{self.spatial}d")
        return f(x, indices, self.kernel_size, self.stride, self.padding, output_size), state

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


MaxUnpool1d, MaxUnpool2d, MaxUnpool3d = (for_dims(MaxUnpoolNd, "MaxUnpool", n) for n in (1, 2, 3))
