"""Rows of pooling and unpooling; large enough rows reach the kernels' vector blocks."""

from __future__ import annotations

from typing import Any

from tests.cases.both import both
from tests.cases.case import Arr, Case


def _f(id: str, name: str, x: Arr, *args: Any, more: tuple = (), **kwargs: Any) -> Case:
    """The functional ``name`` of either namespace on x (and ``more`` inputs) and these arguments."""
    return both(id, lambda m, *tensors: getattr(m.nn.functional, name)(*tensors, *args, **kwargs), x, *more)


def _there_and_back(m: Any, x: Any) -> Any:
    y, index = m.nn.functional.max_pool2d(x, 2, return_indices=True)
    return m.nn.functional.max_unpool2d(y * y, index, 2, output_size=x.shape[-2:])


def _fractional(n: int, **kwargs: Any) -> Any:
    return lambda m, x, u: getattr(m.nn.functional, f"fractional_max_pool{n}d")(x, 2, _random_samples=u, **kwargs)


X = Arr((2, 3, 5, 6), distinct=True)
CUBE = Arr((1, 2, 3, 4, 3), distinct=True)
WIDE = Arr((1, 1, 4, 21), distinct=True)
POSITIVE = Arr((2, 3, 5, 6), 0.3, 2.0)
UNIT = {"low": 0.1, "high": 0.9}

ROWS = [
    _f("max_pool1d", "max_pool1d", Arr((2, 3, 9), distinct=True), 3, 2, 1),
    _f("max_pool2d", "max_pool2d", X, 2),
    _f("max_pool2d_options", "max_pool2d", X, (3, 2), (2, 1), 1, (1, 2), True),
    _f("max_pool2d_indices", "max_pool2d", X, 2, return_indices=True),
    *[
        both(
            f"max_pool2d_{dtype}",
            lambda m, x: m.nn.functional.max_pool2d(x, (3, 2), (2, 1), 1, (1, 2), True, True),
            Arr((2, 3, 6, 7), 0 if dtype == "uint8" else -9, 9, dtype),
            grad=False,
            dtypes=("float32",),
        )
        for dtype in ("uint8", "int8", "int16", "int32", "int64")
    ],
    both(
        "max_pool3d_int64",
        lambda m, x: m.nn.functional.max_pool3d(x, 2, padding=1),
        Arr((2, 4, 3, 5), -9, 9, "int64"),
        grad=False,
        dtypes=("float32",),
    ),
    _f("max_pool2d_wide", "max_pool2d", WIDE, 3, 1, 1),
    _f("max_pool3d", "max_pool3d", CUBE, 2, 1),
    _f("avg_pool1d", "avg_pool1d", Arr((2, 3, 9)), 3, 2, 1),
    _f("avg_pool2d", "avg_pool2d", X, 2),
    _f("avg_pool2d_ceil", "avg_pool2d", X, 3, 2, 1, True, False),
    _f("avg_pool2d_divisor", "avg_pool2d", X, (2, 3), 2, 1, divisor_override=5),
    _f("avg_pool2d_wide", "avg_pool2d", WIDE, 3, (2, 1), 1, count_include_pad=False),
    _f("avg_pool2d_whole", "avg_pool2d", X, (5, 6)),
    _f("avg_pool3d", "avg_pool3d", CUBE, 2, 1, 1, True),
    _f("adaptive_avg_pool1d", "adaptive_avg_pool1d", Arr((2, 3, 7)), 3),
    _f("adaptive_avg_pool2d", "adaptive_avg_pool2d", X, (2, 4)),
    _f("adaptive_avg_pool2d_regular", "adaptive_avg_pool2d", X, (None, 3)),
    _f("adaptive_avg_pool2d_whole", "adaptive_avg_pool2d", X, 1),
    _f("adaptive_avg_pool3d", "adaptive_avg_pool3d", Arr((2, 3, 3, 4)), (2, 2, 3)),
    _f("adaptive_max_pool1d", "adaptive_max_pool1d", Arr((3, 7), distinct=True), 4),
    _f("adaptive_max_pool2d", "adaptive_max_pool2d", X, (3, 4), return_indices=True),
    _f("adaptive_max_pool2d_regular", "adaptive_max_pool2d", X, (5, 2), return_indices=True),
    _f("adaptive_max_pool3d", "adaptive_max_pool3d", CUBE, (2, 3, 1)),
    _f("lp_pool1d", "lp_pool1d", Arr((2, 3, 9), 0.3, 2.0), 3, 4, 2),
    _f("lp_pool2d", "lp_pool2d", POSITIVE, 2, (2, 3), ceil_mode=True),
    _f("lp_pool3d", "lp_pool3d", Arr((2, 3, 4, 3), 0.3, 2.0), 1.5, 2, 1),
    both("fractional_max_pool2d", _fractional(2, output_size=(3, 4)), X, Arr((2, 3, 2), **UNIT)),
    both(
        "fractional_max_pool2d_ratio",
        _fractional(2, output_ratio=(0.6, 0.5), return_indices=True),
        X,
        Arr((2, 3, 2), **UNIT),
    ),
    both(
        "fractional_max_pool3d",
        _fractional(3, output_size=(2, 3, 2)),
        Arr((1, 2, 4, 5, 4), distinct=True),
        Arr((1, 2, 3), **UNIT),
    ),
    both("max_unpool2d", _there_and_back, X),
]
