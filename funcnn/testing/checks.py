"""What every operation has to pass, as functions that assert: gradients, batching, jit, memory.

``fn`` takes tensors and gives tensors; ``arrays`` are where it is looked at; ``what`` names it in failures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from funcnn.core.errors import GradientError
from funcnn.kernels.cpu.threads.number import available
from funcnn.testing import engine as e
from funcnn.transforms.grad import vjp
from funcnn.transforms.jit import jit
from funcnn.transforms.vmap import vmap

BATCH = 3
Arrays = list[np.ndarray]
Slots = Sequence[int] | None


def value_and_gradient(fn: Callable, arrays: Arrays, grad: bool, slots: Slots = None) -> Arrays:
    """The values, and the vjp of random cotangents."""
    values = e.numbers(fn(*e.boxes(arrays)))
    if not grad:
        return values
    f, floats = e.differentiable(fn, arrays, slots)
    return values + e.pulled(f, floats, e.cotangents(f, floats))


# ---- memory -----------------------------------------------------------------------------------------------------------
def filled_completely(fn: Callable, arrays: Arrays, what: str, grad: bool, slots: Slots = None) -> None:
    """What memory held before does not show in the results."""
    clean = value_and_gradient(fn, arrays, grad, slots)
    with e.in_dirty_memory():
        e.close(value_and_gradient(fn, arrays, grad, slots), clean, f"{what} in dirty memory", 0, 0)


def any_layout(fn: Callable, arrays: Arrays, what: str, grad: bool, slots: Slots = None) -> None:
    """How inputs lie in memory does not show in the results."""
    expected = value_and_gradient(fn, arrays, grad, slots)
    for variants in zip(*[(list(e.layouts(array)) * 4)[:4] for array in arrays], strict=True):
        got = value_and_gradient(fn, list(variants), grad, slots)
        e.close(got, expected, f"{what} in another layout", 1e-12, 1e-12)


def inside_its_arrays(fn: Callable, arrays: Arrays, what: str, grad: bool, slots: Slots = None) -> None:
    """No kernel reads or writes beside its arrays."""
    with e.between_bands():  # first: without them a kernel that goes outside may end the process
        got = value_and_gradient(fn, arrays, grad, slots)
    e.close(value_and_gradient(fn, arrays, grad, slots), got, f"{what} between guard bands", 0, 0)


def any_threads(fn: Callable, arrays: Arrays, what: str, grad: bool, slots: Slots = None) -> None:
    """The results are bit for bit the same on one thread and on all."""
    with e.on_threads(1):
        expected = value_and_gradient(fn, arrays, grad, slots)
    with e.on_threads(available()):
        e.close(value_and_gradient(fn, arrays, grad, slots), expected, f"{what} on {available()} threads", 0, 0)


# ---- gradients --------------------------------------------------------------------------------------------------------
def gradient(fn: Callable, arrays: Arrays, what: str, slots: Slots = None) -> None:
    """The vjp is the slope of central differences, in float64."""
    f, floats = e.differentiable(fn, arrays, slots)
    assert floats, f"{what}: no floating input, yet a gradient is declared"
    weights = e.cotangents(f, floats)
    e.check_slopes(e.weighted(f, weights), floats, e.pulled(f, floats, weights), what)


def gradient_keeps_float32(fn: Callable, arrays: Arrays, what: str, slots: Slots = None) -> None:
    """Gradients in float32 are float32 and close to those in float64. arrays: in float32."""
    f, floats = e.differentiable(fn, arrays, slots)
    got = e.pulled(f, floats, e.cotangents(f, floats))
    assert all(g.dtype == x.dtype for g, x in zip(got, floats, strict=True)), [str(g.dtype) for g in got]
    f, floats = e.differentiable(fn, [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays], slots)
    e.close(got, e.pulled(f, floats, e.cotangents(f, floats)), f"gradient of {what} in float32", 1e-3, 1e-3)


def second_order(fn: Callable, arrays: Arrays, what: str, second: bool | None = True, slots: Slots = None) -> None:
    """The second derivative is the slope of the first; where there is none (False; None: perhaps) it is refused."""
    f, floats = e.differentiable(fn, arrays, slots)
    scalar, at = e.second_order(f, floats)
    try:
        found = e.numbers(vjp(scalar, *e.boxes(at))[1](e.boxes([np.ones(())])[0]))
    except GradientError:
        if second:
            raise
        return
    assert second is not False, f"{what}: a second derivative came where none is declared"
    e.check_slopes(scalar, at, found, f"{what}, second order")


def backward_is_vjp(fn: Callable, arrays: Arrays, what: str, slots: Slots = None) -> None:
    """``backward()`` accumulates what ``vjp`` gives."""
    f, floats = e.differentiable(fn, arrays, slots)
    weights = e.cotangents(f, floats)
    leaves = [t.requires_grad_() for t in e.boxes([x.copy() for x in floats])]
    e.weighted(f, weights)(*leaves).backward()
    got = [np.zeros_like(leaf._v) if leaf.grad is None else leaf.grad._v for leaf in leaves]
    e.close(got, e.pulled(f, floats, weights), f"backward of {what}", 1e-12, 1e-12)


# ---- batching ---------------------------------------------------------------------------------------------------------
def subsets(n: int) -> list[tuple[int, ...]]:
    """The nonempty subsets of n inputs; for many inputs only single ones, pairs of neighbours, and all."""
    if n > 3:
        return [*[(i,) for i in range(n)], *[(i, i + 1) for i in range(n - 1)], tuple(range(n))]
    return [subset for size in range(1, n + 1) for subset in combinations(range(n), size)]


def _looped(f: Callable, draws: list[Arrays], subset: tuple[int, ...]) -> Arrays:
    runs = [
        e.numbers(f(*e.boxes([draw[i if k in subset else 0] for k, draw in enumerate(draws)]))) for i in range(BATCH)
    ]
    return [np.stack(column) for column in zip(*runs, strict=True)]


def _mapped(f: Callable, draws: list[Arrays], subset: tuple[int, ...]) -> Arrays:
    args = [np.stack(draw) if k in subset else draw[0] for k, draw in enumerate(draws)]
    axes = tuple(0 if k in subset else None for k in range(len(draws)))
    return e.numbers(vmap(f, in_axes=axes)(*e.boxes(args)))


def vmap_is_a_loop(fn: Callable, draws: list[Arrays], what: str) -> None:
    """A batch of any inputs is what a loop over its examples gives. draws: ``BATCH`` of each input."""
    for subset in subsets(len(draws)):
        expected = _looped(fn, draws, subset)
        e.close(_mapped(fn, draws, subset), expected, f"vmap of {what} over inputs {subset}", 1e-10, 1e-10)


def vmap_over_other_axes(fn: Callable, draws: list[Arrays], what: str) -> None:
    """The batch may be the last axis."""
    args = [np.stack(draw, axis=-1) for draw in draws]
    got = e.numbers(vmap(fn, in_axes=-1, out_axes=-1)(*e.boxes(args)))
    expected = [np.moveaxis(out, 0, -1) for out in _looped(fn, draws, tuple(range(len(draws))))]
    e.close(got, expected, f"vmap of {what} over the last axes", 1e-10, 1e-10)


def vmap_of_gradients(fn: Callable, draws: list[Arrays], what: str, slots: Slots = None) -> None:
    """Per-example gradients (all inputs batched), and a batch of cotangents at one point (a Jacobian)."""
    arrays, primals = [draw[0] for draw in draws], len(draws)
    f, floats = e.differentiable(fn, arrays, slots)
    weights = e.cotangents(f, floats)
    chosen = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"] if slots is None else slots
    whole = [*draws, *[[w, 2.0 * w + 1.0, w[..., ::-1] if w.ndim else -w] for w in weights]]

    def pull(*args: Any) -> tuple:
        def of_floats(*xs: Any) -> tuple:
            full = list(args[:primals])
            for slot, x in zip(chosen, xs, strict=True):
                full[slot] = x
            return tuple(t for t in e.outputs(fn(*full)) if t.dtype.kind == "f")

        return vjp(of_floats, *[args[slot] for slot in chosen])[1](tuple(args[primals:]))

    for subset in (tuple(range(len(whole))), tuple(range(primals, len(whole)))):
        expected = _looped(pull, whole, subset)
        e.close(_mapped(pull, whole, subset), expected, f"vmap of the vjp of {what} over {subset}", 1e-9, 1e-9)


def vmap_is_not_unrolled(fn: Callable, draws: list[Arrays], what: str, grad: bool) -> None:
    """The program, of the value and of the gradients, is as long for three examples as for two."""
    f, floats = e.differentiable(fn, [draw[0] for draw in draws])
    runs = [fn]
    if grad and len(floats) == len(draws):
        runs.append(lambda *xs: vjp(f, *xs)[1](f(*xs)))  # at one more point: the value as the cotangent
    for function in runs:
        for subset in subsets(len(draws)):
            axes = tuple(0 if k in subset else None for k in range(len(draws)))
            lengths = []
            for n in (2, 3):
                args = [np.stack(draw[:n]) if k in subset else draw[0] for k, draw in enumerate(draws)]
                lengths.append(jit(vmap(function, in_axes=axes)).program(*e.boxes(args)).count("\n"))
            assert lengths[0] == lengths[1], f"{what} over inputs {subset}: {lengths} equations for 2 and 3 examples"


# ---- jit --------------------------------------------------------------------------------------------------------------
def jit_is_eager(fn: Callable, several: list[Arrays], what: str, tolerance: float) -> None:
    """A compiled function gives at each of ``several`` inputs what eager code does."""
    compiled = jit(fn)
    for arrays in several:
        got, expected = e.numbers(compiled(*e.boxes(arrays))), e.numbers(fn(*e.boxes(arrays)))
        assert [out.dtype for out in got] == [out.dtype for out in expected]
        e.close(got, expected, f"jit of {what}", tolerance, tolerance)


def jit_of_gradients(fn: Callable, arrays: Arrays, what: str, slots: Slots = None) -> None:
    """So do compiled gradients."""
    f, floats = e.differentiable(fn, arrays, slots)
    weights = e.cotangents(f, floats)
    compiled = jit(lambda xs, ws: vjp(f, *xs)[1](ws))
    for scale in (1.0, 1.0, -0.5):
        scaled = [scale * w for w in weights]
        got = e.numbers(compiled(tuple(e.boxes(floats)), tuple(e.boxes(scaled))))
        e.close(got, e.pulled(f, floats, scaled), f"jit of the vjp of {what}", 1e-10, 1e-10)
