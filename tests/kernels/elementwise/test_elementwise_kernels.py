"""The elementwise loops: values and gradients in long double, special values, the same bits on one thread and on two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from funcnn.kernels.cpu.build.compile import Kernel
from funcnn.kernels.cpu.elementwise import activation
from funcnn.kernels.cpu.elementwise import loops as elementwise
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
PARAMS = {"clamp": (0.2, 0.7), "elu": (1.0, 1.7, 0.6), "softplus": (1.3, 15.0), "leaky_relu": (0.2,)}
EXACT = {
    "gelu": lambda x: x * 0.5 * _erfc(-x / np.sqrt(np.longdouble(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.longdouble(math.pi)) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "elu": lambda x: np.where(x > 0, x, 1.7 * np.expm1(0.6 * x)),
    "softplus": lambda x: np.log1p(np.exp(1.3 * x)) / 1.3,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def _erfc(x):
    return np.array([math.erfc(v) for v in x], np.longdouble)


def kernels():
    """Every kernel of the two files with the number of arrays it reads."""
    found = {}
    for module in (elementwise, activation):
        for name, k in vars(module).items():
            if isinstance(k, Kernel) and k.function.__code__.co_varnames[0] == "x" and name == k.function.__name__:
                if k.function.__code__ in (elementwise._loop1.__code__, elementwise._loop2.__code__):
                    found[name] = (k, k.function.__code__.co_argcount - 3)
    return found


KERNELS = kernels()


def run(kernel, *ins, params=(), threads=1):
    out = np.full_like(ins[-1], 7)
    kernel(*ins, out, params, threads)
    return out


@DTYPES
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits_on_two_threads(name, dtype):
    kernel, count = KERNELS[name]
    x = np.random.default_rng(0).uniform(-0.9, 3, (count, sized(3 * elementwise.CHUNK_ELEMENTS + 17, 8))).astype(dtype)
    params = PARAMS.get(name.removesuffix("_grad"), ())
    one, two = (run(kernel, *x, params=params, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.view(f"u{one.itemsize}"), two.view(f"u{two.itemsize}"))
    few = run(kernel, *x[:, :5].copy(), params=params)  # not a whole vector
    np.testing.assert_allclose(few, one[:5], 1e-6 if dtype == "float32" else 1e-15)
    assert run(kernel, *x[:, :0].copy(), params=params).size == 0


@DTYPES
@pytest.mark.parametrize("name", EXACT)
def test_activations(name, dtype):
    x = np.concatenate([np.linspace(-8, 8, sized(401, 41)), [0.0, -1e-20, 30, -30]]).astype(dtype)
    wide = x.astype(np.longdouble)
    got = run(KERNELS[name][0], x, params=PARAMS.get(name, ()))
    tolerance = (3e-6, 1e-7) if dtype == "float32" else (3e-14, 1e-16)
    np.testing.assert_allclose(got, EXACT[name](wide).astype(dtype), *tolerance)


@pytest.mark.parametrize("name", EXACT)
def test_gradients_of_activations(name):
    rng = np.random.default_rng(1)
    x = rng.uniform(-6, 6, sized(500, 30))
    x = x[(abs(x) > 1e-3) & (abs(abs(x) - 3) > 1e-3)]
    g, step = rng.standard_normal(x.size), 1e-5
    params = PARAMS.get(name, ())
    high, low = (run(KERNELS[name][0], x + s, params=params) for s in (step, -step))
    got = run(KERNELS[name + "_grad"][0], g, x, params=params)
    np.testing.assert_allclose(got, g * (high - low) / (2 * step), 1e-6, 1e-8)
    single = run(KERNELS[name + "_grad"][0], g.astype("f"), x.astype("f"), params=params)
    np.testing.assert_allclose(single, got, 1e-4, 1e-5)


@DTYPES
def test_activations_at_infinity_and_nan(dtype):
    x = np.array([math.inf, -math.inf, math.nan], dtype)
    expected = {
        "gelu": [math.inf, math.nan], "silu": [math.inf, math.nan], "mish": [math.inf, math.nan],
        "elu": [math.inf, -1.7], "softplus": [math.inf, 0], "leaky_relu": [math.inf, -math.inf],
        "hardswish": [math.inf, math.nan],
    }  # fmt: skip
    for name, values in expected.items():
        got = run(KERNELS[name][0], x, params=PARAMS.get(name, ()))
        np.testing.assert_allclose(got, [*values, math.nan], 1e-6, err_msg=name)


def test_gelu_keeps_its_tail():
    x = np.array([-5.0, -10.0, -20.0, -37.0])
    np.testing.assert_allclose(run(activation.gelu, x), EXACT["gelu"](x).astype(float), 1e-13)


@DTYPES
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_huge_angles(name, dtype):
    x = np.concatenate([np.linspace(-9, 9, 50), np.logspace(5, 38, 60), [np.inf, np.nan, 1.5]]).astype(dtype)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype(np.longdouble)).astype(dtype)
    np.testing.assert_allclose(run(KERNELS[name][0], x), want, 4 * np.finfo(dtype).eps)


@DTYPES
def test_logaddexp(dtype):
    special = np.array([0, 1, -3, 20, 1e4, -np.inf, np.inf, np.nan], dtype)
    x, y = (a.ravel().copy() for a in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        want = np.logaddexp(x, y)
    np.testing.assert_allclose(run(elementwise.logaddexp, x, y), want, 1e-6 if dtype == "float32" else 1e-15)


def test_a_block_stands_for_an_array_of_equal_numbers():
    x = np.linspace(-2, 2, sized(3, 1) * elementwise.CHUNK_ELEMENTS + 5)
    block = np.full(elementwise.CHUNK_ELEMENTS, 2.5)
    np.testing.assert_array_equal(
        run(activation.silu_grad, block, x), run(activation.silu_grad, np.full(x.size, 2.5), x)
    )


def test_erfinv_is_within_a_few_ulp():
    tails = 1 - np.logspace(-15.9, -0.4, sized(400, 20))
    for x in [*np.linspace(1e-3, 0.999, sized(500, 20)), *tails, *np.logspace(-300, -3, 200), 1 - 2.0**-53, 5e-324]:
        t = run(elementwise.erfinv, np.array([x]))[0]
        off = (1 - x) - math.erfc(t) if x > 0.5 else x - math.erf(t)
        error = abs(off) * math.sqrt(math.pi) / 2 * math.exp(t * t)
        assert error <= 3 * np.spacing(t), (x, t, error / np.spacing(t))
        assert run(elementwise.erfinv, np.array([-x]))[0] == -t


def test_erfinv_against_known_digits():
    x = np.array([0.1, 0.5, 0.9, 0.99])
    # Newton's method on the Maclaurin series of erf in 60 digits
    expected = [0.08885599049425769, 0.4769362762044699, 1.1630871536766743, 1.8213863677184494]
    np.testing.assert_allclose(run(elementwise.erfinv, x), expected, rtol=5e-16)


@DTYPES
def test_erfinv_at_the_ends_and_outside(dtype):
    x = np.array([1, -1, 0, 1.0001, -2, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(run(elementwise.erfinv, x), [np.inf, -np.inf, 0, np.nan, np.nan, np.nan, np.nan])


def test_erfinv_in_float32_is_float64s_rounded():
    x = np.linspace(-0.9999, 0.9999, 1001).astype(np.float32)
    wide = run(elementwise.erfinv, x.astype(np.float64))
    np.testing.assert_allclose(run(elementwise.erfinv, x), wide, rtol=1e-7)
