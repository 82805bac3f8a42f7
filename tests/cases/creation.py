"""Rows of creation functions: constants, alone and beside a tensor whose shape and dtype they take."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

M = Arr((3, 4))

ROWS = [
    both("zeros_ones", lambda m: (m.zeros(2, 3), m.ones((2, 3), dtype=m.float64)), grad=False),
    both("full", lambda m: (m.full((2, 3), 5), m.full((2,), 0.5), m.full((), True)), grad=False),
    both("arange", lambda m: (m.arange(5), m.arange(1, 2, 0.25), m.arange(5, 0, -2)), grad=False),
    both("linspace", lambda m: (m.linspace(-2, 3, 7, dtype=m.float64), m.linspace(0, 1, 1)), grad=False),
    both("logspace", lambda m: (m.logspace(0, 2, 5), m.logspace(0, 3, 4, base=2)), grad=False),
    both("eye_alone", lambda m: (m.eye(3), m.eye(2, 4, dtype=m.int64)), grad=False),
    both("tensor", lambda m: (m.tensor([[1.5, 2.5]]), m.tensor(3), m.tensor([True, False])), grad=False),
    both("like", lambda m, x: x * m.full_like(x, 2.0) + m.ones_like(x) - m.zeros_like(x), M),
    both("like_other_dtype", lambda m, x: x * m.ones_like(x, dtype=m.int64), M),
    both("full_like_inside", lambda m, x: m.full_like(x, 3) @ x.T, M),
    both("arange_beside", lambda m, x: x * m.arange(4), M),
    both("eye_beside", lambda m, x: x @ m.eye(4, dtype=x.dtype), M),
    both("full_of_others", lambda m, x: (x + m.full((3, 1), -2), m.full((0, 2), 1.5), m.full((2,), False)), M),
    both("iota", lambda m, x: (x * m.arange(0.5, 2.5, 0.5), m.arange(3, -5, -3), m.arange(0), m.arange(2, dtype=m.uint8)), M),
    both("eye", lambda m, x: (x @ m.eye(4, 2, dtype=x.dtype), m.eye(0), m.eye(3, 1, dtype=m.bool)), M),
]  # fmt: skip
