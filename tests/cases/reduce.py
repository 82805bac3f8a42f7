"""Rows of reductions and scans."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.ops.reduce import scan
from tests.cases.both import both
from tests.cases.case import Arr, Case

A = Arr((2, 3, 4))
M = Arr((3, 4))
UNIQUE = Arr((3, 4), distinct=True)
POSITIVE = Arr((3, 4), 0.5, 2.0)
INTS = Arr((3, 4), -3, 4, "int64")
BOOLS = Arr((3, 4), dtype="bool")


def running(name: str, dim: int, *inputs: Arr, **options: bool) -> Case:
    """A row of ``scan.<name>(x, dim)``."""

    def theirs(x: Any) -> Any:
        import torch

        return getattr(torch, name)(x, dim)

    return Case(f"{name}_{dim}", lambda x: getattr(scan, name)(x, dim), inputs, torch=theirs, **options)


def _with_zeros(m: Any, x: Any) -> Any:
    return x * m.tensor([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1]], dtype=x.dtype)


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
    both("prod_zeros", lambda m, x: m.prod(_with_zeros(m, x), 1), M),
    both("prod_all_zeros", lambda m, x: m.prod(_with_zeros(m, x)), M),
    both("sum_of_a_number", lambda m, x: m.sum(x, 0, keepdim=True), Arr(())),
    both("sum_long_columns", lambda m, x: m.sum(x, 0), Arr((600, 2), 0.5, 1.5)),
    both("sum_no_dims", lambda m, x: m.sum(x, ()), A),
    both("var_correction", lambda m, x: m.var(x, dim=1, correction=2), A),
    both("var_unbiased", lambda m, x: (m.var(x, unbiased=False), m.std(x, 0, True)), A),
    both("max_ties", lambda m, x: m.max(m.cat([x, x])) + m.amin(m.stack([x, x]), (0, 1)).sum(), UNIQUE),
    both("median_ties", lambda m, x: m.median(m.cat([x, x])), Arr((5,), distinct=True)),
    both("median_even", lambda m, x: m.median(x, 0, keepdim=True), UNIQUE),
    both("logsumexp_mixed", lambda m, x: m.logsumexp(x * 50.0, (0, 1)), M),
    both("norm_half", lambda m, x: m.norm(x, 0.5, 1), POSITIVE),
    both("norm_minus_2", lambda m, x: m.norm(x, -2, (0, 1)), POSITIVE),
    both("nansum_nan", lambda m, x: m.nansum(m.where(x > 0, x, float("nan")), 1), Arr((3, 4), 0.5, 1.0)),
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
    both("norm_nuc", lambda m, x: m.norm(x, "nuc"), M),
    both("norm_nuc_dims", lambda m, x: m.norm(x, "nuc", (2, 0), keepdim=True), A),
    both("norm_nuc_square", lambda m, x: m.norm(x, p="nuc", dim=(-1, 0)), Arr((3, 3), distinct=True)),
    both("nansum", lambda m, x: m.nansum(x, 1), M),
    both("nanmean", lambda m, x: m.nanmean(x, 1), M),
    both("median", lambda m, x: m.median(x), UNIQUE),
    both("median_dim", lambda m, x: m.median(x, 1), UNIQUE),
    both("trace", lambda m, x: m.trace(x), M),
    both("cumsum", lambda m, x: m.cumsum(x, 1), M),
    both("cumsum_ints", lambda m, x: m.cumsum(x, 0), INTS, grad=False),
    both("cumprod", lambda m, x: m.cumprod(x, 1), M),
    both("cumprod_zeros", lambda m, x: m.cumprod(x * m.tensor(np.array([[1, 0, 1, 1]]), dtype=x.dtype), 1), M),
    both("cumprod_two_zeros", lambda m, x: m.cumprod(_with_zeros(m, x), 0), M),
    both("cumsum_of_a_number", lambda m, x: m.cumsum(x, 0) * m.cumprod(x, -1), Arr(())),
    running("logcumsumexp", 0, M),
    running("logcumsumexp", -1, A),
    running("cummax", 0, UNIQUE),
    running("cummax", -1, Arr((2, 3, 4), distinct=True)),
    running("cummin", 1, UNIQUE),
    running("cummin", -2, INTS, grad=False),
]  # fmt: skip
