"""Optimizers, as pairs of pure functions and as PyTorch's classes generated from the same rules."""

from __future__ import annotations

from funcnn.optim.functional import PureOptimizer, adam, adamw, sgd
from funcnn.optim.optimizer import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "PureOptimizer", "adam", "adamw", "sgd"]
