"""Random numbers from keys. A key is a uint32 pair; what is drawn from it depends on nothing else.

Philox (``kernels.philox``) counters are (block, 0, stream, 0): stream 0 gives the bits drawn from a key, stream 1 its
split children, and ``fold_in(key, data)`` re-keys from stream 2 after mixing ``data`` in, so the three never overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels import philox
from funcnn.kernels.cpu.elementwise.look_launch import same_numbers
from funcnn.kernels.cpu.elementwise.looking import look_at_chances
from funcnn.kernels.cpu.random import host
from funcnn.kernels.implementation import Implementation
from funcnn.kernels.refusal import number
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import numel, size_args
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast, number_like
from funcnn.ops.elementwise.arithmetic import add, mul, neg, remainder
from funcnn.ops.elementwise.comparison import bitwise_right_shift, lt
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.index import index_select
from funcnn.ops.indexing.sort import argsort
from funcnn.ops.movement.views import reshape, slice_dim


def _require_keys(name: str, key: Any) -> None:
    """A key, or a batch of them: the primitives take leading dimensions, so that batching is one application."""
    if tuple(key.shape[-1:]) != (2,) or key.dtype != dtypes.uint32:
        raise ShapeError(
            f"{name}: expected a key (uint32 of shape (2,)), got {key.dtype}{tuple(key.shape)}; see random.key"
        )


def _bits_shape(key: Any, shape: tuple) -> tuple:
    _require_keys("random.bits", key)
    return (Aval((*key.shape[:-1], *shape), dtypes.uint32),)


bits_p = Primitive(
    "random_bits",
    _bits_shape,
    cpu=host.RANDOM_BITS,
    batch=lambda n, ins, batched, shape: bits_p(ins[0], shape=shape),
    flops=costs.none,
)


def _numbers_shape(key: Any, shape: tuple, dtype: np.dtype) -> tuple:
    _require_keys("random", key)
    return (Aval((*key.shape[:-1], *shape), dtype),)


def _numbers(name: str, ways: tuple[Implementation, ...], flops: float) -> Primitive:
    """The primitive that draws floating-point numbers of a shape from a key."""
    prim = Primitive(
        name,
        _numbers_shape,
        cpu=ways,
        batch=lambda n, ins, batched, shape, dtype: prim(ins[0], shape=shape, dtype=dtype),
        flops=costs.each(flops),
    )
    return prim


unit_p = _numbers("random_uniform", host.RANDOM_UNIFORM, 2)
normal_p = _numbers("random_normal", host.RANDOM_NORMAL, costs.LOG_FLOPS + costs.TRIG_FLOPS + 4)


def _split_shape(key: Any, num: int) -> tuple:
    _require_keys("random.split", key)
    if num < 0:
        raise ValueError(f"random.split: the number of keys must not be negative, got {num}")
    return (Aval((*key.shape[:-1], num, 2), dtypes.uint32),)


split_p = Primitive(
    "random_split",
    _split_shape,
    cpu=host.SPLIT,
    batch=lambda n, ins, batched, num: split_p(ins[0], num=num),
    flops=costs.none,
)


def _fold_shape(key: Any, data: Any) -> tuple:
    _require_keys("random.fold_in", key)
    if tuple(data.shape) != tuple(key.shape[:-1]) or data.dtype.kind not in "iu":
        raise DTypeError(f"random.fold_in: data must be an integer, got {data.dtype}{tuple(data.shape)}")
    return (Aval(tuple(key.shape), dtypes.uint32),)


fold_in_p = Primitive(
    "random_fold_in",
    _fold_shape,
    cpu=host.FOLD_IN,
    batch=lambda n, ins, batched: fold_in_p(*all_batched(n, ins, batched)),
    flops=costs.none,
)


# ---- keys -------------------------------------------------------------------------------------------------------------
def key(seed: int) -> Tensor:
    """The key for a seed: uint32 of shape (2,), the low and the high word."""
    seed = int(seed) & 0xFFFFFFFFFFFFFFFF
    return constant(np.array([seed & philox.MASK, seed >> 32], np.uint32))


def _one(name: str, key: Any) -> Tensor:
    t = to_tensor(key)
    if t.ndim != 1:
        raise ShapeError(f"{name}: expected one key of shape (2,), got shape {tuple(t.shape)}; use vmap for several")
    return t


def split(key: Any, num: int = 2) -> Tensor:
    """``num`` new keys (num, 2), independent of each other and of what is drawn from ``key``."""
    return split_p(_one("random.split", key), num=int(num))


def fold_in(key: Any, data: Any) -> Tensor:
    """A new key from ``key`` and an integer (a step or an index), modulo 2**64; it may be a tensor."""
    t = _one("random.fold_in", key)
    if isinstance(data, int) and not isinstance(data, bool):
        data = number_like(t, (data + 2**63) % 2**64 - 2**63, dtypes.int64)
    return fold_in_p(t, to_tensor(data))


# ---- distributions ----------------------------------------------------------------------------------------------------
def drawn_shape(shape: tuple) -> tuple[int, ...]:
    """Returns the sizes that a user gave, one by one or in one tuple. Raises ``ShapeError`` for one below 0."""
    sizes = size_args(shape)
    if any(s < 0 for s in sizes):
        raise ShapeError(f"random: sizes must not be negative, got {sizes}")
    return sizes


def drawn_dtype(dtype: Any) -> np.dtype:
    """Returns a floating dtype, by default the default one. Raises ``DTypeError`` for any other."""
    found = dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"random: expected a floating-point dtype, got {found}")
    return found


def bits(key: Any, shape: Any = ()) -> Tensor:
    """Uniform random uint32."""
    return bits_p(_one("random.bits", key), shape=drawn_shape((shape,)))


def uniform(key: Any, shape: Any = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Tensor:
    """Uniform in [minval, maxval): 11 random bits in float16, 24 in float32, 53 in float64."""
    return uniform_from(key, drawn_shape((shape,)), drawn_dtype(dtype), minval, maxval)


def uniform_from(key: Any, shape: tuple, dtype: np.dtype, low: Any = 0.0, high: Any = 1.0) -> Tensor:
    """``uniform`` with its arguments already in order."""
    unit = _unit(_one("random.uniform", key), shape, dtype)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        if not 0 <= high - low <= float(np.finfo(dtype).max):
            raise ValueError(
                f"random.uniform: expected a range with low <= high that {dtype} holds, got [{low}, {high})"
            )
        if (low, high) == (0, 1):
            return unit
        made = add(mul(unit, high - low), low)
    else:
        made = add(mul(unit, add(high, neg(low))), low)
    return where(lt(made, high), made, low)  # the sum may round up to high


def _unit(key: Tensor, shape: tuple, dtype: np.dtype) -> Tensor:
    if dtype != dtypes.float16:
        return unit_p(key, shape=shape, dtype=dtype)
    bits = bits_p(key, shape=shape)
    top = bitwise_right_shift(bits, number_like(bits, 21))
    return cast(mul(cast(top, dtypes.float32), 2.0**-11), dtype)  # the significand: one more bit could round up to 1


def normal(key: Any, shape: Any = (), dtype: Any = None) -> Tensor:
    """Standard normal, by the Box-Muller transform (1958) of pairs of uniforms."""
    return normal_from(key, drawn_shape((shape,)), drawn_dtype(dtype))


def normal_from(key: Any, shape: tuple, dtype: np.dtype) -> Tensor:
    """``normal`` with its arguments already in order."""
    wide = dtypes.float32 if dtype == dtypes.float16 else dtype
    return cast(normal_p(_one("random.normal", key), shape=shape, dtype=wide), dtype)


def randint(key: Any, shape: Any, low: int, high: int, dtype: Any = None) -> Tensor:
    """Integers in [low, high), of 64 random bits modulo the range (the bias is below range / 2**63)."""
    return randint_from(
        key, drawn_shape((shape,)), low, high, dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    )


def randint_from(key: Any, shape: tuple, low: int, high: int, dtype: np.dtype = dtypes.int64) -> Tensor:
    """``randint`` with its arguments already in order. Raises ``ValueError`` for an empty range or one beyond dtype."""
    if not all(isinstance(bound, (int, np.integer)) for bound in (low, high)):
        raise DTypeError(f"randint: expected integer bounds, got [{low!r}, {high!r})")
    if high <= low:
        raise ValueError(f"randint: expected low < high, got [{low}, {high})")
    limits = np.iinfo(np.int64 if dtype.kind in "fb" else dtype)
    if low < limits.min or high - 1 > limits.max or high - low > np.iinfo(np.int64).max:
        raise ValueError(f"randint: the range [{low}, {high}) does not fit {dtype} (or is wider than 2**63)")
    words = cast(bits_p(_one("randint", key), shape=(*shape, 2)), dtypes.int64)
    axis = len(shape)
    upper, lower = (reshape(slice_dim(words, axis, i, i + 1), shape) for i in (0, 1))
    wide = add(mul(bitwise_right_shift(upper, 1), 1 << 32), lower)
    return cast(add(remainder(wide, high - low), low), dtype)


def checked_values(name: str, wanted: str, ways: tuple, rows: bool = False) -> Primitive:
    """The identity on numbers that a sampler goes by; raises ``ValueError``, under ``jit`` too, unless all are ``wanted``.

    ways: its implementations, and those that look alone. rows: a row is refused, not a number.
    """

    def refuse(meaning: str, words: tuple, ins: list) -> ValueError:
        x: Any = ins[0]
        if not rows:
            return ValueError(f"{name}: expected {wanted}, got {number(words, x.dtype)}")
        row = (
            x.reshape(numel(x.shape[:-1]), x.shape[-1])[words[2]].tolist()
            if type(x) is np.ndarray
            else f"others in row {words[2]}"
        )
        return ValueError(f"{name}: expected {wanted}, got {row}")

    prim = Primitive(
        name,
        shape=lambda x: (Aval(tuple(x.shape), x.dtype),),
        cpu=ways[0],
        vjp=lambda g, ins, o: (g,),
        batch=lambda n, ins, batched: prim(ins[0]),
        keeps="",
        looks=ways[1],
        refuse=refuse,
        flops=costs.each(2),  # two comparisons
    )
    return prim


def checked_numbers(name: str, wanted: str, kernel: Any, bad: Callable) -> Primitive:
    """``checked_values`` of which none may be ``bad``, as a kernel finds them, or NumPy."""
    return checked_values(name, wanted, same_numbers(kernel, wanted, bad))


probability_p = checked_numbers(
    "bernoulli", "probabilities between 0 and 1", look_at_chances, lambda p: ~((p >= 0) & (p <= 1))
)


def probability(name: str, p: Any) -> Any:
    """``p``, a number or a tensor, once it is known to be between 0 and 1. Raises ``ValueError``."""
    if isinstance(p, (Tensor, np.ndarray)):
        return probability_p(to_tensor(p))
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: p must be between 0 and 1, got {p}")
    return p


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Tensor:
    """True with probability ``p`` (a number or a tensor); of ``p``'s shape unless given."""
    p = probability("random.bernoulli", p)
    sizes = drawn_shape((shape,)) if shape is not None else tuple(to_tensor(p)._v.shape)
    return lt(uniform_from(key, sizes, dtypes.float32), p)


def permutation(key: Any, n: Any) -> Tensor:
    """0..n-1 in random order, or the rows of a tensor in random order."""
    if isinstance(n, (int, np.integer)):
        return argsort(randint_from(key, drawn_shape((n,)), 0, 1 << 62))
    t = to_tensor(n)
    if t.ndim == 0:
        raise ShapeError("random.permutation: expected an int or a tensor with rows, got a 0-d tensor")
    return index_select(t, 0, argsort(randint_from(key, (t._v.shape[0],), 0, 1 << 62)))
