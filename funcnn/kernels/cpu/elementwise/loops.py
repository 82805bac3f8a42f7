"""Elementwise loops over flat contiguous arrays, in parallel: each element is read and written once.

A loop is made from a template and a scalar function, which is inlined into it. The chunks are cut by size alone. Beyond
the caches traffic is the limit: 2 accesses an element for one input, 3 for two. Within them it is the arithmetic of the
scalar function (those of ``functions.py`` have 20 to 60 instructions a vector).

Gradient kernels take the cotangent first, then what the derivative is a function of: the input x or the output o.
"""

from __future__ import annotations

import math

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector import functions as vmath
from funcnn.kernels.cpu.vector.bits import like, pick
from funcnn.kernels.cpu.vector.functions import exp as exp_scalar
from funcnn.kernels.cpu.vector.functions import far_from_circle
from funcnn.kernels.cpu.vector.functions import log1p as log1p_scalar
from funcnn.kernels.cpu.vector.instructions import pointer

CHUNK_ELEMENTS = 1 << 14


def one_or_all(x, out):
    """Returns how much of an input is touched: as much as of the output, or, where it is shorter, a chunk that is read again."""
    return out.size if x.size == out.size else min(CHUNK_ELEMENTS, out.size)


LOOP1 = Facts({"x": lambda out: out.size})
LOOP2 = Facts({"x": one_or_all, "y": lambda y, out: one_or_all(y, out)})
LOOP3 = Facts({**LOOP2.touches, "z": lambda z, out: one_or_all(z, out)})


