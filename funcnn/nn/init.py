"""Initial values of parameters: each function fills a tensor in place, without recording, and returns it.

Random ones draw from ``generator``, or from the global one that ``manual_seed`` sets.
"""

from __future__ import annotations

import math
import warnings
from functools import wraps
from typing import Any

import numpy as np

from funcnn.core.context import ctx, running
from funcnn.core.errors import DTypeError
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, concrete
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.bounds import clamp
from funcnn.ops.elementwise.comparison import lt
from funcnn.ops.elementwise.math import erfinv
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.sort import argsort
from funcnn.ops.random.generator import draw_key
from funcnn.ops.random.keys import normal_from, uniform_from
from funcnn.ops.tensor.creation import eye as identity
from funcnn.ops.tensor.creation import full


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor on the standard deviation that keeps the variance through a nonlinearity.

    param: the negative slope of ``leaky_relu`` (0.01). Raises ``ValueError`` for an unknown nonlinearity.
    """
    if nonlinearity in ("linear", "sigmoid") or nonlinearity in _CONVOLUTIONS:
        return 1
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return _GAINS[nonlinearity]


_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}


# ---- constants --------------------------------------------------------------------------------------------------------
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element ``val``."""
    return _store(tensor, full(tuple(tensor.shape), val, dtype=tensor.dtype), "constant_")


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity, for (rows, columns). Raises ``ValueError`` for another rank."""
    _require_rank("eye_", tensor, (2,))
    rows, columns = tensor.shape
    return _store(tensor, identity(rows, columns, dtype=tensor.dtype), "eye_")


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Convolution weights (K, C, *kernel) that pass as many channels as there are through, in each group.

    Raises ``ValueError`` for another rank than 3..5 or a K that is no multiple of ``groups``.
    """
    _require_rank("dirac_", tensor, (3, 4, 5))
    out_channels, in_channels, *kernel = tensor.shape
    if out_channels % groups:
        raise ValueError(f"dirac_: dim 0 must be divisible by groups, got {out_channels} and {groups}")
    values = np.zeros(tuple(tensor.shape), tensor.dtype)
    centre = tuple(size // 2 for size in kernel)
    each = out_channels // groups
    for channel in range(out_channels):
        if channel % each < in_channels:
            values[(channel, channel % each, *centre)] = 1
    return _store(tensor, to_tensor(values), "dirac_")


# ---- random -----------------------------------------------------------------------------------------------------------
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    return _store(tensor, _uniform("uniform_", tensor, a, b, generator), "uniform_")


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with ``mean`` and ``std``."""
    return _store(tensor, _normal("normal_", tensor, mean, std, generator), "normal_")


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Normal with ``mean`` and ``std``, conditioned on [a, b], by the inverse of the distribution function.

    Warns where [a, b] is more than 2 ``std`` from the mean; beyond 8 the values are near its closer end only.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"trunc_normal_: the mean {mean} is more than 2 std from [{a}, {b}]; the distribution may be inaccurate",
            stacklevel=2,
        )
    low, high = (a - mean) / std, (b - mean) / std
    # In the upper tail the distribution function is too close to 1 to be told from it: draw there from the mirror image.
    sign = -1.0 if low > 0 else 1.0
    low, high = (-high, -low) if low > 0 else (low, high)
    # erf in place of the distribution function F: 2 F(x) - 1 = erf(x / sqrt 2)
    levels = math.erf(low / math.sqrt(2.0)), math.erf(high / math.sqrt(2.0))
    drawn = _uniform("trunc_normal_", tensor, *levels, generator, np.dtype(np.float64))
    standard = mul(erfinv(drawn), sign * math.sqrt(2.0))
    return _store(tensor, clamp(cast(add(mul(standard, std), mean), tensor.dtype), a, b), "trunc_normal_")


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot and Bengio, AISTATS 2010)."""
    bound = math.sqrt(3.0) * _xavier_std("xavier_uniform_", tensor, gain)
    return _store(tensor, _uniform("xavier_uniform_", tensor, -bound, bound, generator), "xavier_uniform_")


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot and Bengio, AISTATS 2010)."""
    std = _xavier_std("xavier_normal_", tensor, gain)
    return _store(tensor, _normal("xavier_normal_", tensor, 0.0, std, generator), "xavier_normal_")


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Uniform with variance ``gain**2 / fan`` (He et al., arXiv:1502.01852); ``a`` is the slope of ``leaky_relu``.

    mode: ``fan_in`` keeps the variance of activations, ``fan_out`` that of gradients.
    """
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return _store(tensor, _uniform("kaiming_uniform_", tensor, -bound, bound, generator), "kaiming_uniform_")


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Normal with variance ``gain**2 / fan``; arguments as of ``kaiming_uniform_``."""
    if _is_empty(tensor):
        return tensor
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return _store(tensor, _normal("kaiming_normal_", tensor, 0.0, std, generator), "kaiming_normal_")


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """``gain`` times a random matrix with orthonormal rows or columns, of (dim 0, all other dims) (arXiv:1312.6120).

    Computed on the host: not inside ``jit``. Raises ``ValueError`` for fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: needs 2 or more dimensions, got shape {tuple(tensor.shape)}")
    if numel(tuple(tensor.shape)) == 0:
        return tensor
    drawn = concrete(_normal("orthogonal_", tensor, 0.0, 1.0, generator), "orthogonal_ of")
    flat = drawn.reshape(drawn.shape[0], -1).astype(np.promote_types(drawn.dtype, np.float32))
    wide = flat.shape[0] < flat.shape[1]
    q, r = np.linalg.qr(flat.T if wide else flat)
    # QR with a positive diagonal of R is unique, and its Q uniform (Mezzadri, arXiv:math-ph/0609050).
    q = q * np.sign(np.diag(r))
    values = (q.T if wide else q).reshape(drawn.shape) * gain
    return _store(tensor, to_tensor(values.astype(tensor.dtype)), "orthogonal_")


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal with ``std``, and a fraction ``sparsity`` (rounded up) of each column zero (Martens, ICML 2010)."""
    _require_rank("sparse_", tensor, (2,))
    zeros = math.ceil(sparsity * tensor.shape[0])
    values = _normal("sparse_", tensor, 0.0, std, generator)
    scores = _uniform("sparse_", tensor, 0.0, 1.0, generator, np.dtype(np.float64))
    ranks = argsort(argsort(scores, 0), 0)
    return _store(tensor, where(lt(ranks, zeros), 0.0, values), "sparse_")


# ---- parts ------------------------------------------------------------------------------------------------------------
def _store(tensor: Tensor, values: Tensor, name: str) -> Tensor:
    with running(ctx.top, False):
        return assign(tensor, cast(values, tensor.dtype), name)


def _drawing_dtype(name: str, tensor: Tensor) -> np.dtype:
    if tensor.dtype.kind != "f":
        raise DTypeError(f"{name}: expected a floating-point tensor, got {tensor.dtype}")
    return np.promote_types(tensor.dtype, np.float32)  # half is drawn in single and rounded


def _uniform(name: str, tensor: Tensor, a: float, b: float, generator: Any, dtype: np.dtype | None = None) -> Tensor:
    if a > b:
        raise ValueError(f"{name}: expected a <= b, got {a} and {b}")
    own = _drawing_dtype(name, tensor)
    return uniform_from(draw_key(generator), tuple(tensor.shape), dtype or own, a, b)


def _normal(name: str, tensor: Tensor, mean: float, std: float, generator: Any) -> Tensor:
    if not std >= 0:
        raise ValueError(f"{name}: expected a std of at least 0, got {std}")
    drawn = normal_from(draw_key(generator), tuple(tensor.shape), _drawing_dtype(name, tensor))
    return add(mul(drawn, std), mean)


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """Inputs of an output element and outputs of an input element, for weights (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ValueError(f"{name}: fan in and fan out need 2 or more dimensions, got shape {tuple(tensor.shape)}")
    out_maps, in_maps, *kernel = tensor.shape
    return in_maps * math.prod(kernel), out_maps * math.prod(kernel)


def _xavier_std(name: str, tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(_fans(name, tensor)))


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode must be fan_in or fan_out, got {mode!r}")
    fan = _fans(name, tensor)[mode.lower() == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _require_rank(name: str, tensor: Tensor, ranks: tuple[int, ...]) -> None:
    if tensor.ndim not in ranks:
        listed = " or ".join(map(str, ranks))
        raise ValueError(
            f"{name}: only tensors with {listed} dimensions are supported, got shape {tuple(tensor.shape)}"
        )


def _is_empty(tensor: Tensor) -> bool:
    if 0 not in tensor.shape:
        return False
    warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
    return True


# ---- names of old, without the underscore -----------------------------------------------------------------------------
def _deprecated(fill: Any) -> Any:
    old = fill.__name__.rstrip("_")

    @wraps(fill)
    def renamed(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(
            f"`nn.init.{old}` is now deprecated in favor of `nn.init.{fill.__name__}`.", FutureWarning, stacklevel=2
        )
        return fill(*args, **kwargs)

    renamed.__name__ = old
    return renamed


uniform, normal, constant, eye, dirac = map(_deprecated, (uniform_, normal_, constant_, eye_, dirac_))
xavier_uniform, xavier_normal = map(_deprecated, (xavier_uniform_, xavier_normal_))
kaiming_uniform, kaiming_normal = map(_deprecated, (kaiming_uniform_, kaiming_normal_))
orthogonal, sparse = map(_deprecated, (orthogonal_, sparse_))
