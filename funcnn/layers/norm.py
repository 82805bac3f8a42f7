"""Normalization: batch and instance in one, two and three dimensions, layer, group and RMS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, float_dtype, frozen_set
from funcnn.ops.elementwise.arithmetic import add, mul, sub, true_divide
from funcnn.ops.movement.views import squeeze, stop_gradient, unsqueeze
from funcnn.ops.norm import norm
from funcnn.ops.tensor.creation import ones, zeros


def affine_params(shape: tuple, weight: bool, bias: bool, dtype: Any) -> dict:
    """A weight of ones and a bias of zeros, as far as wanted."""
    made = {"weight": ones(shape, dtype=float_dtype(dtype))} if weight else {}
    return {**made, "bias": zeros(shape, dtype=float_dtype(dtype))} if bias else made


def sizes_of(shape: Any) -> tuple[int, ...]:
    """``normalized_shape`` as a tuple."""
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)


def _reset_running_stats(self: Any) -> None:
    """Set the running statistics to those of no batch: mean 0, variance 1, no batch tracked."""
    if self.track_running_stats:
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()


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
    module_methods: ClassVar[dict[str, Callable]] = {"reset_running_stats": _reset_running_stats}
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        frozen_set(self, bias=self.bias and self.affine)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1, bias 0; running_mean 0, running_var 1, num_batches_tracked 0."""
        params = affine_params((self.num_features,), self.affine, self.bias, self.dtype)
        if not self.track_running_stats:
            return params, {}
        return params, {
            "running_mean": zeros(self.num_features, dtype=float_dtype(self.dtype)),
            "running_var": ones(self.num_features, dtype=float_dtype(self.dtype)),
            "num_batches_tracked": zeros((), dtype=np.int64),
        }

    def upgrade(self, numbers: dict, prefix: str, version: int | None, state: dict) -> None:
        """Version 1, and dicts that tell no version, may lack the count of batches: it stays."""
        if (version or 1) < 2 and "num_batches_tracked" in state:
            numbers.setdefault(f"{prefix}num_batches_tracked", state["num_batches_tracked"])

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        self._check(x)
        weight, bias = params.get("weight"), params.get("bias")
        held = "running_mean" in state  # counts in evaluation, also after track_running_stats was turned off
        if not training and held:
            stats = state["running_mean"], state["running_var"]
            return norm.batch_norm_inference(x, *stats, weight, bias, self.eps), state
        y, mean, var, unbiased = norm.batch_statistics_norm(x, weight, bias, self.eps)
        follows = training and held and self.track_running_stats
        return y, self._followed(state, mean, var, unbiased) if follows else state

    def _followed(self, state: dict, mean: Tensor, var: Tensor, unbiased: float) -> dict:
        count = add(state["num_batches_tracked"], 1)
        if mean is None:  # an empty batch, which counts all the same
            return {**state, "num_batches_tracked": count}
        held, batch = (state["running_mean"], state["running_var"]), (mean, var)
        if self.momentum is not None:
            return dict(
                zip(self.buffers, (*norm.follow(held, batch, self.momentum, (1.0, unbiased)), count), strict=True)
            )
        share = true_divide(1.0, count)
        new = [stop_gradient(mean), mul(stop_gradient(var), unbiased)]
        moved = [add(old, mul(sub(value, old), share)) for old, value in zip(held, new, strict=True)]
        return dict(zip(self.buffers, (*moved, count), strict=True))

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
class InstanceNormNd(BatchNormNd):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each image and channel over space (Ulyanov et al.,
    arXiv:1607.08022).

    Input (N, C, *spatial) or (C, *spatial). With running statistics, those are used in evaluation.
    """

    momentum: float | None = arg("weight of the new batch in the running statistics", 0.1)
    affine: bool = arg("whether there are a learned weight and bias", False)
    track_running_stats: bool = arg("whether running statistics are kept", False)

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        if x.ndim == self.ranks[0]:
            y, state = self(params, state, unsqueeze(x, 0), training=training)
            return squeeze(y, 0), state
        self._check(x)
        affine = params.get("weight"), params.get("bias")
        if not training and self.track_running_stats:
            stats = state["running_mean"], state["running_var"]
            return norm.batch_norm_inference(x, *stats, *affine, self.eps), state
        y, mean, var, unbiased = norm.instance_statistics_norm(x, *affine, self.eps)
        if not (training and self.track_running_stats):
            return y, state
        held = state["running_mean"], state["running_var"]
        moved = norm.follow(held, (mean, var), self.momentum or 0.0, (1.0, unbiased))
        return y, dict(zip(self.buffers, (*moved, state["num_batches_tracked"]), strict=True))


InstanceNorm1d, InstanceNorm2d, InstanceNorm3d = (
    type(name, (InstanceNormNd,), {"ranks": (n + 1, n + 2), "__module__": __name__, "__doc__": InstanceNormNd.__doc__})
    for n, name in ((1, "InstanceNorm1d"), (2, "InstanceNorm2d"), (3, "InstanceNorm3d"))
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
        frozen_set(self, normalized_shape=sizes_of(self.normalized_shape))
        frozen_set(self, bias=self.bias and self.elementwise_affine)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1 and bias 0, of ``normalized_shape``."""
        return affine_params(self.normalized_shape, self.elementwise_affine, self.bias, self.dtype), {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return norm.layer_norm(x, self.normalized_shape, params.get("weight"), params.get("bias"), self.eps), state

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias}"
        )


@dataclass(frozen=True, repr=False)
class GroupNorm(Layer):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over groups of channels and space (Wu and He, arXiv:1803.08494).

    Input (N, C, *spatial), output of the same shape.
    """

    num_groups: int = arg("groups that the channels are cut into")
    num_channels: int = arg("channels C of the input")
    eps: float = arg("added to the variance", 1e-5)
    affine: bool = arg("whether there are a learned weight and bias for each channel", True)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    bias: bool = arg("with affine, whether there is a bias", True)
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self) -> None:
        if self.num_groups < 1 or self.num_channels % self.num_groups:
            raise ValueError(
                f"GroupNorm: {self.num_channels} channels are not divisible into {self.num_groups} groups; "
                "num_channels must be a multiple of num_groups"
            )
        frozen_set(self, bias=self.bias and self.affine)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1 and bias 0, one for each channel."""
        return affine_params((self.num_channels,), self.affine, self.bias, self.dtype), {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return norm.group_norm(x, self.num_groups, params.get("weight"), params.get("bias"), self.eps), state

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias}"


@dataclass(frozen=True, repr=False)
class RMSNorm(Layer):
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last dimensions (Zhang and Sennrich, arXiv:1910.07467, eq. 4)."""

    normalized_shape: Any = arg("an int, or the sizes of the last dimensions to normalise over")
    eps: float | None = arg("added to the mean square, None for the dtype's machine epsilon", None)
    elementwise_affine: bool = arg("whether there is a learned weight", True)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        frozen_set(self, normalized_shape=sizes_of(self.normalized_shape))

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight 1, of ``normalized_shape``."""
        return affine_params(self.normalized_shape, self.elementwise_affine, False, self.dtype), {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        return norm.rms_norm(x, self.normalized_shape, params.get("weight"), self.eps), state

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
