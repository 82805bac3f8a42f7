"""Creation functions: dtypes, copies and shared memory, ranges, sizes, refusals, and constants under transformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn
from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError, TracerError
from funcnn.core.tensor import Tensor
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.tensor import creation as c
from funcnn.transforms.grad import grad
from funcnn.transforms.jit import jit
from funcnn.transforms.vmap import vmap

# Each is applied to funcnn and to torch, which must agree in value, shape and dtype.
AGREEING: dict[str, Callable] = {
    "range": lambda m: m.tensor(range(-5, 5)),
    "ranges": lambda m: m.tensor([range(3), range(3)]),
    "floats": lambda m: m.tensor([1, 2.5]),
    "bools": lambda m: m.tensor([[True], [False]]),
    "bools_and_ints": lambda m: m.tensor([True, 2]),
    "nothing": lambda m: m.tensor([]),
    "rows_of_nothing": lambda m: m.tensor([[], []]),
    "int": lambda m: m.tensor(3),
    "float": lambda m: m.tensor(2.5),
    "bool": lambda m: m.tensor(True),
    "large_int": lambda m: m.tensor(2**40),
    "numpy_number": lambda m: m.tensor(np.float64(2)),
    "numpy_numbers": lambda m: m.tensor([np.float64(1), np.float64(2)]),
    "numpy_arrays": lambda m: m.tensor(np.array([np.arange(2.0), np.arange(2.0)])),
    "int8": lambda m: m.tensor(np.arange(3, dtype="int8")),
    "transposed": lambda m: m.tensor(np.ones((2, 3)).T),
    "tensors": lambda m: m.tensor([m.tensor(1.0), m.tensor(2.0)]),
    "nested_tensors": lambda m: m.tensor([[m.tensor(1), m.tensor(3)], [1, 2]]),
    "dtype": lambda m: m.tensor([1, 2], dtype=m.float64),
    "full_precision": lambda m: m.tensor([0.1, 1e-50], dtype=m.float64),
    "truncated": lambda m: m.tensor([1.7, -2.7], dtype=m.int64),
    "wrapped": lambda m: m.tensor(-1, dtype=m.uint8),
    "as_list": lambda m: m.as_tensor([1.0, 2.0]),
    "as_range": lambda m: m.as_tensor(range(3)),
    "as_dtype": lambda m: m.as_tensor(np.ones(2), dtype=m.float32, device="cpu"),
    "zeros_size": lambda m: m.zeros(size=(2, 3)),
    "zeros_list": lambda m: m.zeros([2, 0]),
    "zeros_numpy_size": lambda m: m.zeros(np.int64(3)),
    "zeros_tensor_size": lambda m: m.zeros(m.tensor(3), 2),
    "zeros_of_a_shape": lambda m: m.zeros(m.ones(2, 3).shape, dtype=m.int32),
    "ones_scalar": lambda m: m.ones(()),
    "full_int": lambda m: m.full((2,), 5),
    "full_float": lambda m: m.full((2,), 5.0),
    "full_bool": lambda m: m.full((2,), True),
    "full_dtype": lambda m: m.full((2,), 2.7, dtype=m.int64),
    "full_of_a_tensor": lambda m: m.full((2,), m.tensor(3.0)),
    "full_keywords": lambda m: m.full(size=(2,), fill_value=float("nan")),
    "like_ints": lambda m: m.full_like(m.tensor([1, 2]), 7.5),
    "like_dtype": lambda m: m.ones_like(m.tensor([1, 2]), dtype=m.float64),
    "arange_keywords": lambda m: m.arange(start=1, end=9, step=3),
    "arange_end": lambda m: m.arange(end=4),
    "arange_float": lambda m: m.arange(0, 1, 0.1),
    "arange_float_end": lambda m: m.arange(0, 2.5),
    "arange_1.3": lambda m: m.arange(0, 1.3, 0.1),
    "arange_down": lambda m: m.arange(5, 1, -1.5),
    "arange_nothing": lambda m: m.arange(3, 3),
    "arange_exact": lambda m: m.arange(2**53, 2**53 + 3),
    "arange_dtype": lambda m: m.arange(5, dtype=m.float32),
    "arange_tensor": lambda m: m.arange(m.tensor(4)),
    "arange_float_tensor": lambda m: m.arange(0, m.tensor(4.0)),
    "linspace_one": lambda m: m.linspace(3, 4, 1),
    "linspace_none": lambda m: m.linspace(0, 1, 0),
    "linspace_ints": lambda m: m.linspace(0, 10, 5, dtype=m.int64),
    "linspace_tensors": lambda m: m.linspace(m.tensor(0.0), m.tensor(2.0), 3),
    "logspace_base": lambda m: m.logspace(0, 3, 4, 2, dtype=m.int64),
    "eye_wide": lambda m: m.eye(2, 3),
    "eye_tall": lambda m: m.eye(3, 1, dtype=m.int64),
    "eye_nothing": lambda m: m.eye(0),
}


@pytest.mark.parametrize("name", AGREEING)
def test_agrees_with_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    got, expected = AGREEING[name](funcnn), AGREEING[name](torch)
    assert f"torch.{got.dtype}" == str(expected.dtype) and tuple(got.shape) == tuple(expected.shape)
    np.testing.assert_allclose(got._v, expected.numpy(), 1e-6 if got.dtype == np.float32 else 1e-15)


def test_the_default_float_is_what_python_floats_become() -> None:
    saved = dtypes.default_float()
    try:
        dtypes.set_default_dtype("float64")
        made = [
            c.tensor([0.5]),
            c.tensor(0.5),
            c.zeros(2),
            c.arange(0.5),
            c.linspace(0, 1, 2),
            c.eye(2),
            c.full((), 0.5),
        ]
        assert all(t.dtype == np.float64 for t in made)
    finally:
        dtypes.set_default_dtype(saved)


def test_whole_numbers_are_counted_exactly() -> None:
    assert c.arange(0, 2**62 + 1, 2**60)._v.tolist() == [k * 2**60 for k in range(5)]


# ---- memory ---------------------------------------------------------------------------------------------------------
def test_tensor_copies_and_as_tensor_shares() -> None:
    array = np.arange(3.0)
    copy, shared, view = c.tensor(array), c.as_tensor(array), c.from_numpy(array[::-1])
    array[0] = 7.0
    assert copy._v[0] == 0.0 and shared._v[0] == 7.0 and view._v[-1] == 7.0
    assert c.as_tensor(shared) is shared and c.tensor(shared)._v is not shared._v
    view.mul_(2.0)  # type: ignore[attr-defined]
    assert array.tolist() == [14.0, 2.0, 4.0]


def test_tensor_of_a_tensor_has_no_history() -> None:
    x = c.tensor([1.0, 2.0], requires_grad=True)
    copy = c.tensor(mul(x, 2.0))
    assert x.requires_grad and copy.is_leaf and not copy.requires_grad
    assert c.tensor(x, dtype="float64").dtype == np.float64


def test_dlpack_shares_memory_both_ways() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6.0).reshape(2, 3)
    t = c.from_dlpack(theirs)
    theirs[0, 0] = 9.0
    assert t._v[0, 0] == 9.0 and t.shape == (2, 3) and t.dtype == np.float32
    back = torch.from_dlpack(t)
    theirs[1, 2] = -1.0
    assert back[1, 2] == -1.0


def test_full_of_a_tensor_has_memory_of_its_own() -> None:
    value = c.tensor(3.0)
    made = c.full((2,), value)
    made.add_(1.0)  # type: ignore[attr-defined]
    assert made._v.tolist() == [4.0, 4.0] and value._v == 3.0


# ---- under transformations ------------------------------------------------------------------------------------------
def test_like_forms_need_only_shape_and_dtype() -> None:
    def f(x: Tensor) -> Tensor:
        assert not c.ones_like(x).requires_grad
        return add(mul(x, c.full_like(x, 3.0)), add(c.ones_like(x), mul(c.empty_like(x), c.zeros(x.shape)))).sum()

    x = c.tensor([[1.0, 2.0]])
    assert grad(f)(x)._v.tolist() == [[3.0, 3.0]]
    assert jit(grad(f))(x)._v.tolist() == [[3.0, 3.0]]
    assert vmap(lambda x: c.ones_like(x))(x)._v.tolist() == [[1.0, 1.0]]
    assert vmap(grad(f))(c.ones(2, 1, 2))._v.tolist() == [[[3.0, 3.0]]] * 2


def test_constants_are_embedded_under_jit() -> None:
    f = jit(lambda x: add(x, add(c.arange(3), c.tensor([1.0, 2.0, 3.0]))))
    for start in (0.0, 10.0):
        assert f(c.full((3,), start))._v.tolist() == [start + 1.0, start + 3.0, start + 5.0]


def test_full_of_a_traced_number() -> None:
    assert grad(lambda a: c.full((3,), a).sum())(c.tensor(2.0))._v == 3.0  # type: ignore[attr-defined]
    assert vmap(lambda a: c.full((2,), a))(c.tensor([1.0, 2.0]))._v.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert jit(lambda a: c.full((2,), a))(c.tensor(5.0))._v.tolist() == [5.0, 5.0]


def test_a_traced_bound_is_refused() -> None:
    for f in (c.arange, lambda n: c.linspace(0, n, 3)):
        with pytest.raises(TracerError):
            jit(f)(c.tensor(3))


# ---- refusals -------------------------------------------------------------------------------------------------------
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "ragged": (lambda: c.tensor([[1, 2], [3]]), ShapeError, "equal lengths"),
    "string": (lambda: c.tensor("abc"), DTypeError, "expected a number or a tensor, got str"),
    "strings": (lambda: c.tensor(["a"]), DTypeError, "not supported"),
    "none": (lambda: c.tensor(None), DTypeError, "got NoneType"),
    "nones": (lambda: c.tensor([None]), DTypeError, "not supported"),
    "dict": (lambda: c.tensor({"a": 1}), DTypeError, "got dict"),
    "set": (lambda: c.as_tensor({1, 2}), DTypeError, "got set"),
    "complex": (lambda: c.tensor(1j), DTypeError, "got complex"),
    "list_from_numpy": (lambda: c.from_numpy([1.0]), TypeError, "expected a numpy.ndarray, got list; use tensor"),
    "byte_order": (lambda: c.from_numpy(np.ones(2, ">f4")), DTypeError, "dtype >f4 is not supported"),
    "complex_from_numpy": (lambda: c.from_numpy(np.ones(2, complex)), DTypeError, "complex128 is not supported"),
    "negative_zeros": (lambda: c.zeros(2, -1), ShapeError, r"zeros: sizes must not be negative, got \(2, -1\)"),
    "negative_full": (lambda: c.full((-1,), 0.0), ShapeError, "full: sizes must not be negative"),
    "negative_eye": (lambda: c.eye(-1), ShapeError, "eye: sizes must not be negative"),
    "float_size": (lambda: c.ones(2.5), DTypeError, "ones: sizes must be integers"),
    "text_size": (lambda: c.empty("a"), DTypeError, "empty: sizes must be integers"),
    "long_fill": (lambda: c.full((2,), c.ones(2)), ShapeError, "full: fill_value must be a single number"),
    "text_fill": (lambda: c.full((2,), "a"), DTypeError, "got str"),
    "int_with_grad": (lambda: c.zeros(2, dtype="int64", requires_grad=True), DTypeError, "only floating-point"),
    "wrong_way": (lambda: c.arange(5, 1), ShapeError, "arange: a step of 1 does not lead from 5 to 1"),
    "no_step": (lambda: c.arange(1, 5, 0), ValueError, "arange: a step of 0"),
    "nan_bound": (lambda: c.arange(float("nan")), RuntimeError, "arange: a step of 1 does not lead from 0 to nan"),
    "infinite_bound": (lambda: c.arange(float("inf")), ShapeError, "to inf"),
    "no_bound": (lambda: c.arange(), TypeError, "arange: expected 1 to 3 bounds"),
    "negative_steps": (lambda: c.linspace(0, 1, -1), ShapeError, "linspace: steps must be a non-negative integer"),
    "float_steps": (lambda: c.logspace(0, 1, 2.5), ShapeError, "logspace: steps must be a non-negative integer"),
    "device": (lambda: c.zeros(2, device="cuda"), RuntimeError, "device 'cuda' is not available"),
    "tensor_device": (lambda: c.tensor([1.0], device="cuda:0"), RuntimeError, "tensors live on 'cpu'"),
    "dtype": (lambda: c.zeros(2, dtype="complex64"), DTypeError, "complex64 is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make()
