"""The box itself: conversions, sharing of memory, in-place forms, operators, copies, printing."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import funcnn as fn


def test_numpy_shares_memory_both_ways() -> None:
    a = np.arange(4.0)
    t = fn.from_numpy(a)
    t.add_(1.0)
    assert a.tolist() == [1, 2, 3, 4] and t.numpy() is not None and np.shares_memory(t.numpy(), a)
    a[0] = 9.0
    assert t[0].item() == 9.0 and np.shares_memory(np.asarray(t), a)
    assert not np.shares_memory(fn.tensor(a).numpy(), a) and np.shares_memory(fn.as_tensor(a).numpy(), a)
    assert np.asarray(t, dtype=np.float32).dtype == np.float32


def test_dlpack_goes_both_ways_without_a_copy() -> None:
    t = fn.arange(6).float().reshape(2, 3)
    a = np.from_dlpack(t)
    assert np.shares_memory(a, t.numpy())
    back = fn.from_dlpack(a)
    assert np.shares_memory(back.numpy(), a) and back.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(4.0)
    mine = fn.from_dlpack(theirs)
    theirs[0] = 7.0
    assert mine.tolist() == [7, 1, 2, 3] and torch.from_dlpack(mine)[0] == 7.0


def test_detach_and_data_share_memory_but_no_history() -> None:
    w = fn.ones(3, requires_grad=True)
    d = w.detach()
    d[0] = 5.0
    w.data.mul_(2.0)
    assert w.tolist() == [10, 2, 2] and w.requires_grad and w.is_leaf and not d.requires_grad
    y = w * 2
    assert y.detach().grad_fn is None and y.grad_fn is not None
    held, other = w.data, fn.ones(3)
    w.data = other
    other[0] = 4.0
    assert held.tolist() == [10, 2, 2] and w.tolist() == [4, 1, 1] and w.is_leaf
    z = (w * w).sum()
    w.data = fn.zeros(3)
    with pytest.raises(RuntimeError, match="overwritten"):
        z.backward()
    w.data = fn.zeros(5)
    assert w.shape == (5,) and w.requires_grad


def test_numbers_and_lists() -> None:
    assert (
        fn.tensor(3).item() == 3 and isinstance(fn.tensor(3).item(), int) and isinstance(fn.tensor(2.5).item(), float)
    )
    assert (
        fn.tensor([[True, False]]).tolist() == [[True, False]]
        and float(fn.tensor([2])) == 2.0
        and int(fn.tensor(2.7)) == 2
    )
    assert [10, 20, 30][fn.tensor(1)] == 20 and f"{fn.tensor(1.2345):.2f}" == "1.23" and bool(fn.tensor([1]))
    assert len(fn.zeros(3, 2)) == 3 and [t.tolist() for t in fn.eye(2)] == [[1, 0], [0, 1]] and 2 in fn.arange(3)
    for bad in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            bad(fn.tensor(1.0))


def test_dtypes_and_sizes() -> None:
    t = fn.tensor([[1.5, -2.5]])
    assert [getattr(t, name)().dtype.name for name in ("float", "double", "half", "long", "int", "short", "bool")] == [
        "float32", "float64", "float16", "int64", "int32", "int16", "bool"]  # fmt: skip
    assert t.to(fn.float64).dtype == np.float64 and t.to("cpu") is t and t.to(fn.arange(2)).dtype == np.int64
    assert t.long().tolist() == [[1, -2]] and t.to(dtype=fn.int32).dtype == np.int32
    assert t.size() == (1, 2) and t.size(-1) == 2 and t.dim() == t.ndim == 2 and t.numel() == 2 and t.nbytes == 8
    assert repr(t.shape) == "funcnn.Size([1, 2])" and t.stride() == (2, 1) and t.T.stride() == (1, 2)
    assert fn.Tensor(2, 3).shape == (2, 3) and fn.Tensor([1, 2]).dtype == np.float32 and str(t.device) == "cpu"
    assert fn.zeros(2, dtype=float).dtype == np.float64 and fn.tensor(range(3)).dtype == np.int64


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"])
def test_operators_from_both_sides(name: str) -> None:
    op = getattr(operator, name)
    a, b = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[2.0, 1.0], [0.5, 3.0]])
    np.testing.assert_allclose(op(fn.tensor(a), fn.tensor(b)).numpy(), op(a, b))
    np.testing.assert_allclose(op(fn.tensor(a), b).numpy(), op(a, b))
    np.testing.assert_allclose(op(a, fn.tensor(b)).numpy(), op(a, b))
    if name != "matmul":
        np.testing.assert_allclose(op(2.0, fn.tensor(b)).numpy(), op(2.0, b))
        np.testing.assert_allclose(op(fn.tensor(a), 2).numpy(), op(a, 2))
    held = fn.tensor(a)
    inplace = getattr(operator, f"i{name}")(held, fn.tensor(b))
    assert inplace is held
    np.testing.assert_allclose(held.numpy(), op(a, b))


def test_comparisons_and_bits() -> None:
    t = fn.tensor([1, 2, 3])
    assert (
        (t > 1).tolist() == [False, True, True]
        and (t == 2).tolist() == [False, True, False]
        and (2 >= t).tolist() == [True, True, False]
    )
    assert (t == None) is False and (t != "a") is True  # noqa: E711  (left to Python)
    assert (
        (~(t > 1)).tolist() == [True, False, False] and (t & 1).tolist() == [1, 0, 1] and (t << 1).tolist() == [2, 4, 6]
    )
    assert (-t).tolist() == [-1, -2, -3] and abs(-t).tolist() == [1, 2, 3] and len({t: 1, fn.ones(1): 2}) == 2


def test_in_place_methods_return_the_tensor_itself() -> None:
    t = fn.zeros(2, 2)
    view = t[0]
    assert t.fill_(2.0) is t and t.add_(1.0).mul_(2.0).sub_(1.0).div_(5.0).tolist() == [[1, 1], [1, 1]]
    assert (
        view.tolist() == [1, 1] and t.zero_().sum().item() == 0 and t.copy_(fn.arange(2)).tolist() == [[0, 1], [0, 1]]
    )
    assert t.clamp_(max=0.5).tolist() == [[0, 0.5], [0, 0.5]] and t.masked_fill_(t > 0, 9.0).tolist() == [
        [0, 9],
        [0, 9],
    ]
    fn.manual_seed(0)
    assert abs(float(fn.empty(4000).normal_(1.0, 2.0).mean()) - 1.0) < 0.15
    drawn = fn.empty(100).uniform_(3.0, 4.0)
    assert 3.0 <= float(drawn.min()) and float(drawn.max()) < 4.0
    assert set(fn.empty(200, dtype=fn.long).random_(3).tolist()) == {0, 1, 2}


def test_copies_and_pickles() -> None:
    t = fn.tensor([1.0, 2.0], requires_grad=True)
    t.sum().backward()
    for again in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert again.tolist() == [1, 2] and again.requires_grad and again is not t
        again.data.zero_()
    assert t.tolist() == [1, 2] and copy.deepcopy(t).grad.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(t * 2)


def test_printing() -> None:
    x = fn.tensor([1.0, -2.0], requires_grad=True)
    assert (
        repr(x) == "tensor([ 1., -2.], requires_grad=True)"
        and repr(x + 1) == "tensor([ 2., -1.], grad_fn=<AddBackward0>)"
    )
    assert repr(fn.tensor([1.0], dtype=fn.float64)) == "tensor([1.], dtype=funcnn.float64)"
    seen = []
    fn.jit(lambda t: seen.append(repr(t)) or t)(fn.ones(2))
    assert seen == ["Tensor(traced by jit, shape=(2,), dtype=float32)"]


def test_every_listed_function_exists_and_has_a_docstring() -> None:
    for name in fn.__all__:
        assert hasattr(fn, name), name
        value = getattr(fn, name)
        assert not callable(value) or value.__doc__, name


def test_default_dtype() -> None:
    try:
        fn.set_default_dtype(fn.float64)
        assert (
            fn.ones(1).dtype == fn.tensor(1.0).dtype == fn.rand(1).dtype == np.float64
            and fn.nn.Linear(1, 1).weight.dtype == np.float64
        )
    finally:
        fn.set_default_dtype(fn.float32)
    assert fn.get_default_dtype() == np.float32
    with pytest.raises(TypeError, match="expected a floating-point dtype"):
        fn.set_default_dtype(fn.int64)
