"""Activations made of elementwise operations, and dropout."""

from __future__ import annotations

import math
from typing import Any

from funcnn.core import dtypes
from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.common import cast, normalize_dim, to_tensor
from funcnn.ops.elementwise import abs as abs_
from funcnn.ops.elementwise import add, ge, gt, le, mul, neg, sub, true_divide, where
from funcnn.ops.generator import next_key
from funcnn.ops.math import erf, expm1, logaddexp, sigmoid, tanh
from funcnn.ops.movement import reshape
from funcnn.ops.random import uniform_from

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., arXiv:1706.02515, equation 14
SATURATED = 50.0  # log(1 + exp(x)) - x is below 2e-22 from here on, far under float64's rounding of x


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` (arXiv:1606.08415): by erf, or by the paper's tanh formula with ``approximate="tanh"``."""
    x = to_tensor(input)
    if approximate == "none":
        return mul(mul(x, 0.5), add(erf(mul(x, math.sqrt(0.5))), 1.0))
    if approximate != "tanh":
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    inner = mul(add(x, mul(mul(x, mul(x, x)), 0.044715)), math.sqrt(2.0 / math.pi))
    return mul(mul(x, 0.5), add(tanh(inner), 1.0))


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Tensor:
    """``x`` above 0, ``negative_slope * x`` below."""
    x = to_tensor(input)
    return where(gt(x, 0.0), x, mul(x, negative_slope))


def prelu(input: Any, weight: Any) -> Tensor:
    """``x`` above 0, ``weight * x`` below; one weight, or one for each channel (dimension 1)."""
    x, w = to_tensor(input), to_tensor(weight)
    if w._v.size != 1:
        if x.ndim < 2 or x._v.shape[1] != w._v.size:
            raise ShapeError(
                f"prelu: {w._v.size} weights for an input of shape {tuple(x.shape)}; expected one per channel"
            )
        w = reshape(w, (w._v.size, *(1,) * (x.ndim - 2)))
    return where(gt(x, 0.0), x, mul(x, w))


def _below_zero(x: Tensor) -> Tensor:
    """``min(x, 0)`` whose derivative at 0 is that of the branch below, which elu and celu take there."""
    return where(gt(x, 0.0), 0.0, x)


def elu(input: Any, alpha: float = 1.0) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below (arXiv:1511.07289)."""
    x = to_tensor(input)
    return where(gt(x, 0.0), x, mul(expm1(_below_zero(x)), alpha))


def selu(input: Any) -> Tensor:
    """The self-normalising scaled ELU (arXiv:1706.02515)."""
    return mul(elu(input, SELU_ALPHA), SELU_SCALE)


def celu(input: Any, alpha: float = 1.0) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below (arXiv:1704.07483)."""
    x = to_tensor(input)
    return where(gt(x, 0.0), x, mul(expm1(true_divide(_below_zero(x), alpha)), alpha))


def silu(input: Any) -> Tensor:
    """``x * sigmoid(x)``."""
    x = to_tensor(input)
    return mul(x, sigmoid(x))


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, the identity where ``beta * x > threshold``."""
    x = to_tensor(input)
    scaled = mul(x, beta)
    low = where(gt(scaled, threshold), 0.0, scaled)
    return where(gt(scaled, threshold), x, true_divide(logaddexp(low, 0.0), beta))


def logsigmoid(input: Any) -> Tensor:
    """``log(sigmoid(x))``, without underflow."""
    return neg(softplus(neg(input), threshold=SATURATED))


def mish(input: Any) -> Tensor:
    """``x * tanh(softplus(x))`` (arXiv:1908.08681)."""
    x = to_tensor(input)
    return mul(x, tanh(softplus(x)))


def softsign(input: Any) -> Tensor:
    """``x / (1 + |x|)``."""
    x = to_tensor(input)
    return true_divide(x, add(abs_(x), 1.0))


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """``x`` limited to [min_val, max_val]; unlike ``clamp``, flat at the bounds themselves."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: expected min_val <= max_val, got {min_val} and {max_val}")
    x = to_tensor(input)
    return where(le(x, min_val), min_val, where(ge(x, max_val), max_val, x))


def relu6(input: Any) -> Tensor:
    """``min(max(0, x), 6)``."""
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Any) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return true_divide(relu6(add(input, 3.0)), 6.0)


def hardswish(input: Any) -> Tensor:
    """``x * relu6(x + 3) / 6`` (arXiv:1905.02244)."""
    return mul(input, hardsigmoid(input))


def hardshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """0 within ``lambd`` of 0, else ``x``."""
    return where(le(abs_(input), lambd), 0.0, input)


def softshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """``x`` moved by ``lambd`` towards 0, and 0 within it."""
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")
    x = to_tensor(input)
    return where(gt(x, lambd), sub(x, lambd), where(gt(neg(x), lambd), add(x, lambd), mul(x, 0.0)))


def tanhshrink(input: Any) -> Tensor:
    """``x - tanh(x)``."""
    return sub(input, tanh(input))


def threshold(input: Any, threshold: float, value: float) -> Tensor:
    """``x`` above ``threshold``, else ``value``."""
    return where(le(input, threshold), value, input)


def glu(input: Any, dim: int = -1) -> Tensor:
    """The first half along ``dim`` times the sigmoid of the second (arXiv:1612.08083)."""
    from funcnn.ops.join import chunk

    x = to_tensor(input)
    dim = normalize_dim("glu", dim, x.ndim)
    if x.ndim == 0 or x._v.shape[dim] % 2:
        raise ShapeError(f"glu: expected an even size in dimension {dim}, got an input of shape {tuple(x.shape)}")
    a, b = chunk(x, 2, dim)
    return mul(a, sigmoid(b))


def dropout(input: Any, p: float = 0.5, training: bool = True, key: Tensor | None = None) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``; the input outside training.

    key: what decides; by default the next key of the global generator.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    x = to_tensor(input)
    if not training or p == 0.0:
        return x
    if p == 1.0:
        return mul(x, 0.0)
    u = uniform_from(next_key() if key is None else key, tuple(x._v.shape), dtypes.float32)
    return mul(x, cast(mul(cast(gt(u, p), dtypes.float32), 1.0 / (1.0 - p)), x._v.dtype))
