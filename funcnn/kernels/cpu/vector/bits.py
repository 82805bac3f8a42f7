"""The few instructions under the vector mathematics that arithmetic cannot say: an exponent taken from a number's bits or
put into them, a polynomial whose roundings nobody rearranges, constants of the argument's own type.

They are scalar LLVM IR without branches, calls or changes of width, so loops over them vectorise for float32 and float64
alike. "Magic" is 1.5 * 2^23 or 1.5 * 2^52: a number of moderate size plus magic, rounded, is the nearest integer plus
magic, and the low bits of the sum are that integer in two's complement. No conversion is needed, so NaN harms nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.instructions import _fma_twin

FIELDS = {32: (23, 127), 64: (52, 1023)}  # bits of the mantissa, bias of the exponent (IEEE 754)
INTEGERS = {4: np.int32, 8: np.int64}


def _twin_bits(x: Any) -> tuple[Any, type]:
    """Returns a number's bits, and the integer type that they are of."""
    kind = INTEGERS[x.dtype.itemsize]
    return x.view(kind), kind


def _fields(kind: Any) -> tuple[Any, int, int]:
    from llvmlite import ir

    return ir.IntType(kind.bitwidth), *FIELDS[kind.bitwidth]


# ---- constants and polynomials ----------------------------------------------------------------------------------------
def _pick_twin(x: Any, single: float, double: float) -> Any:
    return np.float32(single) if type(x) is np.float32 else np.float64(double)


@intrinsic(twin=_pick_twin)
def pick(typingctx: Any, x: Any, single: Any, double: Any) -> Any:
    """``single`` for a float32 x, ``double`` for a float64 x, as a number of x's type."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.cast(builder, values[1 if x.bitwidth == 32 else 2], types.float64, x)

    return x(x, types.float64, types.float64), codegen


def _polynomial_twin(x: Any, single: tuple, double: tuple) -> Any:
    *rest, total = single if x.dtype.itemsize == 4 else double
    total = x.dtype.type(total)
    for c in reversed(rest):
        total = _fma_twin(total, x, x.dtype.type(c))
    return total


@intrinsic(twin=_polynomial_twin)
def polynomial(typingctx: Any, x: Any, single: Any, double: Any) -> Any:
    """``c[0] + c[1] x + c[2] x^2 + ...`` by Horner's rule in fused steps; the table of coefficients goes by x's type."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        table, kind = (values[1], single) if x.bitwidth == 32 else (values[2], double)
        c = [context.cast(builder, builder.extract_value(table, k), types.float64, x) for k in range(kind.count)]
        total = c[-1]
        for number in reversed(c[:-1]):
            total = builder.fma(total, values[0], number)
        return total

    return x(x, single, double), codegen


# ---- the exponent -----------------------------------------------------------------------------------------------------
def _times_power_twin(p: Any, t: Any) -> Any:
    i, kind = _twin_bits(t)
    width = FIELDS[8 * t.dtype.itemsize][0]
    n = int(i) - int(t.dtype.type(1.5 * 2.0**width).view(kind)) if t == t else 0  # NaN is scaled by anything
    return p.dtype.type(np.ldexp(np.ldexp(p, n >> 1), n - (n >> 1)))


@intrinsic(twin=_times_power_twin)
def times_power(typingctx: Any, p: Any, t: Any) -> Any:
    """``p * 2^n`` where ``t`` is n + magic, rounded once: n may leave the range of exponents, by half of it each way."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, width, bias = _fields(p)
        kind = values[0].type
        magic = (width + bias) << width | 1 << (width - 1)
        n = builder.sub(builder.bitcast(values[1], word), word(magic))
        half = builder.ashr(n, word(1))
        product = values[0]
        for part in (half, builder.sub(n, half)):
            power = builder.shl(builder.add(part, word(bias)), word(width))
            product = builder.fmul(product, builder.bitcast(power, kind))
        return product

    return p(p, p), codegen


def _power_of_two_twin(t: Any) -> Any:
    (i, kind), wide = _twin_bits(t), 8 * t.dtype.itemsize
    width, bias = FIELDS[wide]
    power = (int(i) + bias) << width & ((1 << wide) - 1)
    return np.array(power, f"u{t.dtype.itemsize}").astype(kind).view(t.dtype)[()]


@intrinsic(twin=_power_of_two_twin)
def power_of_two(typingctx: Any, t: Any) -> Any:
    """``2^n`` where ``t`` is n + magic, for an n whose power is a normal number; anything for NaN."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, width, bias = _fields(t)
        bits = builder.bitcast(values[0], word)  # of magic's own bits the shift leaves none
        power = builder.shl(builder.add(bits, word(bias)), word(width))
        return builder.bitcast(power, values[0].type)

    return t(t), codegen


