"""Random arguments for families of functions, PyTorch beside: ``python -m tests.arguments [--count 2000] [--family norm]``.

A family draws arrays, options and a call; values, dtypes, whether they require grad, gradients, and whether the call is
refused must be PyTorch's. Each set of arguments has its seed, which a report names.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import funcnn as fn
import funcnn.nn

INF = math.inf
SHAPES = [
    (),
    (1,),
    (3,),
    (0,),
    (2, 3),
    (2, 1),
    (0, 3),
    (2, 0),
    (2, 3, 4),
    (2, 1, 4),
    (1, 3),
    (2, 3, 4, 5),
    (0, 3, 4, 2),
]


def pick(rng: np.random.Generator, listed: Any) -> Any:
    """One of a list, as it is."""
    return listed[rng.integers(len(listed))]


def normal(rng: np.random.Generator, shape: Any, dtype: str = "float32") -> np.ndarray:
    """Normal numbers, at times with a few zeros and infinities among them."""
    x = np.asarray(rng.normal(size=shape) * 3).astype(dtype)
    if x.size > 1 and rng.random() < 0.3:
        x.flat[rng.integers(x.size)] = 0
    return x


def batch_norm(rng: np.random.Generator) -> tuple:
    """Training and evaluation, also of nothing, with all options."""
    rank = rng.integers(2, 6)
    shape = [pick(rng, (0, 1, 2, 3)), pick(rng, (1, 2, 3)), *[pick(rng, (0, 1, 2, 3)) for _ in range(rank - 2)]]
    c = shape[1] + (rng.random() < 0.03 and 0 not in shape)  # of nothing PyTorch asks no sizes
    affine, stats = rng.random() < 0.6, rng.random() < 0.7
    arrays = [normal(rng, shape)]
    arrays += [normal(rng, c), normal(rng, c)] if affine else []
    moved = [normal(rng, c), np.abs(normal(rng, c)) + 0.1] if stats else None
    options = {
        "training": bool(rng.random() < 0.7),
        "momentum": pick(rng, (0.0, 0.1, 1.0)),
        "eps": pick(rng, (1e-5, 0.1, 0.0, -1e-3)),
    }

    def call(T: Any, x: Any, *more: Any) -> Any:
        held = (None, None) if moved is None else tuple(T.tensor(m) for m in moved)
        y = T.nn.functional.batch_norm(x, *held, *(more or (None, None)), **options)
        return y if moved is None else (y, *held)

    return arrays, call, (shape, affine, stats, options)


def conv_transpose(rng: np.random.Generator) -> tuple:
    """One and two dimensions; output padding up to, and beyond, stride and dilation."""
    n = int(rng.integers(1, 3))
    groups, size = pick(rng, (1, 1, 2)), [pick(rng, (1, 2, 3, 4)) for _ in range(n)]
    kernel = [pick(rng, (1, 2, 3)) for _ in range(n)]
    options = {"stride": [pick(rng, (1, 2, 3)) for _ in range(n)], "dilation": [pick(rng, (1, 2, 3)) for _ in range(n)],
               "padding": [pick(rng, (0, 0, 1, 2)) for _ in range(n)], "output_padding": [pick(rng, (0, 0, 1, 2)) for _ in range(n)],
               "groups": groups}  # fmt: skip
    made = [
        (t - 1) * s - 2 * p + d * (k - 1) + 1
        for t, k, s, d, p in zip(size, kernel, *list(options.values())[:3], strict=True)
    ]
    if min(made) < 1:  # PyTorch makes nothing of some, and refuses others by the way that it takes
        options["output_padding"] = [0] * n
    arrays = [normal(rng, (2, 2 * groups, *size)), normal(rng, (2 * groups, 3, *kernel))]
    if rng.random() < 0.5:
        arrays.append(normal(rng, 3 * groups))
    return (
        arrays,
        lambda T, *xs: getattr(T.nn.functional, f"conv_transpose{n}d")(*xs, **options),
        (size, kernel, options),
    )


def cross_entropy(rng: np.random.Generator) -> tuple:
    """Class indices and probabilities; weights of 0, smoothing, ignored targets, two precisions."""
    n, c, space = pick(rng, (0, 1, 3)), pick(rng, (1, 2, 4)), pick(rng, ((), (2,), (2, 2)))
    dtype = pick(rng, ("float32", "float32", "float64"))
    weight = None if rng.random() < 0.5 else (rng.random(c) * (rng.random(c) < 0.6)).astype(dtype)
    options = {"reduction": pick(rng, ("mean", "sum", "none")), "label_smoothing": pick(rng, (0.0, 0.0, 0.2, 1.0)),
               "ignore_index": pick(rng, (-100, -1, 0, 1))}  # fmt: skip
    arrays = [normal(rng, (n, c, *space), dtype)]
    if rng.random() < 0.4:
        arrays.append(rng.random((n, c, *space)).astype(pick(rng, ("float32", "float64"))))
    else:
        arrays.append(np.where(rng.random((n, *space)) < 0.2, options["ignore_index"], rng.integers(0, c, (n, *space))))

    def call(T: Any, x: Any, target: Any) -> Any:
        w = None if weight is None else T.tensor(weight)
        return T.nn.functional.cross_entropy(x, target, weight=w, **options)

    return arrays, call, (n, c, space, weight, options, [a.dtype for a in arrays])


def prelu(rng: np.random.Generator) -> tuple:
    """Weights of every shape, infinity among the inputs."""
    shape = pick(rng, SHAPES[1:])
    x = normal(rng, shape)
    if x.size and rng.random() < 0.3:
        x.flat[0] = pick(rng, (INF, -INF, np.nan))
    weight = normal(rng, pick(rng, ((), (1,), (3,), (2,), (0,), (1, 1), (3, 1), shape[1:2] or (1,))))
    return [x, weight], lambda T, x, w: T.nn.functional.prelu(x, w), (shape, weight.shape)


def pad(rng: np.random.Generator) -> tuple:
    """Circular, widths up to the size and below 0."""
    rank = int(rng.integers(2, 6))
    shape = [int(rng.integers(1, 5)) for _ in range(rank)]
    count = pick(rng, [k for k in (1, 2, 3) if k in (rank - 1, rank - 2)] or [1])
    widths: list[int] = []
    for size in shape[::-1][:count]:
        pair = [int(v) for v in rng.integers(-2, size + 1, 2)]
        kept = size + min(pair[0], 0) + min(pair[1], 0)
        widths += (
            pair if kept >= max(*pair, 1) else [max(pair[0], 0), max(pair[1], 0)]
        )  # else PyTorch reads what it never wrote
    return [normal(rng, shape)], lambda T, x: T.nn.functional.pad(x, widths, "circular"), (shape, widths)


def index_put(rng: np.random.Generator) -> tuple:
    """Repeated, negative and broadcast indices, masks; with accumulation, in place and not."""
    shape = pick(rng, [s for s in SHAPES if s])
    dtype = pick(rng, ("float32", "float64", "int64"))
    lead = pick(rng, ((3,), (2, 2), (), (1,), (0,), (5,)))
    if rng.random() < 0.2:
        indices = [rng.random(shape[: rng.integers(1, len(shape) + 1)]) < 0.5]
    else:
        sizes = ([s for s in shape if s] or [1]) if 0 in lead else shape
        indices = [
            np.asarray(rng.integers(-s, s, lead)) if s else np.zeros(0, np.int64)
            for s in sizes[: rng.integers(1, len(sizes) + 1)]
        ]
    flat = np.arange(int(np.prod(shape))).reshape(shape)
    try:
        place = flat[tuple(indices)]
    except IndexError:
        place = np.zeros(1)
    accumulate = (
        bool(rng.random() < 0.7) or len(np.unique(place)) != place.size
    )  # the last of several writers is anyone
    values = normal(rng, pick(rng, (place.shape, place.shape, (), place.shape[-1:])), dtype)
    inside = bool(rng.random() < 0.5)

    def call(T: Any, x: Any, v: Any) -> Any:
        where = tuple(T.tensor(i) for i in indices)
        return (
            (x * 1).index_put_(where, v, accumulate=accumulate)
            if inside
            else T.index_put(x, where, v, accumulate=accumulate)
        )

    return (
        [normal(rng, shape, dtype), values],
        call,
        (shape, [i.shape for i in indices], values.shape, accumulate, inside, dtype),
    )


def norm(rng: np.random.Generator) -> tuple:
    """Every order, dimension and dtype."""
    shape = pick(rng, SHAPES)
    p, dim = (
        pick(rng, (2, 1, 0, INF, -INF, 3, 0.5, -1, -2.5, "fro", None)),
        pick(rng, (None, 0, -1, 1, (0, 1), (0,), (-1, -2), [0])),
    )
    keep = bool(rng.random() < 0.5)
    wide = {"dtype": "float64"} if rng.random() < 0.1 else {}
    return ([normal(rng, shape)], lambda T, x: T.norm(x, p, dim, keep, **{k: getattr(T, v) for k, v in wide.items()}),
            (shape, p, dim, keep, wide))  # fmt: skip


def bernoulli(rng: np.random.Generator) -> tuple:
    """Whether it is refused, and whether the result requires grad; of the numbers only those that are certain."""
    x = rng.integers(0, 2, pick(rng, SHAPES)).astype(pick(rng, ("float32", "float64", "int64")))
    if x.size and rng.random() < 0.3:
        x.flat[0] = pick(rng, (2, -1))
    p = pick(rng, (None, None, 0.0, 1.0, 1.5, -0.5))
    return [x], lambda T, x: T.bernoulli(x) if p is None else T.bernoulli(x, p), (x.shape, x.dtype, p)


FAMILIES: dict[str, Callable] = {
    f.__name__: f for f in (batch_norm, conv_transpose, cross_entropy, prelu, pad, index_put, norm, bernoulli)
}


def outcome(T: Any, arrays: list, call: Callable) -> Any:
    """Results, whether they require grad, and gradients; None for what is refused."""
    xs = [T.tensor(a) for a in arrays]
    for x, a in zip(xs, arrays, strict=True):
        if a.dtype.kind == "f":
            x.requires_grad_()
    try:
        made = call(T, *xs)
    except (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError):
        return None
    ys = made if isinstance(made, tuple) else (made,)
    found = [np.asarray(y.detach().numpy()) for y in ys]
    flags = [bool(y.requires_grad) for y in ys]
    if flags[0] and "bernoulli" not in getattr(call, "__qualname__", ""):
        g = np.asarray(np.random.default_rng(5).normal(size=found[0].shape)).astype(found[0].dtype)
        ys[0].backward(T.tensor(g))
        found += [
            np.zeros(a.shape) if x.grad is None else np.asarray(x.grad.numpy()) for x, a in zip(xs, arrays, strict=True)
        ]
    return found, flags


def difference(family: str, seed: int) -> str | None:
    """What differs from PyTorch for the arguments of this seed."""
    import torch

    arrays, call, told = FAMILIES[family](np.random.default_rng([seed, *family.encode()]))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        mine, theirs = outcome(fn, arrays, call), outcome(torch, arrays, call)
    told = f"{family} {seed}: {told}"
    if mine is None or theirs is None:
        return None if mine is theirs else f"{told}: {'refused' if mine is None else 'not refused'}"
    if mine[1] != theirs[1]:
        return f"{told}: requires_grad {mine[1]}, expected {theirs[1]}"
    for k, (a, b) in enumerate(zip(mine[0], theirs[0], strict=True)):
        if a.shape != b.shape or (k == 0 and a.dtype != b.dtype):
            return f"{told}: result {k} is {a.dtype}{a.shape}, expected {b.dtype}{b.shape}"
        scale = 1e-3 * (1 + np.nanmax(np.abs(b[np.isfinite(b)]), initial=0))
        if not np.allclose(a, b, 1e-3, min(scale, 0.05), equal_nan=True):
            return f"{told}: result {k} is {a.ravel()[:6]}, expected {b.ravel()[:6]}"
    return None


def main() -> None:
    """Try every family and print what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--family", choices=list(FAMILIES))
    options = parser.parse_args()
    for family in [options.family] if options.family else FAMILIES:
        found = [d for seed in range(options.count) if (d := difference(family, seed)) is not None]
        print(f"{family}: {len(found)} of {options.count} differ", *found[:10], sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
