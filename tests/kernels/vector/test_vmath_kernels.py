"""The vector mathematics against long double NumPy: 4 ulp over the whole range, special values, vector code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector import functions as vmath
from funcnn.kernels.cpu.vector import powers
from funcnn.kernels.cpu.vector.instructions import pointer
from tests.plain import compiled_only, sized

EXACT = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))),
    "sin": np.sin,
    "cos": np.cos,
    "erf": lambda x: np.copysign(1 - complement(np.abs(x)), x) * (np.abs(x) > 0.5) + series(x) * (np.abs(x) <= 0.5),
    "erfc": lambda x: np.where(x < 0, 2 - complement(np.abs(x)), complement(np.abs(x))),
}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-30, -1e-30]


def series(x: np.ndarray) -> np.ndarray:
    """erf(x) within 2 of 0 (Abramowitz and Stegun 7.1.6)."""
    x = np.clip(x, -2, 2)
    term = total = x
    for k in range(1, 60):
        term = term * 2 * x * x / (2 * k + 1)
        total = total + term
    return total * np.exp(-x * x) * 2 / np.sqrt(np.arccos(x.dtype.type(-1)))


def complement(a: np.ndarray) -> np.ndarray:
    """erfc(a) for a >= 0; above 2 by the continued fraction (Abramowitz and Stegun 7.1.14)."""
    a = np.where(a > 30, 30, a)
    below = a
    for k in range(160, 0, -1):
        below = a + k / (2 * below)
    tail = np.exp(-a * a) / (below * np.sqrt(np.arccos(a.dtype.type(-1))))
    return np.where(a < 2, 1 - series(a), tail)


def apply(name: str, x: np.ndarray) -> np.ndarray:
    """One function over an array by a plain compiled loop."""
    y = np.empty_like(x)
    LOOPS[name](x, y)
    return y


def _loop(scalar, inputs=1):
    """A compiled loop over arrays, as kernels have them."""
    import numba

    from funcnn.kernels.cpu.build.compile import FASTMATH, rebound

    names = {"pointer": pointer, "scalar": scalar, "__name__": "loops"}
    ins = [f"p{k}" for k in range(inputs)]
    lines = [f"{p} = pointer({p}, 0)" for p in ins]
    call = ", ".join(f"{p}[i]" for p in ins)
    lines = [*lines, "q, n = pointer(y, 0), y.size", "for i in range(n):", f"    q[i] = scalar({call})"]
    exec(f"def loop({', '.join(ins)}, y):\n" + "\n".join("    " + line for line in lines), names)
    body = rebound(names["loop"], lambda helper: helper.dispatcher())
    return numba.njit(body, error_model="numpy", fastmath=FASTMATH)


LOOPS = {name: _loop(getattr(vmath, name)) for name in EXACT}


def numbers(dtype: type, count: int) -> np.ndarray:
    """Every exponent with random mantissas, both signs, denormals too, and a dense sample of what is ordinary."""
    rng = np.random.default_rng(0)
    word = np.uint32 if dtype == np.float32 else np.uint64
    bits = rng.integers(0, 2 ** (32 if dtype == np.float32 else 64), count, dtype=word)
    wide = bits.view(dtype)
    usual = (rng.standard_normal(count) * np.exp(rng.uniform(-4, 6, count))).astype(dtype)
    return np.concatenate([wide[np.isfinite(wide)], usual, np.array(SPECIAL, dtype)])


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in long double (float64 for a float32 argument, where that is exact enough)."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    return EXACT[name](wide)


def ulps(y: np.ndarray, want: np.ndarray) -> np.ndarray:
    """The distance in units of the last place; 0 where both are the same infinity or both NaN."""
    rounded = want.astype(y.dtype)
    same = (np.isnan(y) & np.isnan(rounded)) | (y == rounded)
    one = np.spacing(np.abs(rounded)).astype(want.dtype)
    return np.where(same, 0.0, np.abs(y.astype(want.dtype) - want) / one).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_four_ulp_over_the_whole_range(name, dtype):
    x = numbers(dtype, sized(1_000_000 if dtype == np.float32 else 200_000, 200))
    if name in ("sin", "cos"):
        x = x[np.abs(x) <= (2.0**20 if dtype == np.float32 else 2.0**30)]
    with np.errstate(all="ignore"):
        error = ulps(apply(name, x), exact(name, x))
    worst = int(np.nanargmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= (4.5 if name == "erfc" else 4.0), (x[worst], apply(name, x[worst : worst + 1]), error[worst])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_below_is_exp_without_denormals(dtype):
    x = numbers(dtype, sized(1_000_000 if dtype == np.float32 else 200_000, 200))
    x = x[~(x > 1)]
    got = np.empty_like(x)
    _loop(vmath.exp_below)(x, got)
    with np.errstate(all="ignore"):
        want = exact("exp", x)
    normal = want >= 1.01 * np.finfo(dtype).tiny
    assert ulps(got[normal], want[normal]).max() <= 4.0
    assert np.abs(got[~normal]).max(initial=0, where=x[~normal] == x[~normal]) <= 1.01 * np.finfo(dtype).tiny
    assert got[x == -np.inf] == 0 and np.isnan(got[np.isnan(x)]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_within_four_ulp(dtype):
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        x = np.abs(numbers(dtype, sized(200_000, 400)))
        y = rng.uniform(-745, 745, x.size) / np.log(x) * rng.uniform(0, 1, x.size) ** 2  # results all over the range
        y = y.astype(dtype)
        y[::7] = np.round(y[::7])
        x[::7] *= -1
        got = np.empty_like(x)
        _loop(powers.pow, 2)(x, y, got)
        error = ulps(got, np.power(x.astype(np.longdouble), y.astype(np.longdouble)))
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= 4.0, (x[worst], y[worst], got[worst], error[worst])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_has_the_special_values_of_c(dtype):
    special = [0.0, 1, 2, 3, 0.5, 2.5, math.inf, math.nan, 1e30, 1e-30, 2.0**23 + 1, 2.0**53]
    x, y = (a.ravel().copy() for a in np.meshgrid(*[np.array([*special, *(-v for v in special)], dtype)] * 2))
    got = np.empty_like(x)
    _loop(powers.pow, 2)(x, y, got)
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    np.testing.assert_allclose(got, want, 1e-6)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))


@pytest.mark.parametrize("name", EXACT)
def test_zero_keeps_its_sign(name):
    zeros = np.array([0.0, -0.0], np.float32)
    with np.errstate(all="ignore"):
        want = exact(name, zeros)
    np.testing.assert_array_equal(apply(name, zeros), want)
    np.testing.assert_array_equal(np.signbit(apply(name, zeros)), np.signbit(want))


@compiled_only
@pytest.mark.skipif(vector_bytes() != 64, reason="reads the assembly of AVX-512")
@pytest.mark.parametrize("name", EXACT)
def test_loops_are_vector_code(name):
    apply(name, np.ones(4, np.float32))
    assembly = "".join(LOOPS[name].inspect_asm().values())
    assert assembly.count("zmm") + assembly.count("ymm") > 40  # LLVM prefers half as wide vectors on some processors
    assert not any(f"call{suffix}\t{name}" in assembly for suffix in ("", "q"))
