"""Random numbers from keys. A key is a uint32 pair; what is drawn from it depends on nothing else.

Philox (``kernels.philox``) counters are (block, 0, stream, 0): stream 0 gives the bits drawn from a key, stream 1 its
split children, and ``fold_in(key, data)`` re-keys from stream 2 after mixing ``data`` in, so the three never overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Implementation, Primitive
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels import philox
from funcnn.kernels.cpu import philox as philox_kernels
from funcnn.ops.common import cast, numel, size_args, to_tensor
from funcnn.ops.elementwise import add, bitwise_right_shift, lt, mul, neg, remainder
from funcnn.ops.math import cos, log, sin, sqrt
from funcnn.ops.movement import reshape, slice_dim

BITS, CHILDREN, FOLD = 0, 1, 2  # streams
FEW, MANY = 64, 1 << 14  # words: up to FEW in Python integers, from MANY on in the compiled kernel


def _words(key: np.ndarray, stream: int, count: int) -> np.ndarray:
    k0, k1 = int(key[0]), int(key[1])
    if count <= FEW:
        return philox.words_python(k0, k1, stream, count)
    return philox.words_numpy(k0, k1, stream, count)


def _key_shape(name: str, key: Any) -> None:
    if tuple(key.shape) != (2,) or key.dtype != dtypes.uint32:
        raise ShapeError(
            f"{name}: expected a key (uint32 of shape (2,)), got {key.dtype}{tuple(key.shape)}; see random.key"
        )


def _bits_shape(key: Any, shape: tuple) -> tuple:
    _key_shape("random.bits", key)
    return (Aval(shape, dtypes.uint32),)


def _bits(ins: list, outs: list, shape: tuple) -> None:
    outs[0].reshape(-1)[:] = _words(ins[0], BITS, outs[0].size)


def _bits_compiled(ins: list, outs: list, shape: tuple) -> None:
    k0, k1 = (np.uint64(word) for word in ins[0])
    philox_kernels.philox_fill(k0, k1, np.uint64(BITS), outs[0].reshape(-1))


bits_p = Primitive(
    "random_bits",
    _bits_shape,
    cpu=(Implementation(_bits_compiled, when=lambda ins, shape: numel(shape) >= MANY), Implementation(_bits)),
)


def _split_shape(key: Any, num: int) -> tuple:
    _key_shape("random.split", key)
    return (Aval((num, 2), dtypes.uint32),)


def _split(ins: list, outs: list, num: int) -> None:
    outs[0].reshape(-1)[:] = _words(ins[0], CHILDREN, 2 * num)


split_p = Primitive("random_split", _split_shape, cpu=_split)


def _fold_shape(key: Any, data: Any) -> tuple:
    _key_shape("random.fold_in", key)
    if data.shape != () or data.dtype.kind not in "iu":
        raise DTypeError(f"random.fold_in: data must be an integer, got {data.dtype}{tuple(data.shape)}")
    return (Aval((2,), dtypes.uint32),)


def _fold(ins: list, outs: list) -> None:
    (k0, k1), data = (int(word) for word in ins[0]), int(ins[1]) & 0xFFFFFFFFFFFFFFFF
    outs[0][:] = philox.block(k0, k1, data & philox.MASK, data >> 32, FOLD, 0)[:2]


fold_in_p = Primitive("random_fold_in", _fold_shape, cpu=_fold)


# ---- keys -------------------------------------------------------------------------------------------------------------
def key(seed: int) -> Tensor:
    """The key for a seed: uint32 of shape (2,), the low and the high word."""
    seed = int(seed) & 0xFFFFFFFFFFFFFFFF
    return constant(np.array([seed & philox.MASK, seed >> 32], np.uint32))


def split(key: Any, num: int = 2) -> Tensor:
    """``num`` new keys (num, 2), independent of each other and of what is drawn from ``key``."""
    return split_p(to_tensor(key), num=int(num))


def fold_in(key: Any, data: Any) -> Tensor:
    """A new key from ``key`` and an integer (a step or an index), which may be a tensor."""
    return fold_in_p(to_tensor(key), to_tensor(data))


# ---- distributions ----------------------------------------------------------------------------------------------------
def _shape(shape: Any) -> tuple[int, ...]:
    sizes = size_args((shape,))
    if any(s < 0 for s in sizes):
        raise ShapeError(f"random: sizes must not be negative, got {sizes}")
    return sizes


def _float(dtype: Any) -> np.dtype:
    found = dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"random: expected a floating-point dtype, got {found}")
    return found


def bits(key: Any, shape: Any = ()) -> Tensor:
    """Uniform random uint32."""
    return bits_p(to_tensor(key), shape=_shape(shape))


def uniform(key: Any, shape: Any = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Tensor:
    """Uniform in [minval, maxval): 24 random bits in float32, 53 in float64."""
    return uniform_from(key, _shape(shape), _float(dtype), minval, maxval)


def uniform_from(key: Any, shape: tuple, dtype: np.dtype, low: Any = 0.0, high: Any = 1.0) -> Tensor:
    """``uniform`` with its arguments already in order."""
    unit = _unit(to_tensor(key), shape, dtype)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return unit if (low, high) == (0, 1) else add(mul(unit, high - low), low)
    return add(mul(unit, add(high, neg(low))), low)


def _unit(key: Tensor, shape: tuple, dtype: np.dtype) -> Tensor:
    if dtype != dtypes.float64:
        top = bitwise_right_shift(bits_p(key, shape=shape), constant(np.array(8, np.uint32)))
        return cast(mul(cast(top, dtypes.float32), 2.0**-24), dtype)
    words = bits_p(key, shape=(*shape, 2))
    axis = len(shape)
    high, low = (cast(reshape(slice_dim(words, axis, i, i + 1), shape), dtypes.float64) for i in (0, 1))
    high = cast(bitwise_right_shift(cast(high, dtypes.int64), 5), dtypes.float64)
    low = cast(bitwise_right_shift(cast(low, dtypes.int64), 6), dtypes.float64)
    return mul(add(mul(high, 2.0**26), low), 2.0**-53)


def normal(key: Any, shape: Any = (), dtype: Any = None) -> Tensor:
    """Standard normal, by the Box-Muller transform (1958) of pairs of uniforms."""
    return normal_from(key, _shape(shape), _float(dtype))


def normal_from(key: Any, shape: tuple, dtype: np.dtype) -> Tensor:
    """``normal`` with its arguments already in order."""
    from funcnn.ops.join import cat

    count = numel(shape)
    half = -(-count // 2)
    wide = dtypes.float64 if dtype == dtypes.float64 else dtypes.float32
    pair = _unit(to_tensor(key), (2, half), wide)
    radius = sqrt(mul(log(add(neg(reshape(slice_dim(pair, 0, 0, 1), (half,))), 1.0)), -2.0))  # 1 - u is never 0
    angle = mul(reshape(slice_dim(pair, 0, 1, 2), (half,)), 2.0 * np.pi)
    both = cat([mul(radius, cos(angle)), mul(radius, sin(angle))], 0)
    return cast(reshape(slice_dim(both, 0, 0, count), shape), dtype)


def randint(key: Any, shape: Any, low: int, high: int, dtype: Any = None) -> Tensor:
    """Integers in [low, high), of 64 random bits modulo the range (the bias is below range / 2**63)."""
    return randint_from(key, _shape(shape), low, high, dtypes.int64 if dtype is None else dtypes.as_dtype(dtype))


def randint_from(key: Any, shape: tuple, low: int, high: int, dtype: np.dtype = dtypes.int64) -> Tensor:
    """``randint`` with its arguments already in order. Raises ``ValueError`` for an empty range."""
    if high <= low:
        raise ValueError(f"randint: expected low < high, got [{low}, {high})")
    words = cast(bits_p(to_tensor(key), shape=(*shape, 2)), dtypes.int64)
    axis = len(shape)
    upper, lower = (reshape(slice_dim(words, axis, i, i + 1), shape) for i in (0, 1))
    wide = add(mul(bitwise_right_shift(upper, 1), 1 << 32), lower)
    return cast(add(remainder(wide, high - low), low), dtype)


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Tensor:
    """True with probability ``p`` (a number or a tensor); of ``p``'s shape unless given."""
    sizes = _shape(shape) if shape is not None else tuple(to_tensor(p)._v.shape)
    return lt(uniform_from(key, sizes, dtypes.float32), p)


def permutation(key: Any, n: Any) -> Tensor:
    """0..n-1 in random order, or the rows of a tensor in random order."""
    from funcnn.ops.index import index_select
    from funcnn.ops.sort import argsort

    if isinstance(n, int):
        return argsort(randint_from(key, (n,), 0, 1 << 62))
    t = to_tensor(n)
    return index_select(t, 0, argsort(randint_from(key, (t._v.shape[0],), 0, 1 << 62)))
