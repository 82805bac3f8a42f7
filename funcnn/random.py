"""Functional random numbers: explicit keys, pure functions (the stateful ones of PyTorch are in the package itself)."""

from __future__ import annotations

from funcnn.ops.random.keys import bernoulli, bits, fold_in, key, normal, permutation, randint, split, uniform

__all__ = ["bernoulli", "bits", "fold_in", "key", "normal", "permutation", "randint", "split", "uniform"]
