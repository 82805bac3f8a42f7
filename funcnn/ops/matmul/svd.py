"""The singular value decomposition of matrices, and the norm that is the sum of the singular values."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.matmul.host import SVD, SVD_LOOKS
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dims
from funcnn.ops.elementwise.arithmetic import add, mul, sub, true_divide
from funcnn.ops.matmul.matmul import matmul
from funcnn.ops.movement.views import movedim, reshape, transpose
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import eye


def _shape(x: Any) -> tuple:
    *lead, m, n = x.shape
    k = min(m, n)
    return Aval((*lead, m, k), x.dtype), Aval((*lead, k), x.dtype), Aval((*lead, k, n), x.dtype)


def _no_values(meaning: str, words: tuple, ins: list) -> ValueError:
    return ValueError("svd: the matrix has numbers that are not finite; it has no singular values")


def _skew(a: Tensor) -> Tensor:
    return sub(a, transpose(a, -2, -1))


def _vjp(g: list, ins: list, outs: list) -> tuple:
    """Giles, An extended collection of matrix derivative results (2008), section 3.3; Townsend, Differentiating the SVD (2016).

    With F[i, j] = 1 / (s_j^2 - s_i^2) off the diagonal, dX = U (F o skew(U' dU) S + S (F o skew(V' dV)) + diag(ds)) V' and, where
    the matrix is not square, what of dU / S and of dV / S lies across U and V.
    """
    (u, s, vh), (du, ds, dvh) = outs, g
    row, column = _as_row(s), transpose(_as_row(s), -2, -1)
    inner = None if ds is None else mul(_eye(s), _as_row(ds))
    for factor, slope in ((u, du), (transpose(vh, -2, -1), None if dvh is None else transpose(dvh, -2, -1))):
        if slope is not None:
            eye = _eye(s)
            gaps = add(mul(sub(row, column), add(row, column)), eye)  # ones on the diagonal, where skew is 0
            turn = true_divide(_skew(matmul(transpose(factor, -2, -1), slope)), gaps)
            part = mul(turn, row) if factor is u else mul(turn, column)
            inner = part if inner is None else add(inner, part)
    if inner is None:
        return (None,)
    dx = matmul(matmul(u, inner), vh)
    if du is not None and u._v.shape[-2] > u._v.shape[-1]:
        dx = add(dx, matmul(true_divide(_across(u, du), row), vh))
    if dvh is not None and vh._v.shape[-1] > vh._v.shape[-2]:
        v, dv = transpose(vh, -2, -1), transpose(dvh, -2, -1)
        dx = add(dx, matmul(u, transpose(true_divide(_across(v, dv), row), -2, -1)))
    return (dx,)


def _across(factor: Tensor, slope: Tensor) -> Tensor:
    """What of the slope is orthogonal to the factor's columns."""
    return sub(slope, matmul(factor, matmul(transpose(factor, -2, -1), slope)))


def _as_row(s: Tensor) -> Tensor:
    return reshape(s, (*s._v.shape[:-1], 1, s._v.shape[-1]))


def _eye(s: Tensor) -> Tensor:
    return eye(s._v.shape[-1], dtype=s._v.dtype, device=s.device)


svd_p = Primitive(
    "svd",
    shape=_shape,
    cpu=SVD,
    vjp=_vjp,
    batch=lambda n, ins, batched: svd_p(ins[0]),
    keeps="o",
    multiple=True,
    looks=SVD_LOOKS,
    refuse=_no_values,
    flops=costs.decomposition,
)


def nuclear_norm(x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """The sum of the singular values of the matrices that lie along two dimensions; its gradient is ``U V'``."""
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) != 2:
        raise ShapeError(
            f"norm: p='nuc' takes matrices, so dim must be two dimensions, got {dims} for {tuple(x.shape)}"
        )
    normalize_dims("norm", dims, x.ndim)  # raises for one that is not there, or twice
    dims = tuple(d % x.ndim for d in dims)
    out = sum_(svd_p(movedim(x, list(dims), [-2, -1]))[1], -1)
    return reshape(out, tuple(1 if i in dims else n for i, n in enumerate(x._v.shape))) if keepdim else out
