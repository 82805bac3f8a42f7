"""Rows of reductions and scans."""

from __future__ import annotations

import numpy as np

from tests.cases.both import both
from tests.cases.case import Arr

A = Arr((2, 3, 4))
M = Arr((3, 4))
UNIQUE = Arr((3, 4), distinct=True)
POSITIVE = Arr((3, 4), 0.5, 2.0)
INTS = Arr((3, 4), -3, 4, "int64")
BOOLS = Arr((3, 4), dtype="bool")

ROWS = [
    both("sum", lambda m, x: m.sum(x), A),
    both("sum_dims", lambda m, x: m.sum(x, (0, -1), keepdim=True), A),
    both("sum_ints", lambda m, x: m.sum(x, 1), INTS, grad=False),
    both("sum_bools", lambda m, x: m.sum(x), BOOLS, grad=False),
    both("mean", lambda m, x: m.mean(x), A),
    both("mean_dim", lambda m, x: m.mean(x, 1, keepdim=True), A),
    both("var", lambda m, x: m.var(x), A),
    both("var_dim", lambda m, x: m.var(x, dim=(0, 2), correction=0, keepdim=True), A),
    both("std", lambda m, x: m.std(x, dim=1), A),
    both("var_mean", lambda m, x: m.var_mean(x, dim=1), A),
    both("std_mean", lambda m, x: m.std_mean(x, dim=1), A),
    both("prod", lambda m, x: m.prod(x), POSITIVE),
    both("prod_dim", lambda m, x: m.prod(x, 1, keepdim=True), A),
    both("prod_zeros", lambda m, x: m.prod(x * m.tensor([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1]], dtype=x.dtype), 1), M),
    both("max", lambda m, x: m.max(x), UNIQUE),
    both("max_dim", lambda m, x: m.max(x, 1), UNIQUE),
    both("min", lambda m, x: m.min(x), UNIQUE),
    both("min_dim", lambda m, x: m.min(x, 0, keepdim=True), UNIQUE),
    both("max_of_two", lambda m, x, y: m.max(x, y), UNIQUE, M),
    both("amax", lambda m, x: m.amax(x, (0, 1)), UNIQUE),
    both("amin", lambda m, x: m.amin(x, 1, keepdim=True), UNIQUE),
    both("aminmax", lambda m, x: m.aminmax(x, dim=1), UNIQUE),
    both("argmax", lambda m, x: m.argmax(x), UNIQUE, grad=False),
    both("argmax_dim", lambda m, x: m.argmax(x, 1, keepdim=True), UNIQUE, grad=False),
    both("argmin", lambda m, x: m.argmin(x, 0), UNIQUE, grad=False),
    both("any", lambda m, x: m.any(x, 1), BOOLS, grad=False),
    both("all", lambda m, x: m.all(x, 0), BOOLS, grad=False),
    both("any_all", lambda m, x: (m.any(x), m.all(x)), BOOLS, grad=False),
    both("count_nonzero", lambda m, x: m.count_nonzero(x, 1), INTS, grad=False),
    both("logsumexp", lambda m, x: m.logsumexp(x, 1), M),
    both("logsumexp_dims", lambda m, x: m.logsumexp(x, (0, 2), keepdim=True), A),
    both("logsumexp_large", lambda m, x: m.logsumexp(x * 500.0, 1), Arr((3, 4), distinct=True)),
    both("norm", lambda m, x: m.norm(x), M),
    both("norm_1", lambda m, x: m.norm(x, 1, 1), Arr((3, 4), distinct=True)),
    both("norm_3", lambda m, x: m.norm(x, 3, 1), POSITIVE),
    both("norm_inf", lambda m, x: m.norm(x, float("inf"), 1, keepdim=True), Arr((3, 4), 0.1, 2.0, distinct=True)),
    both("norm_minus_inf", lambda m, x: m.norm(x, float("-inf"), 0), Arr((3, 4), 0.1, 2.0, distinct=True)),
    both("norm_0", lambda m, x: m.norm(x, 0, 1), M, grad=False),
    both("nansum", lambda m, x: m.nansum(x, 1), M),
    both("nanmean", lambda m, x: m.nanmean(x, 1), M),
    both("median", lambda m, x: m.median(x), UNIQUE),
    both("median_dim", lambda m, x: m.median(x, 1), UNIQUE),
    both("trace", lambda m, x: m.trace(x), M),
    both("cumsum", lambda m, x: m.cumsum(x, 1), M),
    both("cumsum_ints", lambda m, x: m.cumsum(x, 0), INTS, grad=False),
    both("cumprod", lambda m, x: m.cumprod(x, 1), M),
    both("cumprod_zeros", lambda m, x: m.cumprod(x * m.tensor(np.array([[1, 0, 1, 1]]), dtype=x.dtype), 1), M),
]  # fmt: skip
