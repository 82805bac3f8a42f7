"""``grad``, ``vmap`` and ``jit`` inside one another: every order of depth three, closures, escapes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core import tree
from funcnn.core.errors import GradientError, TracerError
from funcnn.core.tensor import Tensor
from funcnn.ops.elementwise import math
from funcnn.ops.matmul import matmul
from funcnn.ops.reduce import sums as reduce
from funcnn.ops.tensor.creation import as_tensor, zeros_like
from funcnn.transforms.grad import grad, value_and_grad, vjp
from funcnn.transforms.jit import jit
from funcnn.transforms.vmap import vmap

W = np.array([0.5, -1.0, 2.0])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# Scalar functions, written once for funcnn and torch (``n`` is the namespace, ``w`` the vector W), and what they and
# their first three derivatives are.
FUNCTIONS: dict[str, tuple[Callable, list[Callable]]] = {
    "sin": (lambda n, x, w: n.sin(x), [np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)]),
    "power": (lambda n, x, w: x**4, [lambda x: x**4, lambda x: 4 * x**3, lambda x: 12 * x**2, lambda x: 24 * x]),
    "bell": (
        lambda n, x, w: n.exp(-x * x),
        [
            lambda x: np.exp(-x * x),
            lambda x: -2 * x * np.exp(-x * x),
            lambda x: (4 * x**2 - 2) * np.exp(-x * x),
            lambda x: (12 * x - 8 * x**3) * np.exp(-x * x),
        ],
    ),
    "reciprocal": (
        lambda n, x, w: 2.0 / x,
        [lambda x: 2 / x, lambda x: -2 / x**2, lambda x: 4 / x**3, lambda x: -12 / x**4],
    ),
    "x log x": (
        lambda n, x, w: x * n.log(x),
        [lambda x: x * np.log(x), lambda x: np.log(x) + 1, lambda x: 1 / x, lambda x: -1 / x**2],
    ),
    "broadcast and sum": (
        lambda n, x, w: n.sum(n.sin(w * x), 0),
        [
            lambda x: np.sin(np.multiply.outer(x, W)).sum(-1),
            lambda x: (W * np.cos(np.multiply.outer(x, W))).sum(-1),
            lambda x: (-(W**2) * np.sin(np.multiply.outer(x, W))).sum(-1),
            lambda x: (-(W**3) * np.cos(np.multiply.outer(x, W))).sum(-1),
        ],
    ),
    "choice": (
        lambda n, x, w: n.where(x > 1.0, x * x * x, x * x),
        [
            lambda x: np.where(x > 1, x**3, x**2),
            lambda x: np.where(x > 1, 3 * x**2, 2 * x),
            lambda x: np.where(x > 1, 6 * x, 2.0),
            lambda x: np.where(x > 1, 6.0, 0.0),
        ],
    ),
    "product of vectors": (
        lambda n, x, w: n.matmul(w * x, w * (x * x)),
        [lambda x: W @ W * x**3, lambda x: W @ W * 3 * x**2, lambda x: W @ W * 6 * x, lambda x: W @ W * 6 + 0 * x],
    ),
    "logsumexp": (
        lambda n, x, w: n.logsumexp(n.stack([x, 2.0 * x]), 0),
        [
            lambda x: x + np.log1p(np.exp(x)),
            lambda x: 1 + _sigmoid(x),
            lambda x: _sigmoid(x) * _sigmoid(-x),
            lambda x: _sigmoid(x) * _sigmoid(-x) * (1 - 2 * _sigmoid(x)),
        ],
    ),
    "joined and multiplied": (
        lambda n, x, w: n.prod(n.cat([n.stack([x * x, x]), n.stack([x, x + 0.0 * x])]), 0),
        [lambda x: x**5, lambda x: 5 * x**4, lambda x: 20 * x**3, lambda x: 60 * x**2],
    ),
}
ORDERS = ["-".join(order) for order in product(("grad", "vmap", "jit"), repeat=3)]


def compose(f: Callable, order: str, transforms: dict[str, Callable]) -> Callable:
    """``f`` under the transformations named, the last one innermost."""
    for name in reversed(order.split("-")):
        f = transforms[name](f)
    return f


def _points(order: str, seed: int) -> np.ndarray:
    """Inputs with one axis for each vmap, away from the kink at 1."""
    sizes = tuple(range(2, 2 + order.count("vmap")))
    x = np.random.default_rng(seed).uniform(0.4, 1.6, sizes)
    return np.where(np.abs(x - 1) < 0.05, 0.7, x)


OURS = {"grad": lambda f: grad(lambda x: reduce.sum(f(x))), "vmap": vmap, "jit": jit}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_nesting_against_closed_forms(order: str, name: str) -> None:
    f, derivatives = FUNCTIONS[name]
    w = as_tensor(W)
    nested = compose(lambda x: f(fn, x, w), order, OURS)
    for seed in (0, 0, 1):  # a compiled function meets the second call, and other numbers
        x = _points(order, seed)
        got = nested(as_tensor(x))
        assert isinstance(got._v, np.ndarray) and got.dtype == np.float64
        np.testing.assert_allclose(got._v, derivatives[order.count("grad")](x), 1e-11, 1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_nesting_against_torch(order: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    f, _ = FUNCTIONS[name]
    theirs = {
        "grad": lambda f: torch.func.grad(lambda x: f(x).sum()),
        "vmap": torch.func.vmap,
        "jit": lambda f: f,
    }
    x, w = _points(order, 2), W
    expected = compose(lambda x: f(torch, x, torch.from_numpy(w)), order, theirs)(torch.from_numpy(x))
    got = compose(lambda x: f(fn, x, as_tensor(w)), order, OURS)(as_tensor(x))
    np.testing.assert_allclose(got._v, expected.numpy(), 1e-11, 1e-12)


# ---- closures and perturbation confusion ----------------------------------------------------------------------
def _t(*values: float) -> Tensor:
    return as_tensor(np.array(values, "float64"))


def _scalar(value: float) -> Tensor:
    return as_tensor(np.array(value, "float64"))


def test_perturbations_are_not_confused() -> None:
    """Siskind and Pearlmutter, Perturbation Confusion and Referential Transparency (IFL 2005), section 2."""
    assert grad(lambda x: x * grad(lambda y: x + y)(_scalar(1.0)))(_scalar(1.0))._v == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(_scalar(2.0)))(_scalar(3.0))._v == 6.0

    def inner(x: Tensor) -> Tensor:
        return grad(lambda y: x * y * y)(x)  # 2 x^2

    for outer in (lambda f: f, jit):
        assert grad(outer(inner))(_scalar(3.0))._v == 12.0
        assert grad(grad(outer(lambda x: x * inner(x))))(_scalar(3.0))._v == 36.0


def test_three_levels_of_closures() -> None:
    def f(x: Tensor) -> Tensor:
        def g(y: Tensor) -> Tensor:
            return grad(lambda z: x * y * z * z)(y) + x * y  # 2 x y^2 + x y

        return grad(g)(x * x)  # 4 x y + x at y = x^2: 4 x^3 + x

    for wrapped in (f, jit(f), lambda x: vmap(f)(x.reshape(1))[0]):
        assert grad(wrapped)(_scalar(2.0))._v == pytest.approx(12 * 4 + 1)
        assert grad(grad(wrapped))(_scalar(2.0))._v == pytest.approx(48.0)


def test_vmap_closes_over_the_tracers_around_it() -> None:
    xs, ys = _t(1.0, 2.0, 3.0), _t(10.0, 20.0)
    outer = vmap(lambda x: vmap(lambda y: x * y + x)(ys))(xs)
    np.testing.assert_array_equal(outer._v, np.outer(xs._v, ys._v) + xs._v[:, None])
    np.testing.assert_array_equal(vmap(lambda x: grad(lambda y: x * y * y)(x))(xs)._v, 2 * xs._v**2)
    np.testing.assert_array_equal(grad(lambda x: reduce.sum(vmap(lambda y: x * y)(ys)))(_scalar(2.0))._v, 30.0)
    table = vmap(lambda x: vmap(lambda y: grad(lambda z: x * y * z * z)(x + y))(ys))(xs)
    expected = 2 * np.outer(xs._v, ys._v) * np.add.outer(xs._v, ys._v)
    np.testing.assert_array_equal(table._v, expected)


def test_jit_closes_over_the_tracers_around_it() -> None:
    assert grad(lambda x: jit(lambda y: x * y)(x))(_scalar(3.0))._v == 6.0
    compiled = jit(lambda y: y * y)
    for value in (1.0, 2.0):  # nothing of the first call may stay behind in the compiled function
        assert grad(lambda x: compiled(x) + compiled(_scalar(5.0)))(_scalar(value))._v == 2 * value
        np.testing.assert_array_equal(vmap(lambda x: compiled(x) * x)(_t(1.0, value))._v, [1.0, value**3])
        assert compiled(_scalar(value))._v == value**2
        assert jit(lambda x: grad(lambda y: compiled(x * y))(x))(_scalar(value))._v == 2 * value**3


def test_outer_variables_of_a_jitted_gradient_are_read_at_each_call() -> None:
    w = _t(1.0, 2.0)
    slope = jit(grad(lambda x: reduce.sum(w * x * x)))
    x = _t(1.0, 1.0)
    assert slope(x)._v.tolist() == [2.0, 4.0]
    w.mul_(10.0)
    assert slope(x)._v.tolist() == [20.0, 40.0]


def test_unmapped_arguments_and_axes_inside_other_transforms() -> None:
    a, b = np.random.default_rng(0).standard_normal((3, 4)), np.random.default_rng(1).standard_normal((4, 2))
    f = vmap(vmap(lambda x, y: reduce.sum(x * y), in_axes=(None, 1)), in_axes=(0, None))
    for g in (f, jit(f), jit(lambda x, y: f(x, y))):
        np.testing.assert_allclose(g(as_tensor(a), as_tensor(b))._v, a @ b, 1e-13)
    da, db = jit(grad(lambda x, y: reduce.sum(math.sin(f(x, y))), argnums=(0, 1)))(as_tensor(a), as_tensor(b))
    np.testing.assert_allclose(da._v, np.cos(a @ b) @ b.T, 1e-12)
    np.testing.assert_allclose(db._v, a.T @ np.cos(a @ b), 1e-12)


def test_in_place_operations_on_local_tensors() -> None:
    def f(x: Tensor) -> Tensor:
        y = x * 1.0
        y.mul_(x)
        y[0] = y[1] * 3.0
        y += x
        return reduce.sum(y * x)  # x0 (3 x1^2 + x0) + x1 (x1^2 + x1)

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.stack(
            [3 * x[..., 1] ** 2 + 2 * x[..., 0], 6 * x[..., 0] * x[..., 1] + 3 * x[..., 1] ** 2 + 2 * x[..., 1]], -1
        )

    x = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    for g in (jit(grad(f)), grad(jit(f)), grad(f)):
        np.testing.assert_allclose(g(as_tensor(x[0]))._v, gradient(x[0]), 1e-13)
    for g in (vmap(grad(f)), jit(vmap(grad(f))), vmap(jit(grad(f))), grad(lambda x: reduce.sum(vmap(f)(x)))):
        np.testing.assert_allclose(g(as_tensor(x))._v, gradient(x), 1e-13)


def test_python_control_flow() -> None:
    def f(x: Tensor) -> Tensor:
        return x * x if x > 0 else -x

    assert grad(f)(_scalar(3.0))._v == 6.0 and grad(f)(_scalar(-3.0))._v == -1.0
    for name, traced in (("vmap", vmap(f)), ("jit", jit(vmap(grad(f)))), ("vmap", vmap(grad(f)))):
        with pytest.raises(TracerError, match=f"(?s)bool.. of a traced tensor.*{name}.*where"):
            traced(_t(1.0, -1.0))
    with pytest.raises(TracerError, match=r"bool.. of a traced tensor.*jit"):
        jit(f)(_scalar(1.0))


def test_tracers_that_escape_are_refused() -> None:
    kept: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        kept.append(x * 2.0)
        return reduce.sum(x * x)

    for transform, argument in ((grad, _t(1.0, 2.0)), (vmap, _t(1.0, 2.0)), (jit, _t(1.0, 2.0))):
        kept.clear()
        transform(f)(argument)
        with pytest.raises(TracerError):
            kept[0] + 1.0


def test_outer_tensors_cannot_be_overwritten_by_traced_values() -> None:
    total = _scalar(0.0)

    def f(x: Tensor) -> Tensor:
        total.add_(x)
        return x * x

    with pytest.raises(TracerError, match="would be overwritten"):
        grad(f)(_scalar(1.0))
    with pytest.raises(TracerError, match="would be overwritten"):
        vmap(f)(_t(1.0, 2.0))
    assert total._v == 0.0


def test_backward_inside_a_transformation_is_refused() -> None:
    for transform in (grad, lambda f: lambda x: vmap(f)(x.reshape(1))):
        with pytest.raises(GradientError, match="cannot be called inside"):
            transform(lambda x: (x * x).backward() or x)(_scalar(1.0).requires_grad_())


def test_backward_through_grad_and_vmap() -> None:
    """Recorded leaves that a transformed function closes over get gradients too."""
    w = _t(0.5, -2.0).requires_grad_()
    xs = as_tensor(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    slopes = vmap(lambda x: grad(lambda y: reduce.sum(w * w * y * y))(x))(xs)  # 2 w^2 x
    reduce.sum(slopes).backward()
    np.testing.assert_allclose(w.grad._v, 4 * w._v * xs._v.sum(0), 1e-13)


def test_aux_and_pytrees_through_three_levels() -> None:
    def loss(params: dict, x: Tensor) -> tuple:
        y = math.tanh(matmul.matmul(params["w"], x) + params["b"])
        return reduce.sum(y * y), {"y": y}

    rng = np.random.default_rng(4)
    params = {"w": as_tensor(rng.standard_normal((2, 3))), "b": as_tensor(rng.standard_normal(2))}
    xs = rng.standard_normal((5, 3))
    run = jit(vmap(value_and_grad(loss, has_aux=True), in_axes=(None, 0)))
    for _ in range(2):
        (value, aux), slopes = run(params, as_tensor(xs))
        y = np.tanh(xs @ params["w"]._v.T + params["b"]._v)
        np.testing.assert_allclose(value._v, (y * y).sum(1), 1e-13)
        np.testing.assert_allclose(aux["y"]._v, y, 1e-13)
        np.testing.assert_allclose(slopes["b"]._v, 2 * y * (1 - y * y), 1e-12)
        np.testing.assert_allclose(slopes["w"]._v, (2 * y * (1 - y * y))[:, :, None] * xs[:, None, :], 1e-12)


def test_jacobian_and_hessian_by_batching_cotangents() -> None:
    torch = pytest.importorskip("torch")
    a = np.random.default_rng(5).standard_normal((3, 3))

    def f(n: Any, m: Any, x: Any) -> Any:
        return n.sin(n.matmul(m, x)) * x[0]

    x = np.array([0.3, -0.7, 1.1])
    _, pullback = vjp(lambda x: f(fn, as_tensor(a), x), as_tensor(x))
    got = vmap(pullback)(as_tensor(np.eye(3)))[0]
    expected = torch.func.jacrev(lambda x: f(torch, torch.from_numpy(a), x))(torch.from_numpy(x))
    np.testing.assert_allclose(got._v, expected.numpy(), 1e-12)

    def hessian(x: Tensor) -> Tensor:
        _, pull = vjp(grad(lambda x: reduce.sum(f(fn, as_tensor(a), x))), x)
        return vmap(pull)(as_tensor(np.eye(3)))[0]

    expected = torch.func.hessian(lambda x: f(torch, torch.from_numpy(a), x).sum())(torch.from_numpy(x))
    for g in (hessian, jit(hessian)):
        np.testing.assert_allclose(g(as_tensor(x))._v, expected.numpy(), 1e-11)
    stacked = np.stack([x, 2 * x])
    np.testing.assert_allclose(vmap(hessian)(as_tensor(stacked))._v[0], expected.numpy(), 1e-11)


def test_stop_gradient_under_every_transformation() -> None:
    def f(x: Tensor) -> Tensor:
        return fn.stop_gradient(x * x) * x

    for g in (grad(f), jit(grad(f)), grad(jit(f)), lambda x: vmap(grad(f))(x.reshape(1))[0]):
        assert g(_scalar(3.0))._v == 9.0
    assert grad(grad(f))(_scalar(3.0))._v == 0.0
    assert zeros_like(_scalar(1.0))._v == tree.leaves(grad(lambda x: fn.stop_gradient(x))(_scalar(3.0)))[0]._v
