"""Fit the polynomials of ``funcnn/kernels/cpu/vector/tables.py``: interpolation in the Chebyshev points, with 420 digits.

The error is within a small factor of the best polynomial's, and each degree is one that leaves it under about a tenth of
an ulp. One table is a quotient of two polynomials. Run ``python scripts/fit_vmath.py`` and compare what it prints with that file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, getcontext

getcontext().prec = 420
D = Decimal
PI = 4 * (4 * sum((-1) ** k / (D(5) ** (2 * k + 1) * (2 * k + 1)) for k in range(320)) - sum(
    (-1) ** k / (D(239) ** (2 * k + 1) * (2 * k + 1)) for k in range(100)
))  # fmt: skip


def interpolate(f: Callable, low: D, high: D, degree: int) -> list[D]:
    """The coefficients, lowest first, of the polynomial through f in the Chebyshev points of [low, high]."""
    middle, half = (low + high) / 2, (high - low) / 2
    points = [middle + half * D(math.cos(math.pi * (k + 0.5) / (degree + 1))) for k in range(degree + 1)]
    table = [f(x) for x in points]
    for level in range(1, degree + 1):  # Newton's divided differences
        for k in range(degree, level - 1, -1):
            table[k] = (table[k] - table[k - 1]) / (points[k] - points[k - level])
    out = [table[degree]]
    for k in range(degree - 1, -1, -1):
        out = [a - points[k] * b for a, b in zip([D(0), *out], [*out, D(0)], strict=True)]
        out[0] += table[k]
    return out


def series(x: D, first: D, ratio: Callable) -> D:
    """``first + first * ratio(1) + ...`` until the terms vanish."""
    total, term, k = D(0), first, 0
    while k < 4 or abs(term) > D(10) ** -415:
        total, k = total + term, k + 1
        term *= ratio(k)
    return total


def quotient(f: Callable, points: list[D], degree: int) -> tuple[list[D], list[D]]:
    """The coefficients of p, of a degree, and q, of one more and beginning with 1, with p / q = f in all the points."""
    size = 2 * degree + 2
    rows = [[x**k for k in range(degree + 1)] + [-f(x) * x**k for k in range(1, degree + 2)] + [f(x)] for x in points]
    for k in range(size):  # Gauss and Jordan
        pivot = max(range(k, size), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [a / rows[k][k] for a in rows[k]]
        for i in range(size):
            if i != k:
                rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k], strict=True)]
    found = [row[size] for row in rows]
    return found[: degree + 1], [D(1), *found[degree + 1 :]]


def exp_rest(r: D) -> D:
    """(exp(r) - 1 - r) / r^2."""
    return series(r, D(1) / 2, lambda k: r / (k + 2))


def log_rest(z: D) -> D:
    """With s = sqrt(z): (log((1 + s) / (1 - s)) - 2 s) / s, over z."""
    return sum(2 * z**k / (2 * k + 3) for k in range(300))


def pow_rest(z: D) -> D:
    """With s = sqrt(z): (log((1 + s) / (1 - s)) - 2 s - 2 s^3 / 3) / s^5."""
    return sum(2 * z**k / (2 * k + 5) for k in range(300))


def sin_rest(z: D) -> D:
    """With r = sqrt(z): (sin(r) - r) / r^3."""
    return series(z, D(-1) / 6, lambda k: -z / ((2 * k + 2) * (2 * k + 3)))


def cos_rest(z: D) -> D:
    """With r = sqrt(z): (cos(r) - 1 + z / 2) / z^2."""
    return series(z, D(1) / 24, lambda k: -z / ((2 * k + 3) * (2 * k + 4)))


def erf_over_x(z: D) -> D:
    """With x = sqrt(z): erf(x) / x (Abramowitz and Stegun 7.1.6)."""
    return series(z, 2 / PI.sqrt() * (-z).exp(), lambda k: 2 * z / (2 * k + 1))


def scaled_erfc(k: int) -> Callable:
    """q -> (a + k) exp(a^2) erfc(a), where q = (a - k) / (a + k)."""

    def f(q: D) -> D:
        a = k * (1 + q) / (1 - q)
        return (a + k) * (a * a).exp() * (1 - a * erf_over_x(a * a))

    return f


def tail_ratio(a: D) -> D:
    """exp(a^2 / 2) Phi(-a), Phi being the normal distribution."""
    half = a * a / 2
    return half.exp() * (1 - a / D(2).sqrt() * erf_over_x(half)) / 2


def show_quotient(name: str, k: int, high: float, degree: int) -> None:
    """Print both polynomials for ``tail_ratio`` on [0, high], through points that lie densest near 0, and the error."""
    end, size = (D(high) - k) / (D(high) + k), 2 * degree + 2
    at = [D(math.cos(math.pi * (i + 0.5) / size)) for i in range(size)]
    p, q = quotient(
        tail_ratio, [k * (1 + t) / (1 - t) for t in ((end - 1) / 2 + (end + 1) / 2 * u for u in at)], degree
    )
    worst = D(0)
    for i in range(97):
        t = D(-1) + (end + 1) * (i + D("0.37")) / 97
        x = k * (1 + t) / (1 - t)
        above, below = (sum(a * x**j for j, a in enumerate(c)) for c in (p, q))
        worst = max(worst, abs(above / below / tail_ratio(x) - 1))
    print(f"# {name} on [0, {high}], relative error {float(worst):.1e}")
    for c in (p, q):
        print(", ".join(f"{float(a):.9g}" if name.endswith("SINGLE") else repr(float(a)) for a in c))


def show(name: str, f: Callable, low: float, high: float, single: int, double: int) -> None:
    """Print both tables, and the largest error of each polynomial in the middle between the points."""
    for kind, degree in (("SINGLE", single), ("DOUBLE", double)):
        c = interpolate(f, D(low), D(high), degree)
        worst = D(0)
        for k in range(97):
            x = D(low) + (D(high) - D(low)) * (k + D("0.37")) / 97
            worst = max(worst, abs(sum(a * x**i for i, a in enumerate(c)) / f(x) - 1))
        print(f"# {name}_{kind} on [{low:.4f}, {high:.4f}], relative error {float(worst):.1e}")
        print(", ".join(f"{float(a):.9g}" if kind == "SINGLE" else repr(float(a)) for a in c))


if __name__ == "__main__":
    quarter = float(PI / 4) * 1.001
    show("EXP", exp_rest, -0.3467, 0.3467, 4, 10)
    show("LOG", log_rest, 0.0, 0.02946, 3, 7)
    show("POW", pow_rest, 0.0, 0.02946, 2, 7)
    show("SIN", sin_rest, 0.0, quarter**2, 3, 6)
    show("COS", cos_rest, 0.0, quarter**2, 3, 6)
    show("ERF", erf_over_x, 0.0, 1.0, 7, 13)
    show("ERFCX k=2", scaled_erfc(2), -1.0, (10.1 - 2) / (10.1 + 2), 10, 20)
    show("ERFCX k=3", scaled_erfc(3), -1.0, (27.3 - 3) / (27.3 + 3), 10, 22)
    show("EXP4", D.exp, -0.6935, 0.6935, 7, 13)
    show_quotient("TAIL_SINGLE", 3, 14.5, 4)
    show_quotient("TAIL_DOUBLE", 4, 38.8, 9)
