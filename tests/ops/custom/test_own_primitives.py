"""Operations that users make of their own kernels: what the kernel gets, derivatives, batches, layers, plans and costs."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numba import njit

import funcnn as fn
from funcnn.core import evaluation
from funcnn.kernels import device_function, kernel, parallel_for, plan_text, pointer
from tests.plain import compiled_only

CHUNK = 4


# ---- kernels --------------------------------------------------------------------------------------------------------
@kernel
def swish_forward(x, beta, y):
    """y = x sigmoid(beta x), elementwise."""
    a, b = pointer(x, 0), pointer(y, 0)
    for i in range(x.size):
        b[i] = a[i] / (1 + np.exp(-beta * a[i]))


@kernel
def swish_backward(dy, x, beta, dx):
    """dx, elementwise."""
    a, b, c = pointer(x, 0), pointer(dy, 0), pointer(dx, 0)
    for i in range(x.size):
        s = 1 / (1 + np.exp(-beta * a[i]))
        c[i] = b[i] * (s + beta * a[i] * s * (1 - s))


@njit
def scale_forward(x, w, y, positive):
    """y = x * w for each row, and how many of its numbers are above 0."""
    for r in range(x.shape[0]):
        count = 0
        for j in range(x.shape[1]):
            y[r, j] = x[r, j] * w[j]
            count += x[r, j] > 0
        positive[r] = count


@njit
def scale_backward(dy, x, w, dx, dw):
    """Both gradients; dw begins with zeros."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            dx[r, j] = dy[r, j] * w[j]
            dw[j] += dy[r, j] * x[r, j]


@device_function
def _sorted_row(chunk, worker, x, y, room):
    """Rows CHUNK at a time, each sorted in the worker's own scratch."""
    n = x.shape[1]
    for r in range(chunk * CHUNK, min((chunk + 1) * CHUNK, x.shape[0])):
        row = room[worker * n : (worker + 1) * n]
        for i in range(n):
            row[i] = x[r, i]
        for i in range(1, n):
            value, j = row[i], i
            while j > 0 and row[j - 1] > value:
                row[j] = row[j - 1]
                j -= 1
            row[j] = value
        for i in range(n):
            y[r, i] = row[i]