def _exponent_twin(x: Any, low: Any) -> Any:
    i, kind = _twin_bits(x)
    return x.dtype.type((int(i) - int(low.view(kind))) >> FIELDS[8 * x.dtype.itemsize][0])


@intrinsic(twin=_exponent_twin)
def exponent(typingctx: Any, x: Any, low: Any) -> Any:
    """Computes the e, as a float, with ``x = m 2^e`` and m in [low, 2 low), for a normal x above 0."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, width, _ = _fields(x)
        i, base = (builder.bitcast(v, word) for v in values)
        return builder.sitofp(builder.ashr(builder.sub(i, base), word(width)), values[0].type)

    return x(x, x), codegen


def _mantissa_twin(x: Any, low: Any) -> Any:
    i, kind = _twin_bits(x)
    base, mask = int(low.view(kind)), (1 << FIELDS[8 * x.dtype.itemsize][0]) - 1
    return kind(((int(i) - base) & mask) + base).view(x.dtype)


@intrinsic(twin=_mantissa_twin)
def mantissa(typingctx: Any, x: Any, low: Any) -> Any:
    """Computes the m in [low, 2 low) with ``x = m 2^e``, for a normal x above 0."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, width, _ = _fields(x)
        i, base = (builder.bitcast(v, word) for v in values)
        low_bits = builder.and_(builder.sub(i, base), word((1 << width) - 1))
        return builder.bitcast(builder.add(low_bits, base), values[0].type)

    return x(x, x), codegen


# ---- single bits ------------------------------------------------------------------------------------------------------
def _odd_twin(t: Any, place: int) -> bool:
    return bool(int(_twin_bits(t)[0]) >> place & 1)


@intrinsic(twin=_odd_twin)
def bit(typingctx: Any, t: Any, place: Any) -> Any:
    """Whether bit ``place`` of the integer n is set, where ``t`` is n + magic."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = _fields(t)[0]
        shift = builder.trunc(values[1], word) if word.width < 64 else values[1]
        one = builder.and_(builder.lshr(builder.bitcast(values[0], word), shift), word(1))
        return builder.icmp_unsigned("!=", one, word(0))

    return types.boolean(t, types.intp), codegen


@intrinsic(twin=np.copysign)
def copysign(typingctx: Any, size: Any, sign: Any) -> Any:
    """Computes the size of the first with the sign of the second, zeros and NaN included."""
    from llvmlite import ir
    from numba.core import cgutils

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        form = ir.FunctionType(values[0].type, [values[0].type] * 2)
        name = f"llvm.copysign.f{size.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, form, name), values)

    return size(size, size), codegen


@intrinsic(twin=np.maximum)
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """Computes the larger; NaN wins; either zero of two."""
    from llvmlite import ir
    from numba.core import cgutils

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        form = ir.FunctionType(values[0].type, [values[0].type] * 2)
        function = cgutils.get_or_insert_function(builder.module, form, f"llvm.maximum.f{a.bitwidth}")
        return builder.call(function, values, fastmath=("nsz",))

    return a(a, a), codegen


# ---- types ------------------------------------------------------------------------------------------------------------
@intrinsic(twin=lambda x: x.dtype.itemsize == 4)
def single(typingctx: Any, x: Any) -> Any:
    """Whether x is a float32, known when the kernel is compiled."""
    from numba.core import types

    return types.boolean(x), lambda context, builder, signature, values: context.get_constant(
        types.boolean, x.bitwidth == 32
    )


@intrinsic(twin=lambda x, value: x.dtype.type(value))
def like(typingctx: Any, x: Any, value: Any) -> Any:
    """``value`` in x's type."""
    return x(x, value), lambda context, builder, signature, values: context.cast(builder, values[1], value, x)
