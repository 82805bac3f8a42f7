"""Rows of indexing, gathering, scattering and sorting."""

from __future__ import annotations

import numpy as np

from tests.cases.both import both
from tests.cases.case import Arr

A = Arr((3, 4, 5))
M = Arr((3, 4))
ROWS_OF_3 = Arr((2, 3), 0, 3, "int64")
UNIQUE = Arr((3, 4), distinct=True)
MASK = np.array([[True, False, True, False], [False, False, True, True], [True, True, False, False]])

ROWS = [
    both("getitem_int", lambda m, x: x[1], A),
    both("getitem_mixed", lambda m, x: x[..., None, -1, 1:3], A),
    both("getitem_list", lambda m, x: x[[0, 2, 2]], A),
    both("getitem_tensor", lambda m, x, i: x[i], A, ROWS_OF_3),
    both("getitem_middle", lambda m, x, i: x[:, i], A, ROWS_OF_3),
    both("getitem_two", lambda m, x, i, j: x[i, j], A, ROWS_OF_3, Arr((3,), 0, 4, "int64")),
    both("getitem_apart", lambda m, x, i, j: x[i, :, j], A, Arr((2,), -3, 3, "int64"), Arr((2,), 0, 5, "int64")),
    both("getitem_int_and_list", lambda m, x: x[0, :, [1, 2]], A),
    both("getitem_mask", lambda m, x: x[m.tensor(MASK)], M, vmap=False, jit=False),
    both("index_put", lambda m, x, v, i: m.index_put(x, (i,), v), A, Arr((4, 5)), np.array(1), vmap=False),
    both("index_put_accumulate", lambda m, x, v, i: m.index_put(x, (i,), v, True), A, Arr((2, 3, 4, 5)), ROWS_OF_3),
    both("index_put_two", lambda m, x, v, i, j: m.index_put(x, (i, j), v, True), A, Arr((2, 3, 5)), ROWS_OF_3,
         Arr((3,), 0, 4, "int64")),
    both("index_put_one_value", lambda m, x, v, i: m.index_put(x, (i,), v, True), A, Arr(()), ROWS_OF_3),
    both("getitem_three", lambda m, x, i, j, k: x[i[:, None], j, k], A, Arr((2,), 0, 3, "int64"), Arr((3,), -4, 4, "int64"),
         Arr((2, 3), 0, 5, "int64")),
    both("getitem_large", lambda m, x, i: x[i], Arr((900, 20)), Arr((3,), -900, 900, "int64")),
    both("gather", lambda m, x, i: m.gather(x, 0, i), M, Arr((2, 3), 0, 3, "int64")),
    both("gather_wide", lambda m, x, i: m.gather(x, 1, i), Arr((2, 3, 20)), Arr((2, 5, 20), 0, 3, "int64")),
    both("gather_part", lambda m, x, i: m.gather(x, 1, i), A, Arr((2, 6, 3), 0, 4, "int64")),
    both("gather_one", lambda m, x, i: m.gather(x, 1, i), Arr((9, 4)), Arr((9, 1), 0, 4, "int64")),
    both("gather_repeated", lambda m, x, i: m.gather(x, 0, i[:, None].expand(6, 20)), Arr((3, 20)),
         Arr((6,), 0, 3, "int64")),
    both("gather_large", lambda m, x, i: m.gather(x, 0, i), Arr((130, 130)), Arr((3, 130), 0, 130, "int64"), second=True),
    both("gather_last", lambda m, x, i: m.gather(x, -1, i), M, Arr((3, 6), 0, 4, "int64")),
    both("take_along_dim", lambda m, x, i: m.take_along_dim(x, i, 1), M, Arr((1, 2), 0, 4, "int64")),
    both("take", lambda m, x, i: m.take(x, i), M, Arr((2, 3), 0, 12, "int64")),
    both("index_select", lambda m, x, i: m.index_select(x, 1, i), A, Arr((6,), 0, 4, "int64")),
    both("masked_fill", lambda m, x, k: m.masked_fill(x, k, 3.0), M, Arr((3, 4), dtype="bool")),
    both("masked_select", lambda m, x: m.masked_select(x, m.tensor(MASK)), M, vmap=False, jit=False),
    both("masked_scatter", lambda m, x, s: m.masked_scatter(x, m.tensor(MASK), s), M, Arr((8,))),
    both("scatter", lambda m, x, s: m.scatter(x, 1, m.tensor([[0, 3], [1, 2]]), s), M, Arr((2, 2)), vmap=False),
    both("scatter_value", lambda m, x, i: m.scatter(x, 0, i, 2.5), M, Arr((2, 3), 0, 3, "int64")),
    both("scatter_add_rows", lambda m, x, i, s: m.scatter_add(x, 0, i[:, None].expand(6, 20), s), Arr((3, 20)),
         Arr((6,), 0, 3, "int64"), Arr((6, 20))),
    both("scatter_add_part", lambda m, x, i, s: m.scatter_add(x, 1, i, s), A, Arr((2, 6, 3), 0, 4, "int64"), Arr((2, 6, 3))),
    both("scatter_add_one", lambda m, x, i, s: m.scatter_add(x, 1, i, s), Arr((9, 4)), Arr((9, 1), 0, 4, "int64"), Arr((9, 1))),
    both("scatter_add", lambda m, x, i, s: m.scatter_add(x, 1, i, s), M, Arr((2, 5), 0, 4, "int64"), Arr((2, 5))),
    both("scatter_multiply", lambda m, x: x.scatter(1, m.tensor([[0, 1], [2, 3]]), m.tensor([[2.0, 3.0], [4.0, 5.0]],
         dtype=x.dtype), reduce="multiply"), M, grad=False, vmap=False),
    both("index_add", lambda m, x, i, s: m.index_add(x, 0, i, s, alpha=2), M, Arr((2,), 0, 3, "int64"), Arr((2, 4))),
    both("index_copy", lambda m, x, s: m.index_copy(x, 1, m.tensor([3, 0]), s), M, Arr((3, 2)), vmap=False),
    both("index_fill", lambda m, x: m.index_fill(x, 1, m.tensor([3, 0]), 7.0), M, vmap=False),
    both("nonzero", lambda m, x: m.nonzero(x), Arr((3, 4), dtype="bool"), vmap=False, jit=False, grad=False),
    both("one_hot", lambda m, i: m.nn.functional.one_hot(i, 5), Arr((2, 3), 0, 5, "int64"), grad=False),
    both("sort", lambda m, x: m.sort(x, 1), UNIQUE),
    both("sort_descending", lambda m, x: m.sort(x, 0, descending=True), UNIQUE),
    both("argsort", lambda m, x: m.argsort(x, -1), UNIQUE, grad=False),
    both("topk", lambda m, x: m.topk(x, 2, 0), UNIQUE),
    both("topk_smallest", lambda m, x: m.topk(x, 3, largest=False), UNIQUE),
    both("kthvalue", lambda m, x: m.kthvalue(x, 2, 1), UNIQUE),
    both("kthvalue_keepdim", lambda m, x: m.kthvalue(x, 3, 0, True), UNIQUE),
]  # fmt: skip
