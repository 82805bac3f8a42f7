"""The error function, its complement and its inverse on flat arrays: one pass, each number read and written once; the
scalar functions are the cost. The inverse is found in float64 and rounded at the end."""

from __future__ import annotations

import math

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel


@kernel
def erf(x, y):
    """y = erf(x)."""
    for i in range(x.size):
        y[i] = math.erf(x[i])


@kernel
def erfc(x, y):
    """y = 1 - erf(x), without cancellation for large x."""
    for i in range(x.size):
        y[i] = math.erfc(x[i])


@device_function
def erfinv_scalar(x):
    """The inverse of erf: Winitzki's closed form (2008) as a start, then Halley's steps on erf(t) = x, or on
    erfc(t) = 1 - x where erf is flat."""
    if np.isnan(x) or x < -1.0 or x > 1.0:
        return np.nan
    if x == 0.0:
        return x
    size = abs(x)
    if size == 1.0:
        return np.inf if x > 0 else -np.inf
    a = 0.147
    log_term = math.log((1.0 - size) * (1.0 + size))
    b = 2.0 / (math.pi * a) + 0.5 * log_term
    t = math.sqrt(math.sqrt(b * b - log_term / a) - b)
    for _ in range(3):
        error = math.erf(t) - size if size < 0.5 else (1.0 - size) - math.erfc(t)
        slope = 2.0 / math.sqrt(math.pi) * math.exp(-t * t)
        step = error / slope
        t -= step / (1.0 + t * step)
    return t if x > 0 else -t


@kernel
def erfinv(x, y):
    """y with erf(y) = x; infinite at -1 and 1, NaN outside."""
    for i in range(x.size):
        y[i] = erfinv_scalar(float(x[i]))
