"""One row of the table of cases: an operation, how to make its inputs, and who knows the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Arr:
    """How to make one input: uniform floats in [low, high), integers in [low, high), or bools.

    distinct: floats that differ from one another by much more than a finite-difference step (for max, sort, pooling).
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str = "float"  # "float" takes the row's dtype in turn; else a NumPy dtype's name
    distinct: bool = False

    def make(self, rng: np.random.Generator, dtype: str) -> np.ndarray:
        """A random array of this kind."""
        if self.dtype == "bool":
            return rng.random(self.shape) < 0.5
        if self.dtype != "float":
            return rng.integers(int(self.low), int(self.high), self.shape).astype(self.dtype)
        if self.distinct:
            n = int(np.prod(self.shape))
            spread = (rng.permutation(n) + 0.5 + rng.uniform(-0.2, 0.2, n)) / max(n, 1)
            return (self.low + (self.high - self.low) * spread.reshape(self.shape)).astype(dtype)
        return rng.uniform(self.low, self.high, self.shape).astype(dtype)


@dataclass(frozen=True)
class Case:
    """fn: applied to funcnn tensors; may return a tensor or a tuple of them.

    numpy, torch: the same on NumPy arrays and on torch tensors; at least one must be given. NumPy's floats are float64.
    grad: whether gradients (first and second order, float64) are checked for the floating inputs.
    second: a row without a second derivative must refuse one with a ``GradientError``.
    vmap: whether batching is checked against a loop over examples. jit: whether jit is checked against eager.
    rtol: for values (and atol too), by default 1e-5 in float32 and 1e-12 in float64.
    """

    id: str
    fn: Callable
    inputs: tuple
    numpy: Callable | None = None
    torch: Callable | None = None
    grad: bool = True
    second: bool = True
    vmap: bool = True
    jit: bool = True
    rtol: dict | None = None
    dtypes: tuple = ("float32", "float64")

    def arrays(self, dtype: str, seed: int = 0) -> list[np.ndarray]:
        """Fresh random inputs; a NumPy array among ``inputs`` stands for itself."""
        rng = np.random.default_rng(seed)
        return [item.make(rng, dtype) if isinstance(item, Arr) else item for item in self.inputs]
