"""Activations, the costly ones with a loop of their own forward and backward, and dropout."""

from __future__ import annotations

import math
from typing import Any

from funcnn.core import dtypes
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import activation as kernels
from funcnn.kernels.cpu.elementwise import host
from funcnn.kernels.cpu.random.host import RANDOM_DROPOUT
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.costs import ERF_FLOPS, EXP_FLOPS, LOG_FLOPS, TANH_FLOPS
from funcnn.ops.base.declare import binary
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.structure import number_like
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import add, mul, neg, sub, true_divide
from funcnn.ops.elementwise.comparison import ge, gt, le, lt
from funcnn.ops.elementwise.curves import activation
from funcnn.ops.elementwise.math import exp, sigmoid, tanh
from funcnn.ops.elementwise.math import relu as _relu
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import reshape, slice_dim
from funcnn.ops.random.generator import next_key
from funcnn.ops.tensor.inplace import replaced

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., arXiv:1706.02515, equation 14
SATURATED = 50.0  # log(1 + exp(x)) - x is below 2e-22 from here on, far under float64's rounding of x
ROOT_2_OVER_PI, CUBIC = math.sqrt(2.0 / math.pi), 0.044715  # of GELU's tanh form


# ---- second derivatives, and the primitives that have them ------------------------------------------------------------
def _gelu_curve(x: Tensor) -> Tensor:
    density = mul(exp(mul(mul(x, x), -0.5)), math.sqrt(0.5 / math.pi))
    return mul(density, sub(2.0, mul(x, x)))


def _gelu_tanh_curve(x: Tensor) -> Tensor:
    """s (1 - s) (2 v' + x v'' + x v'^2 (1 - 2 s)) with s = sigmoid(v), v = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    square = mul(x, x)
    s = sigmoid(mul(mul(x, add(mul(square, CUBIC), 1.0)), 2.0 * ROOT_2_OVER_PI))
    slope = mul(add(mul(square, 3.0 * CUBIC), 1.0), 2.0 * ROOT_2_OVER_PI)
    bend = mul(square, 12.0 * CUBIC * ROOT_2_OVER_PI)
    turn = mul(mul(x, mul(slope, slope)), sub(1.0, mul(s, 2.0)))
    return mul(mul(s, sub(1.0, s)), add(add(mul(slope, 2.0), bend), turn))


def _silu_curve(x: Tensor) -> Tensor:
    s = sigmoid(x)
    return mul(mul(s, sub(1.0, s)), add(mul(x, sub(1.0, mul(s, 2.0))), 2.0))


def _mish_curve(x: Tensor) -> Tensor:
    t, s = tanh(softplus(x)), sigmoid(x)
    slope = mul(sub(1.0, mul(t, t)), s)
    bend = sub(mul(slope, sub(1.0, s)), mul(mul(mul(t, slope), s), 2.0))
    return add(mul(slope, 2.0), mul(x, bend))


def _elu_curve(x: Tensor, above: float, below: float, inner: float) -> Tensor:
    low = where(gt(x, 0.0), 0.0, x)
    return where(gt(x, 0.0), 0.0, mul(exp(mul(low, inner)), below * inner * inner))


def _softplus_curve(x: Tensor, beta: float, threshold: float) -> Tensor:
    z = mul(x, beta)
    s = sigmoid(z)
    return where(gt(z, threshold), 0.0, mul(mul(s, sub(1.0, s)), beta))


def _hardswish_curve(x: Tensor) -> Tensor:
    return where(lt(abs_(x), 3.0), number_like(x, 1.0 / 3.0), 0.0)


gelu_p = activation("gelu", kernels.gelu, kernels.gelu_grad, 0.8, _gelu_curve, ERF_FLOPS + 4)
gelu_tanh_p = activation("gelu_tanh", kernels.gelu_tanh, kernels.gelu_tanh_grad, 0.5, _gelu_tanh_curve, TANH_FLOPS + 8)
silu_p = activation("silu", kernels.silu, kernels.silu_grad, 0.4, _silu_curve, EXP_FLOPS + 3)
mish_p = activation("mish", kernels.mish, kernels.mish_grad, 0.4, _mish_curve, 3 * EXP_FLOPS)
elu_p = activation("elu", kernels.elu, kernels.elu_grad, 0.4, _elu_curve, EXP_FLOPS + 2)
softplus_p = activation(
    "softplus", kernels.softplus, kernels.softplus_grad, 1.0, _softplus_curve, EXP_FLOPS + LOG_FLOPS
)
leaky_relu_p = activation("leaky_relu", kernels.leaky_relu, kernels.leaky_relu_grad, 0.2, None)
hardswish_p = activation("hardswish", kernels.hardswish, kernels.hardswish_grad, 0.2, _hardswish_curve, 4)


_prelu = binary(
    "prelu",
    kernels.prelu,
    lambda g, x, w, o: where(gt(x, 0.0), g, mul(g, w)),
    lambda g, x, w, o: mul(g, where(gt(x, 0.0), 0.0, x)),  # of infinity above 0 no NaN
    "``x`` above 0, ``w * x`` below.",
    kinds="f",
    numpy=host.prelu,
    ns=0.08,
    least=1 << 10,
    method=False,
)


# ---- activations: with ``inplace`` the input takes over the result -----------------------------------------------------
def relu(input: Any, inplace: bool = False) -> Tensor:
    """``max(0, x)``."""
    return replaced(input, _relu(input), "relu_") if inplace else _relu(input)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` (arXiv:1606.08415): by erf, or by the paper's tanh formula with ``approximate="tanh"``."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return (gelu_p if approximate == "none" else gelu_tanh_p)(to_tensor(input))


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` above 0, ``negative_slope * x`` below."""
    out = leaky_relu_p(to_tensor(input), slope=float(negative_slope))
    return replaced(input, out, "leaky_relu_") if inplace else out


