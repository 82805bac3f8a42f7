"""Rows of matrix products."""

from __future__ import annotations

import numpy as np

from funcnn.ops.matmul.matmul import linear_relu_p
from tests.cases.both import both
from tests.cases.case import Arr, Case

M, N, V, W = Arr((3, 4)), Arr((4, 2)), Arr((4,)), Arr((3,))
A, B, C = Arr((2, 3, 4)), Arr((5, 3, 4)), Arr((5, 4, 2))

ROWS = [
    both("matmul", lambda m, x, y: m.matmul(x, y), M, N),
    both("matmul_vectors", lambda m, x, y: x @ y, V, V),
    both("matmul_vector_matrix", lambda m, x, y: x @ y, V, N),
    both("matmul_matrix_vector", lambda m, x, y: x @ y, M, V),
    both("matmul_batch_matrix", lambda m, x, y: x @ y, B, N),
    both("matmul_matrix_batch", lambda m, x, y: x @ y, M, C),
    both("matmul_broadcast", lambda m, x, y: x @ y, Arr((2, 1, 3, 4)), C),
    both("matmul_batch_vector", lambda m, x, y: x @ y, B, V),
    both("matmul_transposed", lambda m, x, y: x.T @ y.T, N, Arr((3, 4))),
    both("mm", lambda m, x, y: m.mm(x, y), M, N),
    both("bmm", lambda m, x, y: m.bmm(x, y), B, C),
    both("mv", lambda m, x, y: m.mv(x, y), M, V),
    both("dot", lambda m, x, y: m.dot(x, y), V, V),
    both("outer", lambda m, x, y: m.outer(x, y), V, W),
    both("inner", lambda m, x, y: m.inner(x, y), M, Arr((2, 4))),
    both("addmm", lambda m, a, x, y: m.addmm(a, x, y, beta=0.5, alpha=2.0), Arr((3, 2)), M, N),
    both("baddbmm", lambda m, a, x, y: m.baddbmm(a, x, y), Arr((5, 3, 2)), B, C),
    both("tensordot", lambda m, x, y: m.tensordot(x, y, 2), Arr((2, 3, 4)), Arr((3, 4, 5))),
    both("tensordot_dims", lambda m, x, y: m.tensordot(x, y, ([1], [0])), Arr((2, 3, 4)), Arr((3, 5))),
    both("linear", lambda m, x, w, b: m.nn.functional.linear(x, w, b), Arr((2, 3, 4)), Arr((5, 4)), Arr((5,))),
    both("linear_no_bias", lambda m, x, w: m.nn.functional.linear(x, w), Arr((3, 4)), Arr((5, 4))),
    both("linear_vector", lambda m, x, w, b: m.nn.functional.linear(x, w, b), V, Arr((5, 4)), Arr((5,))),
    both("einsum_product", lambda m, x, y: m.einsum("ij,jk->ik", x, y), M, N),
    both("einsum_batch", lambda m, x, y: m.einsum("bij,bjk->bki", x, y), B, C),
    both("einsum_implicit", lambda m, x, y: m.einsum("ij,jk", x, y), M, N),
    both("einsum_trace", lambda m, x: m.einsum("ii", x), Arr((3, 3))),
    both("einsum_diagonal", lambda m, x: m.einsum("bii->bi", x), Arr((2, 3, 3))),
    both("einsum_ellipsis", lambda m, x, y: m.einsum("...ij,...jk->...ik", x, y), Arr((2, 1, 3, 4)), C),
    both("einsum_three", lambda m, x, y, z: m.einsum("i,ij,j->", x, y, z), W, M, V),
    both("einsum_outer", lambda m, x, y: m.einsum("i,j->ji", x, y), W, V),
    both("einsum_sum", lambda m, x: m.einsum("ijk->j", x), Arr((2, 3, 4))),
    both("matmul_folded_axes", lambda m, x, y: x @ y, Arr((2, 1, 3, 4)), N),
    both("matmul_vector_batch", lambda m, x, y: x @ y, V, C),
    both("matmul_one_row", lambda m, x, y: x @ y, Arr((5, 1, 4)), Arr((4, 1))),
    both("matmul_square", lambda m, x: x @ x, Arr((3, 3))),
    both("matmul_ints", lambda m, x, y: x @ y, Arr((3, 4), -5, 5, "int64"), Arr((4, 2), -5, 5, "int64"), grad=False),
    both("addmm_vector", lambda m, a, x, y: m.addmm(a, x, y), Arr((2,)), M, N),
    both("addmm_beta_0", lambda m, a, x, y: m.addmm(a, x, y, beta=0, alpha=3.0) + a, Arr((3, 2)), M, N),
    both("inner_of_more", lambda m, x, y: m.inner(x, y), A, Arr((5, 4))),
    both("inner_with_a_number", lambda m, x, y: m.inner(x, y), Arr(()), M),
    both("tensordot_outer", lambda m, x, y: m.tensordot(x, y, 0), W, V),
    both("tensordot_all", lambda m, x, y: m.tensordot(x, y, ([0, 1], [1, 0])), M, Arr((4, 3))),
    Case("linear_relu", lambda x, w, b: linear_relu_p(x, w, b), (Arr((2, 3, 4)), Arr((5, 4)), Arr((5,))),
         lambda x, w, b: np.maximum(x @ w.T + b, 0)),
    both("linear_row", lambda m, x, w: m.nn.functional.linear(x, w), M, V),
    both("einsum_chain", lambda m, x, y, z: m.einsum("ij,jk,kl->li", x, y, z), M, N, Arr((2, 5))),
    both("einsum_bilinear", lambda m, x, w, y: m.einsum("bn,anm,bm->ba", x, w, y), M, Arr((2, 4, 2)), Arr((3, 2))),
    both("einsum_attention", lambda m, q, k: m.einsum("bhqd,bhkd->bhqk", q, k), Arr((2, 2, 3, 4)), Arr((2, 2, 5, 4))),
    both("einsum_repeated", lambda m, x, y: m.einsum("iij,jk->ki", x, y), Arr((3, 3, 4)), N),
    both("einsum_size_1", lambda m, x, y: m.einsum("ij,j->i", x, y), M, Arr((1,))),
    both("einsum_ellipsis_sum", lambda m, x, y: m.einsum("...i,i->...", x, y), A, V),
    both("einsum_ellipsis_first", lambda m, x: m.einsum("i...->...i", x), A),
    both("einsum_numbers", lambda m, x, y: m.einsum(",i->i", x, y), Arr(()), V),
    both("einsum_hadamard", lambda m, x, y: m.einsum("ij,ij->ij", x, y), M, M),
]  # fmt: skip
