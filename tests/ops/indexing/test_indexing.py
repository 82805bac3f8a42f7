"""``x[...]`` and ``x[...] = v`` with every kind of index, against PyTorch: values, gradients, errors, tracing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn

torch = pytest.importorskip("torch")
S = slice
MASK2 = np.random.default_rng(1).random((3, 4)) < 0.5
MASK1 = np.array([True, False, True])
MASK3 = np.random.default_rng(2).random((3, 4, 5)) < 0.5


class T:
    """A tensor among the indices, to be made by either library."""

    def __init__(self, data: Any):
        self.data = data


INDICES: list[Any] = [
    0, -1, 2, S(None), S(1, 3), S(None, -1), S(0, 3, 2), S(5, 9), S(2, 1), Ellipsis, None, (0, 1), (0, 1, 2), (-1, -2, -3),
    (S(None), 1), (S(None), S(1, 3), S(None, None, 2)), (Ellipsis, 0), (0, Ellipsis), (Ellipsis, 1, S(1, 4)),
    (None, 0), (0, None, 1), (S(None), None, Ellipsis, None), (Ellipsis, None), (None, None, 1),
    [0, 2], [2, 0, -1], T([0, 2]), T([[0, 1], [2, 0]]), T(1), T(-1), (T([0, 2]), 1), (1, T([0, 2])),
    (S(None), [0, 3]), (S(None), T([[0, 1], [2, 3]])), (Ellipsis, [4, 0, 0]), (S(None), S(1, 3), T([0, 4])),
    (T([0, 1]), T([1, 2])), (T([0, 1]), S(None), T([1, 2])), (T([[0], [1]]), T([1, 2])), (T([0, 1]), T([1, 2]), T([3, 4])),
    (S(None), T([0, 1]), T([1, 2])), (T([0, 2]), None), (None, T([0, 2])), (T([0, 1]), None, T([1, 2])),
    (0, S(None), [1, 2]), ([0, 1], 2, [1, 2]), (S(None, None, 2), [0, 1], S(1, 3)), T(MASK1), T(MASK2), T(MASK3),
    (T(MASK1), 0), (S(None), T(MASK2[0])), (0, T(MASK2[0])), (T(MASK1), S(None), 1), (T(MASK2), 2), (1, T(MASK3[1])),
    (T(MASK2), T([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1][: int(MASK2.sum())])), True, False, (True, 0), T(True),
    T(np.zeros(3, bool)),
    T(np.array([], np.int64)), (S(0, 0), 1), (T(0), T(1), T(2)), (S(None), 0, None, S(1, None)), (S(0, 2), 1),
]  # fmt: skip


def _made(index: Any, make: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_made(item, make) for item in index)
    return make(np.asarray(index.data)) if isinstance(index, T) else index


def _ours(index: Any) -> Any:
    return _made(index, lambda a: fn.tensor(a))


def _theirs(index: Any) -> Any:
    return _made(index, torch.from_numpy)


X = np.random.default_rng(0).normal(size=(3, 4, 5))
IDS = [str(i) for i in range(len(INDICES))]


@pytest.mark.parametrize("index", INDICES, ids=IDS)
def test_reading_and_its_gradient(index: Any) -> None:
    mine, theirs = fn.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    got, expected = mine[_ours(index)], theirs[_theirs(index)]
    assert tuple(got.shape) == tuple(expected.shape)
    np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())
    g = np.random.default_rng(3).normal(size=tuple(expected.shape))
    got.backward(fn.tensor(g))
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", INDICES, ids=IDS)
def test_writing_and_its_gradient(index: Any) -> None:
    shape = tuple(torch.tensor(X)[_theirs(index)].shape)
    flat = _duplicated(index)
    for value_shape in {shape, shape[-1:], ()}:
        value = np.full(value_shape, 1.5) if flat else np.random.default_rng(4).normal(size=value_shape)
        mine, theirs = fn.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
        my_value, their_value = fn.tensor(value, requires_grad=True), torch.tensor(value, requires_grad=True)
        y, z = mine * 1, theirs * 1
        y[_ours(index)] = my_value
        z[_theirs(index)] = their_value
        np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
        (y * y).sum().backward()
        (z * z).sum().backward()
        np.testing.assert_allclose(_gradient(mine, X), _gradient(theirs, X), rtol=1e-12, atol=1e-12)
        if not flat:
            np.testing.assert_allclose(
                _gradient(my_value, value), _gradient(their_value, value), rtol=1e-12, atol=1e-12
            )


def _gradient(leaf: Any, like: np.ndarray) -> np.ndarray:
    """A leaf's gradient; None, where a tensor is overwritten as a whole or written nowhere, counts as zero."""
    return np.zeros_like(like) if leaf.grad is None else leaf.grad.numpy()


