"""Matrix products where the table of cases does not go: sizes 0 and 1, dtypes, layouts, work done, refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.matmul import matmul as m
from funcnn.ops.movement.views import expand, transpose
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import grad, vjp
from funcnn.transforms.vmap import vmap
from tests.helpers import layouts


def t(*shape: int, dtype: str = "float64", seed: int = 0) -> Tensor:
    """A random tensor."""
    return as_tensor(np.random.default_rng(seed + sum(shape)).uniform(-2, 2, shape).astype(dtype))


def blas(f: Callable, *args: Any) -> list[tuple]:
    """The shapes of the products that a call makes NumPy compute."""
    seen: list = []
    with pytest.MonkeyPatch.context() as patch:
        plain = np.matmul
        patch.setattr(np, "matmul", lambda a, b, out: (seen.append((a.shape, b.shape)), plain(a, b, out=out)))
        f(*args)
    return seen


# ---- shapes ---------------------------------------------------------------------------------------------------------
LEFT = [(3,), (2, 3), (1, 3), (0, 3), (5, 2, 3), (1, 2, 3), (5, 0, 3), (0, 2, 3), (4, 1, 2, 3), (4, 5, 1, 3)]
RIGHT = [(3,), (3, 4), (3, 1), (3, 0), (5, 3, 4), (1, 3, 4), (4, 5, 3, 2), (0, 3, 4)]


@pytest.mark.parametrize("left,right", list(product(LEFT, RIGHT)), ids=str)
def test_matmul_broadcasts_as_numpy(left: tuple, right: tuple) -> None:
    x, y = t(*left), t(*right)
    try:
        expected = np.matmul(x._v, y._v)
    except ValueError:
        with pytest.raises(ShapeError, match="matmul"):
            m.matmul(x, y)
        return
    out, pullback = vjp(m.matmul, x, y)
    np.testing.assert_allclose(out._v, expected, 1e-12, 1e-12)
    g = t(*expected.shape, seed=1)
    dx, dy = pullback(g)
    assert dx.shape == x.shape and dy.shape == y.shape
    for cotangent, at in ((dx, x), (dy, y)):  # the product is linear: <g, A(d)> = <A'(g), d>
        d = t(*at.shape, seed=2)
        moved = np.matmul(d._v, y._v) if at is x else np.matmul(x._v, d._v)
        np.testing.assert_allclose(np.sum(g._v * moved), np.sum(cotangent._v * d._v), 1e-10, 1e-10)


def test_an_empty_inner_dimension_gives_zeros() -> None:
    assert m.matmul(t(2, 0), t(0, 3))._v.tolist() == [[0.0] * 3] * 2
    assert m.matmul(t(5, 2, 0), t(0, 3))._v.sum() == 0.0 == m.dot(t(0), t(0))._v
    dx, dy = vjp(m.matmul, t(5, 2, 0), t(0, 3))[1](t(5, 2, 3))
    assert dx.shape == (5, 2, 0) and dy.shape == (0, 3)
    assert m.linear(t(0, 3), t(4, 3), t(4)).shape == (0, 4) and m.einsum("ij,jk->ik", t(2, 0), t(0, 3)).shape == (2, 3)


# ---- dtypes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_every_dtype_multiplies_and_stays(dtype: str) -> None:
    x, y = np.arange(6).reshape(2, 3).astype(dtype), np.arange(12).reshape(3, 4).astype(dtype)
    out = m.matmul(as_tensor(x), as_tensor(y))
    assert out.dtype == dtype and np.array_equal(out._v, x @ y)
    assert m.einsum("ij,jk->", as_tensor(x), as_tensor(y)).dtype == dtype


@pytest.mark.parametrize("name", ["matmul", "mm", "linear", "tensordot", "einsum", "addmm", "bias"])
def test_dtypes_are_not_mixed(name: str) -> None:
    x, y, wide = t(2, 3, dtype="float32"), t(3, 4), t(2, 3)
    calls: dict[str, Callable] = {
        "matmul": lambda: m.matmul(x, y),
        "mm": lambda: m.mm(x, y),
        "linear": lambda: m.linear(x, transpose(y, 0, 1)),
        "tensordot": lambda: m.tensordot(x, y, 1),
        "einsum": lambda: m.einsum("ij,jk->ik", x, y),
        "addmm": lambda: m.addmm(t(4, dtype="float32"), wide, y),
        "bias": lambda: m.linear(wide, transpose(y, 0, 1), t(4, dtype="float32")),
    }
    with pytest.raises(DTypeError, match="float32.*float64|float64.*float32"):
        calls[name]()


def test_nan_and_infinity_pass() -> None:
    x = np.array([[np.inf, 1.0], [np.nan, 0.0], [0.0, -np.inf]])
    y = np.array([[1.0, 0.0], [2.0, 3.0]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(m.mm(as_tensor(x), as_tensor(y))._v, x @ y)


def test_beta_zero_does_not_read_the_input() -> None:
    poison = as_tensor(np.full((2, 4), np.nan))
    np.testing.assert_allclose(m.addmm(poison, t(2, 3), t(3, 4), beta=0)._v, t(2, 3)._v @ t(3, 4)._v)
    assert np.isnan(m.addmm(poison, t(2, 3), t(3, 4), beta=0.5)._v).all()
    poison = as_tensor(np.full((5, 2, 4), np.nan))
    np.testing.assert_allclose(m.baddbmm(poison, t(5, 2, 3), t(5, 3, 4), beta=0)._v, t(5, 2, 3)._v @ t(5, 3, 4)._v)


# ---- memory and work ------------------------------------------------------------------------------------------------
def test_memory_layout_does_not_matter() -> None:
    x, y = t(4, 6)._v, t(6, 5)._v
    for one in layouts(x):
        for two in layouts(y):
            np.testing.assert_allclose(m.matmul(as_tensor(one), as_tensor(two))._v, x @ y, 1e-12)
    column = expand(t(4, 1), (4, 6))
    np.testing.assert_allclose(m.matmul(column, as_tensor(y))._v, column._v @ y, 1e-12)


def test_a_transpose_reaches_blas_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = t(8, 3), t(5, 3)
    received: list = []
    monkeypatch.setattr(np, "matmul", lambda a, b, out: received.extend((a, b)))
    m.linear(x, w)
    assert np.shares_memory(received[1], w._v) and received[1].shape == (3, 5)


def test_rows_of_a_batch_are_one_product() -> None:
    assert blas(m.linear, t(7, 2, 3), t(4, 3), t(4)) == [((14, 3), (3, 4))]
    assert blas(vmap(m.matmul, (0, None)), t(7, 2, 3), t(3, 4)) == [((14, 3), (3, 4))]
    assert blas(vmap(lambda x, w: m.linear(x, w), (0, None)), t(7, 3), t(4, 3)) == [((7, 3), (3, 4))]
    assert len(blas(vmap(m.matmul), t(7, 2, 3), t(7, 3, 4))) == 1
    assert len(blas(vmap(m.matmul, (None, 0)), t(2, 3), t(7, 3, 4))) == 1


def test_gradients_are_one_product_for_each_input() -> None:
    seen = blas(grad(lambda x, w: sum_(m.linear(x, w)), (0, 1)), t(7, 2, 3), t(4, 3))
    assert seen == [((14, 3), (3, 4)), ((14, 4), (4, 3)), ((4, 14), (14, 3))], seen
    assert len(blas(grad(lambda w: sum_(m.linear(t(7, 3), w))), t(4, 3))) == 2  # none for the data


def test_einsum_contracts_with_the_one_product() -> None:
    assert len(blas(lambda x, y: m.einsum("bij,bjk->bik", x, y), t(5, 2, 3), t(5, 3, 4))) == 1
    assert len(blas(lambda x, y, z: m.einsum("ij,jk,kl->il", x, y, z), t(2, 3), t(3, 4), t(4, 5))) == 2
    assert blas(lambda x: m.einsum("iij->j", x), t(3, 3, 2)) == []


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_inner_sizes_that_do_not_fit() -> None:
    for f in (m.matmul, m.mm):
        with pytest.raises(ShapeError, match=r"matmul: shapes \(2, 3\) and \(4, 5\) do not fit: 3 columns meet 4 rows"):
            f(t(2, 3), t(4, 5))
    with pytest.raises(ShapeError, match=r"dot: lengths differ: 3 and 4"):
        m.matmul(t(3), t(4))
    with pytest.raises(ValueError, match="matmul: shapes .* do not broadcast"):
        m.matmul(t(2, 2, 3), t(5, 3, 4))


@pytest.mark.parametrize(
    "name,left,right",
    [("mm", (2, 3), (3,)), ("bmm", (2, 3), (3, 4)), ("mv", (2, 3), (3, 1)), ("dot", (2, 3), (3,)),
     ("outer", (2, 3), (3,)), ("bmm", (5, 2, 3), (1, 3, 4)), ("matmul", (), (3,)), ("tensordot", (2, 3), (3,))],
)  # fmt: skip
def test_ranks_that_do_not_fit(name: str, left: tuple, right: tuple) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: .*\({left[0] if left else ''}"):
        getattr(m, name)(t(*left), t(*right))


def test_linear_says_what_it_needs() -> None:
    with pytest.raises(ShapeError, match=r"linear: weight of shape \(4, 3\) needs an input whose last size is 3, got"):
        m.linear(t(5, 2), t(4, 3))
    with pytest.raises(ShapeError, match=r"linear: expected a bias of shape \(4,\), got \(3,\)"):
        m.linear(t(5, 3), t(4, 3), t(3))
    with pytest.raises(
        ShapeError, match=r"linear: bias of shape \(2, 5, 4\) does not broadcast to the output's \(5, 4\)"
    ):
        m.linear(t(5, 3), t(4, 3), t(2, 5, 4))
    with pytest.raises(ShapeError, match=r"addmm: an input of shape \(1, 2, 4\) does not broadcast"):
        m.addmm(t(1, 2, 4), t(2, 3), t(3, 4))


@pytest.mark.parametrize(
    "equation,shapes,message",
    [
        ("ij,jk->ik", [(2, 3)], "2 terms for 1 operands"),
        ("ij->ij", [(2, 3, 4)], "term 'ij' does not fit a tensor of shape"),
        ("ijk->i", [(2, 3)], "term 'ijk' does not fit"),
        ("ij,jk->ik", [(2, 3), (4, 4)], "label 'j' has sizes 3 and 4"),
        ("ii->i", [(2, 3)], "label 'i' has sizes 2 and 3"),
        ("ij->iz", [(2, 3)], "output label 'z' of 'ij->iz' is in no operand"),
        ("i1->i", [(2, 3)], "labels must be letters"),
        ("..ij->ij", [(2, 3)], "einsum"),
        ("ij->ijj", [(2, 3)], "a label appears twice in the output"),
    ],
)
def test_equations_that_do_not_fit(equation: str, shapes: list, message: str) -> None:
    with pytest.raises((ShapeError, ValueError), match=message):
        m.einsum(equation, *[t(*shape) for shape in shapes])


def test_einsum_wants_an_equation() -> None:
    with pytest.raises(TypeError, match="einsum: expected an equation such as"):
        m.einsum(t(2, 3), [0, 1])


def test_tensordot_wants_pairs_of_one_size() -> None:
    with pytest.raises(ShapeError, match=r"tensordot: sizes \[3\] of \(2, 3\) meet \[4\] of \(4, 5\)"):
        m.tensordot(t(2, 3), t(4, 5), 1)
    for dims in (-1, 3):
        with pytest.raises(ShapeError, match=f"tensordot: dims={dims}"):
            m.tensordot(t(2, 3), t(3, 4), dims)
