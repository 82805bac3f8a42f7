"""Batch normalization in one, two and three dimensions, and layer normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor, constant
from funcnn.layers.base import Layer, arg, float_dtype, frozen_set
from funcnn.ops import norm
from funcnn.ops.creation import ones, zeros
from funcnn.ops.elementwise import add, mul, stop_gradient, sub, true_divide


@dataclass(frozen=True, repr=False)
class BatchNormNd(Layer):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel over batch and space (Ioffe and Szegedy,
    arXiv:1502.03167, algorithm 1).

    In training the batch's own mean and biased variance are used, and the running ones follow with the unbiased variance;
    in evaluation the running ones are used. Input (N, C, *spatial), output of the same shape.
    """

    num_features: int = arg("channels C of the input")
    eps: float = arg("added to the variance", 1e-5)
    momentum: float | None = arg("weight of the new batch in the running statistics, None for their plain mean", 0.1)
    affine: bool = arg("whether there are a learned weight and bias", True)
    track_running_stats: bool = arg("whether running statistics are kept", True)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of parameters and statistics, None for the default float", None)
    bias: bool = arg("with affine, whether there is a bias", True)
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")
    buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var", "num_batches_tracked")
    ranks: ClassVar[tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        frozen_set(self, bias=self.bias and self.affine)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1, bias 0; running_mean 0, running_var 1, num_batches_tracked 0."""
        dtype = float_dtype(self.dtype)
        params = {"weight": ones(self.num_features, dtype=dtype)} if self.affine else {}
        if self.bias:
            params["bias"] = zeros(self.num_features, dtype=dtype)
        if not self.track_running_stats:
            return params, {}
        return params, {
            "running_mean": zeros(self.num_features, dtype=dtype),
            "running_var": ones(self.num_features, dtype=dtype),
            "num_batches_tracked": constant(np.zeros((), np.int64)),
        }

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        self._check(x)
        weight, bias = params.get("weight"), params.get("bias")
        if not training and self.track_running_stats:
            stats = state["running_mean"], state["running_var"]
            return norm.batch_norm_inference(x, *stats, weight, bias, self.eps), state
        y, mean, var = norm.batch_norm_training(x, weight, bias, self.eps)
        return y, self._followed(state, mean, var) if training and self.track_running_stats else state

    def _followed(self, state: dict, mean: Tensor, var: Tensor) -> dict:
        count = add(state["num_batches_tracked"], 1)
        share = true_divide(1.0, count) if self.momentum is None else self.momentum
        new = {"num_batches_tracked": count}
        for name, batch in (("running_mean", mean), ("running_var", var)):
            held = state[name]
            new[name] = add(held, mul(sub(stop_gradient(batch), held), share))
        return {name: new[name] for name in self.buffers}

    def _check(self, x: Any) -> None:
        name = type(self).__name__
        if x.ndim not in self.ranks:
            wanted = " or ".join(f"{rank}-d" for rank in self.ranks)
            raise ShapeError(f"{name}: expected {wanted} input (N, C, ...), got shape {tuple(x.shape)}")
        if x.shape[1] != self.num_features:
            raise ShapeError(
                f"{name}: expected {self.num_features} channels in dimension 1, got shape {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, bias={self.bias}, "
            f"track_running_stats={self.track_running_stats}"
        )


BatchNorm1d, BatchNorm2d, BatchNorm3d = (
    type(f"BatchNorm{n}d", (BatchNormNd,), {"ranks": ranks, "__module__": __name__, "__doc__": BatchNormNd.__doc__})
    for n, ranks in ((1, (2, 3)), (2, (4,)), (3, (5,)))
)


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions (Ba et al., arXiv:1607.06450, eq. 4)."""

    normalized_shape: Any = arg("an int, or the sizes of the last dimensions to normalise over")
    eps: float = arg("added to the variance", 1e-5)
    elementwise_affine: bool = arg("whether there are a learned weight and bias", True)
    bias: bool = arg("with elementwise_affine, whether there is a bias", True)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self) -> None:
        shape = self.normalized_shape
        frozen_set(self, normalized_shape=(int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape))
        frozen_set(self, bias=self.bias and self.elementwise_affine)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1 and bias 0, of ``normalized_shape``."""
        dtype = float_dtype(self.dtype)
        params = {"weight": ones(self.normalized_shape, dtype=dtype)} if self.elementwise_affine else {}
        if self.bias:
            params["bias"] = zeros(self.normalized_shape, dtype=dtype)
        return params, {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return norm.layer_norm(x, self.normalized_shape, params.get("weight"), params.get("bias"), self.eps), state

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias}"
        )