def _duplicated(index: Any) -> bool:
    """Whether one element is addressed twice, where what is written last is not defined."""
    places = np.arange(X.size).reshape(X.shape)
    hit = torch.from_numpy(places)[_theirs(index)].numpy().ravel()
    return len(np.unique(hit)) != len(hit)


@pytest.mark.parametrize("index", [i for i in INDICES if not str(i).count("MASK")], ids=lambda i: str(i)[:30])
def test_under_jit_and_vmap(index: Any) -> None:
    made = _ours(index)
    if any(isinstance(i, fn.Tensor) and i.dtype == fn.bool_ for i in (made if isinstance(made, tuple) else (made,))):
        with pytest.raises(fn.TracerError, match="where"):
            fn.jit(lambda x, m: x[m])(fn.tensor(X), fn.tensor(MASK3))
        return
    x = fn.tensor(X)
    expected = x[made].numpy()
    if not any(isinstance(i, fn.Tensor) for i in (made if isinstance(made, tuple) else (made,))):
        np.testing.assert_array_equal(fn.jit(lambda x: x[made])(x).numpy(), expected)
    batch = fn.vmap(lambda x: x[made])(fn.stack([x, x * 2])).numpy()
    np.testing.assert_array_equal(batch, np.stack([expected, expected * 2]))


def test_a_written_view_changes_its_base_and_the_other_views() -> None:
    x = fn.zeros(3, 4)
    row, whole = x[1], x.view(-1)
    row[2:] = 7.0
    whole[0] = 5.0
    assert x.tolist() == [[5, 0, 0, 0], [0, 0, 7, 7], [0, 0, 0, 0]]
    assert whole.tolist()[6:8] == [7, 7]

    @fn.jit
    def inside(x):
        y = x * 1
        y[0].view(2, 2)[1] += 10.0
        y.t()[3, 1:] = -1.0
        return y

    expected = np.zeros((3, 4))
    expected[0, 2:] = 10
    expected[1:, 3] = -1
    np.testing.assert_array_equal(inside(fn.zeros(3, 4)).numpy(), expected)


def test_a_mask_of_its_own_shape_can_be_written_when_traced() -> None:
    def clip_below(x):
        y = x * 1
        y[y < 0] = 0.0
        return y

    np.testing.assert_array_equal(fn.jit(clip_below)(fn.tensor(X)).numpy(), np.maximum(X, 0))
    np.testing.assert_array_equal(fn.grad(lambda x: clip_below(x).sum())(fn.tensor(X)).numpy(), X >= 0)


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (3, IndexError, "index 3 is out of range for dimension 0 of size 3"),
        ((0, -5), IndexError, "index -5 is out of range for dimension 1 of size 4"),
        ([0, 3], IndexError, "index 3 is out of range for dimension 0 of size 3"),
        ((0, 0, 0, 0), IndexError, "too many indices"),
        ((Ellipsis, Ellipsis), IndexError, "one ellipsis"),
        (1.5, IndexError, "got float"),
        ("a", IndexError, "got str"),
        (S(None, None, -1), ValueError, "steps must be positive"),
        (fn.tensor([True, False]), IndexError, "mask of shape"),
        (fn.tensor([0.5]), IndexError, "integers or bools"),
    ],
    ids=str,
)
def test_bad_indices(index: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        fn.tensor(X)[index]


def test_bad_values() -> None:
    x = fn.zeros(3, 4)
    with pytest.raises(RuntimeError, match=r"shape \(3,\) does not broadcast to \(4,\)"):
        x[0] = fn.ones(3)
    with pytest.raises(RuntimeError, match="read-only"):
        fn.zeros(1, 4).expand(3, 4)[:2] = fn.ones(4)
    assert x.sum().item() == 0
