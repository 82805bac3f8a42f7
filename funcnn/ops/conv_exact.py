"""Convolution of infinities and NaN: what the fast kernels compute with zeros in between is put right here.

They multiply padding and the gaps of the pixel grid, which are zeros, and Winograd's transforms add numbers of a whole patch;
zero times infinity is NaN where no product should have been. A convolution and its gradients are bilinear, so the
right answer needs only products of finite numbers: of the finite parts, and of counts and signs of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exactly(product: Callable, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out = product(a, b)``, where ``product`` is bilinear and right for finite numbers.

    A sum is NaN if a term is NaN (NaN times anything, infinity times zero, or infinities of both signs), else infinite
    with the sign that all its infinite terms have. Counts are exact up to 2^24 terms in float32.
    """
    one_a, one_b = np.ones_like(a), np.ones_like(b)
    nan_a, nan_b = np.isnan(a).astype(a.dtype), np.isnan(b).astype(b.dtype)
    inf_a, inf_b = np.isinf(a).astype(a.dtype), np.isinf(b).astype(b.dtype)
    sign_a, sign_b = np.sign(np.where(np.isnan(a), 0, a)), np.sign(np.where(np.isnan(b), 0, b))
    nans = product(nan_a, one_b) + product(one_a, nan_b)
    infinite = product(inf_a, one_b) + product(one_a, inf_b) - product(inf_a, inf_b)
    signs = product(inf_a * sign_a, sign_b) + product(sign_a, inf_b * sign_b) - product(inf_a * sign_a, inf_b * sign_b)
    finite = product(np.nan_to_num(a, nan=0, posinf=0, neginf=0), np.nan_to_num(b, nan=0, posinf=0, neginf=0))
    out[...] = np.where(infinite > 0, np.copysign(np.inf, signs), finite)
    out[(nans > 0) | (np.abs(signs) != infinite)] = np.nan
