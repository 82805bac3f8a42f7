"""What checks of operations are made of: running one, its gradients, finite differences, comparisons, other memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from funcnn.core import in_place, primitive, tree
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.build import check
from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.threads import number
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import vjp

STEP = 1e-5  # of central differences in float64: truncation and rounding errors are both near 1e-10


def boxes(arrays: Any) -> list[Tensor]:
    """Fresh tensors on these arrays."""
    return [as_tensor(array) for array in arrays]


def outputs(result: Any) -> list[Tensor]:
    """The tensors among what a function returned."""
    return [leaf for leaf in tree.leaves(result) if isinstance(leaf, Tensor)]


def numbers(result: Any) -> list[np.ndarray]:
    """The arrays in a result of tensors."""
    return [t._v for t in outputs(result)]


def close(got: Any, expected: Any, what: str, rtol: float, atol: float) -> None:
    """Assert that two lists of arrays agree in number, shape and value (NaN equals NaN)."""
    assert len(got) == len(expected), f"{what}: {len(got)} results, expected {len(expected)}"
    for position, (one, two) in enumerate(zip(got, expected, strict=True)):
        one, two = np.asarray(one), np.asarray(two)
        assert one.shape == two.shape, f"{what}, output {position}: shape {one.shape}, expected {two.shape}"
        np.testing.assert_allclose(one, two, rtol, atol, err_msg=f"{what}, output {position}")


# ---- derivatives ------------------------------------------------------------------------------------------------------
def differentiable(fn: Callable, arrays: list[np.ndarray], slots: Sequence[int] | None = None) -> tuple[Callable, list]:
    """``fn`` as a function of its floating inputs (or of ``slots``), giving its floating outputs; and these inputs."""
    chosen = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"] if slots is None else list(slots)

    def f(*floats: Tensor) -> tuple:
        full: list = boxes(arrays)
        for slot, x in zip(chosen, floats, strict=True):
            full[slot] = x
        return tuple(t for t in outputs(fn(*full)) if t.dtype.kind == "f")

    return f, [arrays[slot] for slot in chosen]


def cotangents(f: Callable, floats: list[np.ndarray], seed: int = 7) -> list[np.ndarray]:
    """A random cotangent for each output of ``f``."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(out.shape).astype(out.dtype) for out in numbers(f(*boxes(floats)))]


def pulled(f: Callable, floats: list[np.ndarray], weights: list[np.ndarray]) -> list[np.ndarray]:
    """The vjp of ``f`` at these arrays."""
    return numbers(vjp(f, *boxes(floats))[1](tuple(boxes(weights))))


def weighted(f: Callable, weights: list[np.ndarray]) -> Callable:
    """The scalar ``<weights, f(...)>`` as a function of tensors."""

    def scalar(*args: Tensor) -> Tensor:
        terms = [sum_(mul(out, as_tensor(w))) for out, w in zip(outputs(f(*args)), weights, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = add(total, term)
        return total

    return scalar


def check_slopes(
    scalar: Callable, at: list[np.ndarray], gradient: list[np.ndarray], what: str, rtol: float = 1e-6
) -> None:
    """Assert that ``<gradient, d>`` is the central difference of ``scalar`` along a random ``d`` of each argument."""
    rng = np.random.default_rng(11)
    for k, (x, g) in enumerate(zip(at, gradient, strict=True)):
        assert g.shape == x.shape and g.dtype == x.dtype, (
            f"{what}, argument {k}: gradient {g.dtype}{g.shape} for {x.shape}"
        )
        d = rng.standard_normal(x.shape).astype(x.dtype)  # a cotangent keeps its output's dtype
        ends = [scalar(*boxes([*at[:k], x + side * STEP * d, *at[k + 1 :]]))._v.item() for side in (1.0, -1.0)]
        slope, scale = (ends[0] - ends[1]) / (2 * STEP), 1.0 + abs(ends[0])
        got = np.sum(g * d)
        assert abs(got - slope) <= rtol * (scale + abs(slope)), f"{what}, argument {k}: vjp {got}, difference {slope}"


def second_order(f: Callable, floats: list[np.ndarray]) -> tuple[Callable, list[np.ndarray]]:
    """The scalar ``<w, vjp(x, g)>`` with random ``w``, as a function of all of x and g; and where to take it."""
    weights = cotangents(f, floats)
    rng = np.random.default_rng(13)
    probes = [rng.standard_normal(x.shape) for x in floats]

    def pull(*args: Tensor) -> tuple:
        return vjp(f, *args[: len(floats)])[1](tuple(args[len(floats) :]))

    return weighted(pull, probes), [*floats, *weights]


# ---- memory -----------------------------------------------------------------------------------------------------------
def layouts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The same numbers in other memory: read-only, every second element, Fortran order, walked backwards."""
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
    if array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        yield wide[..., ::2]
        yield np.asfortranarray(array)
        yield np.ascontiguousarray(array[::-1])[::-1]


def dirty(shape: Any, dtype: Any) -> np.ndarray:
    """New memory full of NaN, of the largest integer, or of True."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max, dtype)


@contextmanager
def in_dirty_memory() -> Iterator[None]:
    """Inside, the memory of outputs and of scratch holds garbage at the start."""
    places = [(primitive, "empty"), (primitive, "fresh"), (in_place, "empty"), (memory, "empty"), (memory, "fresh")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, dirty)
        yield
    finally:
        for (module, name), function in zip(places, before, strict=True):
            setattr(module, name, function)


@contextmanager
def between_bands() -> Iterator[None]:
    """Inside, every kernel works on copies between bands that show what it touches outside its arrays (``build/check.py``)."""
    key = object()
    try:
        compiling.around[key] = check.around
        yield
    finally:
        compiling.around.pop(key, None)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Inside, kernels run on so many threads, however little they have to do."""
    before, least = number._chosen, number.NANOSECONDS_FOR_THREADS
    try:
        number.NANOSECONDS_FOR_THREADS = 0
        number.set_num_threads(count)
        yield
    finally:
        number._chosen, number.NANOSECONDS_FOR_THREADS = before, least