def prelu(input: Any, weight: Any) -> Tensor:
    """``x`` above 0, ``weight * x`` below; one weight, or one for each channel (dimension 1)."""
    x, w = to_tensor(input), to_tensor(weight)
    if w.ndim > 1:
        raise ShapeError(f"prelu: expected a weight of shape () or (n,), got {tuple(w.shape)}; flatten it")
    if w._v.size != 1:
        if x.ndim < 2 or x._v.shape[1] != w._v.size:
            raise ShapeError(
                f"prelu: {w._v.size} weights for an input of shape {tuple(x.shape)}; expected one per channel"
            )
        w = reshape(w, (w._v.size, *(1,) * (x.ndim - 2)))
    elif w.ndim:
        w = reshape(w, ())  # a lone number, which the loop over all of x takes
    return _prelu(x, w)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below (arXiv:1511.07289)."""
    out = elu_p(to_tensor(input), above=1.0, below=float(alpha), inner=1.0)
    return replaced(input, out, "elu_") if inplace else out


def selu(input: Any, inplace: bool = False) -> Tensor:
    """The self-normalising scaled ELU (arXiv:1706.02515)."""
    out = elu_p(to_tensor(input), above=SELU_SCALE, below=SELU_ALPHA * SELU_SCALE, inner=1.0)
    return replaced(input, out, "selu_") if inplace else out


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below (arXiv:1704.07483)."""
    out = elu_p(to_tensor(input), above=1.0, below=float(alpha), inner=1.0 / alpha)
    return replaced(input, out, "celu_") if inplace else out


def silu(input: Any, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``."""
    out = silu_p(to_tensor(input))
    return replaced(input, out, "silu_") if inplace else out


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, the identity where ``beta * x > threshold``."""
    return softplus_p(to_tensor(input), beta=float(beta), threshold=float(threshold))


def logsigmoid(input: Any) -> Tensor:
    """``log(sigmoid(x))``, without underflow."""
    return neg(softplus(neg(input), threshold=SATURATED))


def mish(input: Any, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))`` (arXiv:1908.08681)."""
    out = mish_p(to_tensor(input))
    return replaced(input, out, "mish_") if inplace else out


def softsign(input: Any) -> Tensor:
    """``x / (1 + |x|)``."""
    x = to_tensor(input)
    return true_divide(x, add(abs_(x), 1.0))


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` limited to [min_val, max_val]; unlike ``clamp``, flat at the bounds themselves."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: expected min_val <= max_val, got {min_val} and {max_val}")
    x = to_tensor(input)
    out = where(le(x, min_val), min_val, where(ge(x, max_val), max_val, x))
    return replaced(input, out, "hardtanh_") if inplace else out


def relu6(input: Any, inplace: bool = False) -> Tensor:
    """``min(max(0, x), 6)``."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6``."""
    out = true_divide(relu6(add(input, 3.0)), 6.0)
    return replaced(input, out, "hardsigmoid_") if inplace else out


def hardswish(input: Any, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6`` (arXiv:1905.02244)."""
    out = hardswish_p(to_tensor(input))
    return replaced(input, out, "hardswish_") if inplace else out


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


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``x`` above ``threshold``, else ``value``."""
    out = where(le(input, threshold), value, input)
    return replaced(input, out, "threshold_") if inplace else out


def glu(input: Any, dim: int = -1) -> Tensor:
    """The first half along ``dim`` times the sigmoid of the second (arXiv:1612.08083)."""
    x = to_tensor(input)
    dim = normalize_dim("glu", dim, x.ndim)
    if x.ndim == 0 or x._v.shape[dim] % 2:
        raise ShapeError(f"glu: expected an even size in dimension {dim}, got an input of shape {tuple(x.shape)}")
    size = x._v.shape[dim]
    return mul(slice_dim(x, dim, 0, size // 2), sigmoid(slice_dim(x, dim, size // 2, size)))


# ---- dropout ----------------------------------------------------------------------------------------------------------
def _dropout_shape(x: Any, key: Any, p: float) -> tuple:
    lead = tuple(key.shape[:-1])
    if tuple(key.shape[-1:]) != (2,) or key.dtype != dtypes.uint32 or tuple(x.shape[: len(lead)]) != lead:
        raise ShapeError(
            f"dropout: expected a key (uint32 of shape (2,)) for an input of shape {tuple(x.shape)}, "
            f"got {key.dtype}{tuple(key.shape)}; see random.key"
        )
    require_floating("dropout", x, "a floating-point input")
    return (x,)


dropout_p = Primitive(
    "dropout",
    _dropout_shape,
    cpu=RANDOM_DROPOUT,
    vjp=lambda g, ins, o, p: (lambda: dropout_p(g, ins[1], p=p), None),  # the mask is drawn again, not kept
    batch=lambda n, ins, batched, p: dropout_p(*all_batched(n, ins, batched), p=p),
    flops=costs.each(2),
)


def dropout(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, key: Tensor | None = None
) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``; the input outside training.

    inplace: the input takes over the result. key: what decides; by default the next key of the global generator.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    x = to_tensor(input)
    if not training or p == 0.0:
        return x
    out = mul(x, 0.0) if p == 1.0 else dropout_p(x, next_key() if key is None else to_tensor(key), p=float(p))
    return replaced(input, out, "dropout_") if inplace else out
