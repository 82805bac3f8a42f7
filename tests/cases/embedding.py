"""Rows of embedding."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

WEIGHT = Arr((5, 3))
INDEX = Arr((2, 4), 0, 5, "int64")


def _embedding(m, w, i, **options):
    return m.nn.functional.embedding(i, w, **options)


ROWS = [
    both("embedding", _embedding, WEIGHT, INDEX),
    both("embedding_int32", _embedding, WEIGHT, Arr((6,), 0, 5, "int32")),
    both("embedding_one", _embedding, Arr((2, 1)), Arr((), 0, 2, "int64")),
    both("embedding_none", _embedding, WEIGHT, Arr((0, 2), 0, 5, "int64")),
    both("embedding_wide", _embedding, Arr((2, 70)), Arr((3,), 0, 2, "int64"), rtol={"float64": 1e-11}),
    both("embedding_pow", lambda m, w, i: _embedding(m, w, i) ** 3, WEIGHT, INDEX),
]  # fmt: skip
