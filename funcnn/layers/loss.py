"""Losses as layers: no parameters, two inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.ops.softmax import loss

_REDUCTIONS = ("none", "mean", "sum")


@dataclass(frozen=True, repr=False)
class _Loss(Layer):
    def __post_init__(self) -> None:
        given: Any = self
        meant = loss.reduction_of(given.reduction, given.size_average, given.reduce)
        if meant not in _REDUCTIONS:
            raise ValueError(f"{type(self).__name__}: reduction must be one of {_REDUCTIONS}, got {meant!r}")
        frozen_set(self, reduction=meant)


@dataclass(frozen=True, repr=False)
class MSELoss(_Loss):
    """``(input - target) ** 2``, reduced."""

    size_average: bool | None = arg("deprecated, see reduction", None)
    reduce: bool | None = arg("deprecated, see reduction", None)
    reduction: str = arg("'none', 'mean' or 'sum'", "mean")

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        return loss.mse_loss(*inputs, reduction=self.reduction), state


@dataclass(frozen=True, repr=False)
class L1Loss(_Loss):
    """``|input - target|``, reduced."""

    size_average: bool | None = arg("deprecated, see reduction", None)
    reduce: bool | None = arg("deprecated, see reduction", None)
    reduction: str = arg("'none', 'mean' or 'sum'", "mean")

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        return loss.l1_loss(*inputs, reduction=self.reduction), state


@dataclass(frozen=True, repr=False, eq=False)
class NLLLoss(_Loss):
    """``-input[target]``, weighted and reduced, for log-probabilities (N, C, ...) and class indices (N, ...)."""

    weight: Any = arg("a weight for each class, or None", None)
    size_average: bool | None = arg("deprecated, see reduction", None)
    ignore_index: int = arg("target value that does not count", -100)
    reduce: bool | None = arg("deprecated, see reduction", None)
    reduction: str = arg("'none', 'mean' or 'sum'", "mean")
    buffers: ClassVar[tuple[str, ...]] = ("weight",)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """No parameters; the class weights, if any, are state."""
        return {}, {} if self.weight is None else {"weight": self.weight}

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        weight = state.get("weight")
        return loss.nll_loss(*inputs, weight=weight, ignore_index=self.ignore_index, reduction=self.reduction), state


@dataclass(frozen=True, repr=False, eq=False)
class CrossEntropyLoss(_Loss):
    """``-log(softmax(input)[target])``, for logits (N, C, ...) and class indices (N, ...) or probabilities (N, C, ...)."""

    weight: Any = arg("a weight for each class, or None", None)
    size_average: bool | None = arg("deprecated, see reduction", None)
    ignore_index: int = arg("target value that does not count", -100)
    reduce: bool | None = arg("deprecated, see reduction", None)
    reduction: str = arg("'none', 'mean' or 'sum'", "mean")
    label_smoothing: float = arg(
        "share of the target spread evenly over all classes (Szegedy et al., arXiv:1512.00567)", 0.0
    )
    buffers: ClassVar[tuple[str, ...]] = ("weight",)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """No parameters; the class weights, if any, are state."""
        return {}, {} if self.weight is None else {"weight": self.weight}

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        value = loss.cross_entropy(
            *inputs,
            weight=state.get("weight"),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
        return value, state