@kernel
def sorted_forward(x, y, room, workers):
    """y = the rows of x, each sorted."""
    parallel_for(_sorted_row, (x.shape[0] + CHUNK - 1) // CHUNK, workers, (x, y, room))


@kernel
def histogram_forward(x, counts, seen, bins):
    """How many numbers of x in [0, 1) are in each of the bins; seen: scratch that begins with zeros."""
    for i in range(x.size):
        seen[min(bins - 1, max(0, int(x[i] * bins)))] += 1
    for b in range(bins):
        counts[b] = seen[b]


@kernel
def lion_update(p, m, g, lr, beta1, beta2):
    """Lion (arXiv:2302.06675)."""
    a, b, c = pointer(p, 0), pointer(m, 0), pointer(g, 0)
    for i in range(p.size):
        a[i] -= lr * np.sign(beta1 * b[i] + (1 - beta1) * c[i])
        b[i] = beta2 * b[i] + (1 - beta2) * c[i]


swish = fn.primitive(
    "swish", swish_forward, {"y": "x"}, backward=swish_backward, params={"beta": 1.0}, fold=("x",), flops=20
)
scaled = fn.primitive("scaled", scale_forward, {"y": "x", "positive": lambda x: (x.shape[0], "int64")},
                      backward=scale_backward, zeros=("dw",))  # fmt: skip
sort_rows = fn.primitive(
    "sort_rows", sorted_forward, {"y": "x"}, worker_scratch={"room": lambda x: (x.shape[1], x.dtype)}
)
histogram = fn.primitive("histogram", histogram_forward, {"counts": lambda bins: ((bins,), np.int64)}, params={"bins": ...},
                         scratch={"seen": lambda bins: (bins, "int64")}, zeros=("seen",))  # fmt: skip
lion = fn.primitive("lion", lion_update, overwrites=("p", "m"), params={"lr": 1e-3, "beta1": 0.9, "beta2": 0.99})
swish_grad = fn.primitive("swish_slope", swish_backward, {"dx": "x"}, params={"beta": 1.0},
                          backward=lambda ddx, dy, x, beta: (ddx * slope(x, beta), ddx * dy * bend(x, beta)))  # fmt: skip
twice = fn.primitive("swish_twice", swish_forward, {"y": "x"}, backward=swish_grad, params={"beta": 1.0})
cube = fn.primitive("cube_of", lambda x, y: np.power(x, 3, out=y), {"y": "x"}, backward=lambda dy, x: 3 * x * x * dy)


def slope(x: Any, beta: float) -> Any:
    """The derivative of swish."""
    s = fn.sigmoid(beta * x)
    return s + beta * x * s * (1 - s)


def bend(x: Any, beta: float) -> Any:
    """Its second derivative."""
    s = fn.sigmoid(beta * x)
    return beta * s * (1 - s) * (2 + beta * x * (1 - 2 * s))


def normal(*shape: int) -> np.ndarray:
    """Fixed numbers."""
    return np.random.default_rng(sum(shape)).normal(size=shape)


# ---- all checks -----------------------------------------------------------------------------------------------------
def np_swish(x: np.ndarray, beta: float = 1.0) -> np.ndarray:
    return x / (1 + np.exp(-beta * x))


def np_lion(p: np.ndarray, m: np.ndarray, g: np.ndarray, lr: float, beta1: float, beta2: float) -> tuple:
    return p - lr * np.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g


CHECKED = {
    "swish": (swish, [(normal(3, 4),), (normal(2), {"beta": 2.0}), (normal(1),)], np_swish),
    "scaled": (scaled, [(normal(3, 4), normal(4))], lambda x, w: (x * w, (x > 0).sum(1))),
    "sort_rows": (sort_rows, [(normal(9, 5),)], lambda x: np.sort(x, 1)),
    "histogram": (histogram, [(np.abs(normal(9)) % 1, {"bins": 4})], lambda x, bins: np.histogram(x, bins, (0, 1))[0]),
    "lion": (lion, [(normal(5), normal(2, 3)[0, [0, 1, 2, 0, 1]], normal(6)[:5], {"lr": 0.1, "beta1": 0.9, "beta2": 0.5})], np_lion),
    "twice": (twice, [(normal(2, 3), {"beta": 1.5})], np_swish),
    "cube": (cube, [(normal(2, 3),)], lambda x: x**3),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.filterwarnings("ignore:vmap")
def test_every_check_holds(name: str) -> None:
    prim, examples, reference = CHECKED[name]
    done = fn.testing.check_primitive(prim, *examples, reference=reference)
    expected = {"values", "dirty memory", "layouts", "guard bands", "threads", "vmap", "jit"}
    if prim.primitive.vjp is not None:
        expected |= {
            "gradient",
            "float32 gradient",
            "second order",
            "backward",
            "vmap of gradients",
            "jit of gradients",
        }
    if prim.primitive.overwrites:
        expected |= {"in place"}
    assert set(done) == expected


def test_a_second_derivative_is_given_where_one_is_declared() -> None:
    x = fn.tensor(normal(3))
    second = fn.grad(lambda x: fn.grad(lambda x: twice(x).sum())(x).sum())(x)
    np.testing.assert_allclose(second.numpy(), bend(x, 1.0).numpy(), 1e-12)
    with pytest.raises(fn.GradientError, match="swish_grad has no derivative"):
        fn.grad(lambda x: fn.grad(lambda x: swish(x).sum())(x).sum())(x)


# ---- batches --------------------------------------------------------------------------------------------------------
def plan_of(prim: Any, *ins: np.ndarray, **params: Any) -> Any:
    """The launch plan of an application."""
    return evaluation.planned(prim.primitive, list(ins), {**prim.defaults, **params}).plan


def test_a_batch_is_more_rows_or_launches_in_one_plan() -> None:
    x, w = fn.tensor(normal(5, 3, 4)), fn.tensor(normal(4))
    folded = fn.jit(fn.vmap(swish)).program(x)
    assert "lead" not in folded and "swish(" in folded
    text = fn.jit(fn.vmap(scaled, in_axes=(0, None))).program(x, w)
    assert text.count("scaled(") == 1 and "lead=(5, (True, False))" in text
    plan = plan_of(scaled, x.numpy(), w.numpy(), lead=(5, (True, False)))
    assert [launch.times for launch in plan.launches] == [5]
    nested = fn.vmap(fn.vmap(scaled, in_axes=(0, None)), in_axes=(None, 0))
    several = fn.tensor(normal(2, 4))
    np.testing.assert_array_equal(nested(x, several)[0].numpy(), x.numpy()[None] * several.numpy()[:, None, None])
    assert fn.vmap(scaled, in_axes=(0, None))(x[:0], w)[0].shape == (0, 3, 4)


def test_gradients_of_what_all_examples_share_are_summed() -> None:
    x, w = fn.tensor(normal(5, 3, 4)), fn.tensor(normal(4))
    loss = lambda w: (fn.vmap(lambda x: scaled(x, w)[0])(x) ** 2).sum()
    plain = lambda w: ((x * w) ** 2).sum()
    np.testing.assert_allclose(fn.grad(loss)(w).numpy(), fn.grad(plain)(w).numpy(), 1e-12)


# ---- plans, profiler --------------------------------------------------------------------------------------------------
def test_a_users_kernel_is_a_launch_like_ours() -> None:
    x = normal(3, 4)
    for prim, ins, params in ((swish, [x], {}), (scaled, [x, x[0]], {}), (sort_rows, [x], {}), (histogram, [x[0]], {"bins": 2}),
                              (lion, [x, x + 1, x], {})):  # fmt: skip
        plan = plan_of(prim, *ins, **params)
        assert len(plan.launches) == 1
        again = plan_text.read(plan_text.text(plan))
        assert again == plan and pickle.loads(pickle.dumps(plan)) == plan
    assert plan_of(swish, x).cost.flops == 20 * x.size
    assert plan_of(lion, x, x + 1, x).outputs[0].shares == (0,)
    with fn.prefer("kernel"):
        swish(fn.tensor(x))


def test_the_profiler_shows_the_operation_and_its_kernel() -> None:
    x = fn.tensor(normal(3, 4))
    with fn.profiler.profile() as prof:
        swish(x)
        fn.vmap(scaled, in_axes=(0, None))(fn.tensor(normal(5, 3, 4)), fn.tensor(normal(4)))
    events = {(event.kind, event.name): event for event in prof.events}
    assert events["operation", "swish"].flops == 20 * 12
    assert ("kernel", "swish_forward") in events and ("kernel", "scale_forward") in events


@compiled_only
def test_a_kernel_of_numbas_is_compiled_once_and_cached() -> None:
    from funcnn.kernels.cpu.build.declared import adopt

    made = adopt(scale_forward)
    scaled(fn.tensor(normal(3, 4)), fn.tensor(normal(4)))
    assert made is adopt(scale_forward) and made.options["fastmath"] is False
    assert type(made.compiled._cache).__name__ == "KernelCache"
