"""The transforms of Winograd's convolution: ``Q X Q^T`` for a small fixed Q, on whole vectors of channels at once.

F(m x m, 3 x 3) computes an m x m patch of outputs from (m + 2)^2 products instead of 9 m^2 (Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", arXiv:1509.09308): ``Y = A^T [(G w G^T) * (B^T x B)] A``. The matrices follow from the points
in which polynomials are evaluated: 0, pairs of +-p, and infinity. The rows and columns of a pair share their sums.

The points decide how much is lost. With 0, +-1, +-2 the sums are the plainest and the worst, for powers up to 8 in A weigh
products against others: an output's error is up to 31 times a plain sum's, by the norms of the matrices' rows. With
0, +-3/4, +-3/2 it is 8.8, with 0, +-11/16, +-23/16 the least of all sixteenths, 7.2, for one multiplication more in a row; all
these numbers but those of G are exact in float32 (on the choice: Barabasz, Anderson, Soodhalter and Gregg, "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", arXiv:1803.10986).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.writer import Writer

# For m outputs a row: +- each, beside 0 and infinity.
POINTS: dict[int, tuple[float, ...]] = {2: (1.0,), 4: (11 / 16, 23 / 16)}


def _without(roots: list) -> list:
    """Returns the coefficients, lowest first, of the product of (x - root)."""
    product: list = [1]
    for root in roots:
        product = [a - root * b for a, b in zip([0, *product], [*product, 0], strict=True)]
    return product


def matrices(m: int) -> tuple[list, list, list]:
    """B^T, G and A^T of F(m, 3), Toom and Cook's: values at the points, and what interpolates the product from them.

    Sums and products of sixteenths are exact in float64, so that nothing but the quotients in G is rounded, once.
    """
    points = [0, *(sign * p for p in POINTS[m] for sign in (1, -1))]
    others = [[q for q in points if q != p] for p in points]
    weights = [[p**j / prod(p - q for q in rest) for j in range(3)] for p, rest in zip(points, others, strict=True)]
    inputs = [[*_without(rest), 0] for rest in others]
    outputs = [[*(p**i for p in points), int(i == m - 1)] for i in range(m)]
    return [*inputs, _without(points)], [*weights, [0, 0, 1]], outputs


BT, G, AT = ({m: matrices(m)[i] for m in POINTS} for i in range(3))


def _transposed(matrix: list) -> list:
    return [list(column) for column in zip(*matrix, strict=True)]


def _sandwich(matrix: list) -> Any:
    """Returns an intrinsic for one Q (out x in)."""
    out, into = len(matrix), len(matrix[0])

    def twin(source: Any, row: int, column: int, target: Any, step: int) -> None:
        lanes = vector_bytes() // source.dtype.itemsize
        x = np.array([[source[i * row + j * column :][:lanes] for j in range(into)] for i in range(into)])
        q = np.array([[float(a) for a in line] for line in matrix], source.dtype)
        y = np.einsum("ai,ijl,bj->abl", q, x, q).reshape(out * out, -1)
        for i, values in enumerate(y):
            target[i * step : i * step + values.size] = values

    @intrinsic(twin=twin)
    def transform(typingctx: Any, source: Any, row: Any, column: Any, target: Any, step: Any) -> Any:
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            Sandwich.of(context, builder, source).between(matrix, *values)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp), codegen

    return transform


class Sandwich(Writer):
    """Writes it: load all elements, transform the columns, transform the rows, store."""

    def between(self, matrix: list, source: Any, row: Any, column: Any, target: Any, step: Any) -> None:
        builder, word = self.builder, self.word
        into, out = len(matrix[0]), len(matrix)
        x = []
        for i in range(into):
            start = builder.gep(source, [builder.mul(row, word(i))])
            x.append([self.load(builder.gep(start, [builder.mul(column, word(j))])) for j in range(into)])
        half = [self.combined(matrix, list(line)) for line in x]  # x Q^T, by rows of x
        for j in range(out):
            for i, value in enumerate(self.combined(matrix, [line[j] for line in half])):
                self.store(value, builder.gep(target, [builder.mul(step, word(i * out + j))]))

    def combined(self, matrix: list, xs: list) -> list:
        """``matrix @ xs``. Columns that agree up to sign are added and subtracted once, and rows likewise."""
        for j in range(1, len(xs) - 1, 2):
            pair = [(line[j], line[j + 1]) for line in matrix]
            if all(abs(a) == abs(b) for a, b in pair) and len(xs) > 3:
                plus, minus = self.builder.fadd(xs[j], xs[j + 1]), self.builder.fsub(xs[j], xs[j + 1])
                xs = [*xs[:j], plus, minus, *xs[j + 2 :]]
                split = [[a if a == b else 0, a if a != b else 0] for a, b in pair]
                matrix = [[*line[:j], *new, *line[j + 2 :]] for line, new in zip(matrix, split, strict=True)]
        results: list[Any] = []
        while len(results) < len(matrix):
            line, following = matrix[len(results)], matrix[min(len(results) + 1, len(matrix) - 1)]
            even = [a if a == b else 0 for a, b in zip(line, following, strict=True)]
            odd = [a if a == -b else 0 for a, b in zip(line, following, strict=True)]
            mirrored = all(e or o or not a for e, o, a in zip(even, odd, line, strict=True))
            if line != following and mirrored and any(even) and any(odd):
                e, o = self.weighted(even, xs), self.weighted(odd, xs)
                results += [self.builder.fadd(e, o), self.builder.fsub(e, o)]
            else:
                results.append(self.weighted(line, xs))
        return results

    def weighted(self, weights: list, xs: list) -> Any:
        """Returns the sum of weights times vectors, from the plainest weight on."""
        builder = self.builder
        terms = sorted(((w, x) for w, x in zip(weights, xs, strict=True) if w), key=lambda term: term[0] != 1)
        weight, total = terms[0]
        if weight != 1:
            total = builder.fmul(total, self.same(float(weight)))
        for w, x in terms[1:]:
            if w == 1:
                total = builder.fadd(total, x)
            elif w == -1:
                total = builder.fsub(total, x)
            else:
                total = builder.call(self.fma, [x, self.same(float(w)), total])
        return total


to_products_4, to_products_2 = _sandwich(BT[4]), _sandwich(BT[2])
from_products_4, from_products_2 = _sandwich(AT[4]), _sandwich(AT[2])
from_outputs_4, from_outputs_2 = _sandwich(_transposed(AT[4])), _sandwich(_transposed(AT[2]))
to_weights_4, to_weights_2 = _sandwich(G[4]), _sandwich(G[2])
from_weights_4, from_weights_2 = _sandwich(_transposed(G[4])), _sandwich(_transposed(G[2]))