# ---- templates --------------------------------------------------------------------------------------------------------
@device_function
def chunks(x):
    """Returns how many chunks a flat array has."""
    return (x.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS


@device_function
def begin(chunk, x, out):
    """Returns where a chunk of an input begins; one that is shorter than the output is a single chunk, read again and again."""
    return chunk * CHUNK_ELEMENTS if x.size == out.size else 0


def _chunk1(chunk, worker, x, out, params):
    start = chunk * CHUNK_ELEMENTS
    p, q = pointer(x, start), pointer(out, start)
    for i in range(min(CHUNK_ELEMENTS, out.size - start)):
        q[i] = scalar(p[i], *params)  # noqa: F821, a helper that the template is given


def _chunk2(chunk, worker, x, y, out, params):
    p, r, q = pointer(x, begin(chunk, x, out)), pointer(y, begin(chunk, y, out)), pointer(out, chunk * CHUNK_ELEMENTS)
    for i in range(min(CHUNK_ELEMENTS, out.size - chunk * CHUNK_ELEMENTS)):
        q[i] = scalar(p[i], r[i], *params)  # noqa: F821


def _chunk3(chunk, worker, x, y, z, out, params):
    p, r, s = pointer(x, begin(chunk, x, out)), pointer(y, begin(chunk, y, out)), pointer(z, begin(chunk, z, out))
    q = pointer(out, chunk * CHUNK_ELEMENTS)
    for i in range(min(CHUNK_ELEMENTS, out.size - chunk * CHUNK_ELEMENTS)):
        q[i] = scalar(p[i], r[i], s[i], *params)  # noqa: F821


def _circle_chunk(chunk, worker, x, out, params):
    start = chunk * CHUNK_ELEMENTS
    n = min(CHUNK_ELEMENTS, out.size - start)
    p, q = pointer(x, start), pointer(out, start)
    far = 0
    for i in range(n):
        q[i] = scalar(p[i])  # noqa: F821
    for i in range(n):
        far |= far_from_circle(p[i])
    if far:
        for i in range(n):
            if far_from_circle(p[i]):
                q[i] = library(p[i]) if abs(p[i]) < math.inf else p[i] - p[i]  # noqa: F821


def _loop1(x, out, params, threads):
    """Writes out = f(x, *params), elementwise."""
    parallel_for(body, chunks(out), threads, (x, out, params))  # noqa: F821


def _loop2(x, y, out, params, threads):
    """Writes out = f(x, y, *params), elementwise."""
    parallel_for(body, chunks(out), threads, (x, y, out, params))  # noqa: F821


def _loop3(x, y, z, out, params, threads):
    """Writes out = f(x, y, z, *params), elementwise."""
    parallel_for(body, chunks(out), threads, (x, y, z, out, params))  # noqa: F821


def loop1(name, scalar):
    """Returns the kernel ``(x, out, params, threads)`` of a scalar function of one number."""
    return _of_scalar(_loop1, _chunk1, LOOP1, name, scalar)


def loop2(name, scalar):
    """Returns the kernel ``(x, y, out, params, threads)`` of a scalar function of two numbers."""
    return _of_scalar(_loop2, _chunk2, LOOP2, name, scalar)


def loop3(name, scalar):
    """Returns the kernel ``(x, y, z, out, params, threads)`` of a scalar function of three numbers."""
    return _of_scalar(_loop3, _chunk3, LOOP3, name, scalar)


def _of_scalar(loop, chunk, facts, name, scalar, **helpers):
    made = kernel_from(loop, name, facts, body=kernel_from(chunk, name + "_chunk", scalar=scalar, **helpers))
    made.scalar = scalar
    return made


@kernel(touches={"x": lambda: 1})
def repeat_number(x, out):
    """Writes out = x[0], everywhere."""
    number = x[0]
    for i in range(out.size):
        out[i] = number


# ---- arithmetic -------------------------------------------------------------------------------------------------------
@exact_function
def add_scalar(x, y):
    """x + y."""
    return x + y


@exact_function
def sub_scalar(x, y):
    """x - y."""
    return x - y


@exact_function
def mul_scalar(x, y):
    """x y."""
    return x * y


@exact_function
def div_scalar(x, y):
    """x / y."""
    return x / y


@exact_function
def maximum_scalar(x, y):
    """Returns the larger; NaN wins."""
    larger = x if x > y else y
    return larger if x == x else x


@exact_function
def minimum_scalar(x, y):
    """Returns the smaller; NaN wins."""
    smaller = x if x < y else y
    return smaller if x == x else x


@exact_function
def neg_scalar(x):
    """-x."""
    return -x


@exact_function
def sign_scalar(x):
    """-1, 0 or 1; 0 for NaN."""
    zero = pick(x, 0.0, 0.0)
    return like(x, 1.0 if x > zero else 0.0) - like(x, 1.0 if x < zero else 0.0)


@exact_function
def abs_scalar(x):
    """|x|."""
    return abs(x)


@exact_function
def square_scalar(x):
    """x^2."""
    return x * x


@exact_function
def sqrt_scalar(x):
    """Returns the square root."""
    return like(x, np.sqrt(x))


@exact_function
def rsqrt_scalar(x):
    """1 / sqrt(x)."""
    return pick(x, 1.0, 1.0) / like(x, np.sqrt(x))


@exact_function
def clamp_scalar(x, low, high):
    """min(max(x, low), high); NaN stays."""
    low, high = like(x, low), like(x, high)
    raised = low if x < low else x
    return high if raised > high else raised


@exact_function
def clamp_grad_scalar(g, x, low, high):
    """g where low <= x <= high, else 0."""
    zero = pick(x, 0.0, 0.0)
    kept = g if x >= like(x, low) else zero
    return kept if x <= like(x, high) else zero


add, sub, mul = loop2("add", add_scalar), loop2("sub", sub_scalar), loop2("mul", mul_scalar)
div, neg = loop2("div", div_scalar), loop1("neg", neg_scalar)
maximum, minimum = loop2("maximum", maximum_scalar), loop2("minimum", minimum_scalar)
absolute, sign = loop1("absolute", abs_scalar), loop1("sign", sign_scalar)
square, sqrt, rsqrt = loop1("square", square_scalar), loop1("sqrt", sqrt_scalar), loop1("rsqrt", rsqrt_scalar)
clamp, clamp_grad = loop1("clamp", clamp_scalar), loop2("clamp_grad", clamp_grad_scalar)


# ---- mathematics ------------------------------------------------------------------------------------------------------
@exact_function
def erfinv_scalar(x):
    """Returns the inverse of erf: Winitzki's closed form (2008) as a start, then Halley's steps on erf(t) = x, or on
    erfc(t) = 1 - x where erf is flat."""
    if np.isnan(x) or x < -1.0 or x > 1.0:
        return np.nan
    if x == 0.0:
        return x
    size = abs(x)
    if size == 1.0:
        return np.inf if x > 0 else -np.inf
    a = 0.147
    log_term = math.log((1.0 - size) * (1.0 + size))
    b = 2.0 / (math.pi * a) + 0.5 * log_term
    t = math.sqrt(math.sqrt(b * b - log_term / a) - b)
    for _ in range(3):
        error = math.erf(t) - size if size < 0.5 else (1.0 - size) - math.erfc(t)
        slope = 2.0 / math.sqrt(math.pi) * math.exp(-t * t)
        step = error / slope
        t -= step / (1.0 + t * step)
    return t if x > 0 else -t


@exact_function
def erfinv_wide(x):
    """``erfinv_scalar`` in float64, whatever x is."""
    return like(x, erfinv_scalar(np.float64(x)))


@exact_function
def tanh_grad_scalar(g, o):
    """g (1 - o^2)."""
    return g * (pick(o, 1.0, 1.0) - o * o)


@exact_function
def sigmoid_grad_scalar(g, o):
    """g o (1 - o)."""
    return g * (o * (pick(o, 1.0, 1.0) - o))


@exact_function
def logaddexp_scalar(x, y):
    """log(e^x + e^y): the larger, plus log(1 + e^-|x - y|)."""
    top = x if x > y else y
    gap = abs(x - y)
    rest = log1p_scalar(exp_scalar(-gap))
    same = top + pick(x, math.log(2.0), math.log(2.0))
    return same if x == y else top + rest


exp = loop1("exp", vmath.exp)
expm1 = loop1("expm1", vmath.expm1)
log = loop1("log", vmath.log)
log1p = loop1("log1p", vmath.log1p)
tanh = loop1("tanh", vmath.tanh)
tanh_grad = loop2("tanh_grad", tanh_grad_scalar)
sigmoid = loop1("sigmoid", vmath.sigmoid)
sigmoid_grad = loop2("sigmoid_grad", sigmoid_grad_scalar)
erf = loop1("erf", vmath.erf)
erfc = loop1("erfc", vmath.erfc)
erfinv = loop1("erfinv", erfinv_wide)
logaddexp = loop2("logaddexp", logaddexp_scalar)
sin = _of_scalar(_loop1, _circle_chunk, LOOP1, "sin", vmath.sin, library=math.sin)
cos = _of_scalar(_loop1, _circle_chunk, LOOP1, "cos", vmath.cos, library=math.cos)
