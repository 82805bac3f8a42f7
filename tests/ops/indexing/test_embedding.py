"""Embedding's options against PyTorch, its errors, and the module."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(7, 5))
INDEX = np.array([[0, 3, 3, 6], [3, 2, 0, 5]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("padding", "most", "p", "scale"),
    list(product([None, 3, -1], [None, 1.2], [2.0, 1.0, float("inf")], [False, True])),
)
def test_options(dtype, padding, most, p, scale):
    options = {"padding_idx": padding, "max_norm": most, "norm_type": p, "scale_grad_by_freq": scale}
    dy = RNG.normal(size=(2, 4, 5)).astype(dtype)
    mine = fn.tensor(WEIGHT.astype(dtype), requires_grad=True)
    theirs = torch.tensor(WEIGHT.astype(dtype), requires_grad=True)
    y, expected = (
        F.embedding(fn.tensor(INDEX), mine, **options),
        torch.nn.functional.embedding(torch.tensor(INDEX), theirs, **options),
    )
    y.backward(fn.tensor(dy))
    expected.backward(torch.tensor(dy))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    pairs = (y.detach(), expected.detach()), (mine.grad, theirs.grad), (mine.detach(), theirs.detach())
    for got, wanted in pairs:
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), tolerance, tolerance)
        assert str(wanted.dtype) == f"torch.{got.dtype}"


@pytest.mark.parametrize(("padding", "scale"), list(product([None, 3], [False, True])))
@pytest.mark.parametrize("batched", [(True, False), (False, True), (True, True)])
def test_gradients_of_examples(padding, scale, batched):
    table, index = RNG.normal(size=(3, 7, 5)), np.stack([INDEX, INDEX[::-1], np.full_like(INDEX, 3)])
    table, index = table if batched[0] else table[0], index if batched[1] else index[0]

    def gradient(w, i):
        return fn.grad(lambda w: (F.embedding(i, w, padding, scale_grad_by_freq=scale) ** 3).sum())(w)

    axes = tuple(0 if b else None for b in batched)
    got = fn.vmap(gradient, in_axes=axes)(fn.tensor(table), fn.tensor(index))
    for b in range(3):
        one = gradient(fn.tensor(table[b] if batched[0] else table), fn.tensor(index[b] if batched[1] else index))
        np.testing.assert_allclose(got[b].numpy(), one.numpy(), 1e-12)

    def total(w):
        apply = fn.vmap(lambda w, i: F.embedding(i, w, padding, scale_grad_by_freq=scale) ** 3, in_axes=axes)
        return apply(w, fn.tensor(index)).sum()

    whole = fn.grad(total)(fn.tensor(table))
    np.testing.assert_allclose(whole.numpy(), got.numpy() if batched[0] else got.numpy().sum(0), 1e-12)


def test_second_order_leaves_the_padding_out():
    w = torch.tensor(WEIGHT, requires_grad=True)
    (g,) = torch.autograd.grad(
        (torch.nn.functional.embedding(torch.tensor(INDEX), w, 3) ** 3).sum(), w, create_graph=True
    )
    (expected,) = torch.autograd.grad((g**2).sum(), w)

    def inner(w):
        return fn.grad(lambda w: (F.embedding(fn.tensor(INDEX), w, 3) ** 3).sum())(w)

    got = fn.grad(lambda w: (inner(w) ** 2).sum())(fn.tensor(WEIGHT))
    np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-12)


ERRORS = {
    "high": (IndexError, r"embedding: index 7 is out of range for a weight of 7 rows", lambda w: F.embedding(fn.tensor([0, 7]), w)),
    "low": (IndexError, r"embedding: index -1 is out of range", lambda w: F.embedding(fn.tensor([0, -1]), w)),
    "jit": (IndexError, r"embedding: index 9", lambda w: fn.jit(F.embedding)(fn.tensor([9]), w)),
    "float index": (TypeError, r"embedding: expected integer indices, got float32", lambda w: F.embedding(fn.ones(2), w)),
    "half": (TypeError, r"embedding: expected a weight of float32 or float64", lambda w: F.embedding(fn.tensor([0]), w.half())),
    "rank": (RuntimeError, r"embedding: expected a weight of 2 dimensions", lambda w: F.embedding(fn.tensor([0]), w[0])),
    "padding": (IndexError, r"embedding: padding_idx 7 is out of range for 7 rows", lambda w: F.embedding(fn.tensor([0]), w, 7)),
    "sparse": (NotImplementedError, r"sparse=False", lambda w: F.embedding(fn.tensor([0]), w, sparse=True)),
    "layer sparse": (NotImplementedError, r"sparse=False", lambda w: nn.Embedding(3, 2, sparse=True)),
    "layer padding": (IndexError, r"Embedding: padding_idx 3", lambda w: L.Embedding(3, 2, 3)),
    "given weight": (RuntimeError, r"Embedding: expected a weight of shape \(3, 2\)", lambda w: nn.Embedding(3, 2, _weight=w)),
    "pretrained": (RuntimeError, r"from_pretrained: expected \(V, D\)", lambda w: nn.Embedding.from_pretrained(w[0])),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(kind, message, call):
    with pytest.raises(kind, match=message):
        call(fn.tensor(WEIGHT))


# ---- the module -------------------------------------------------------------------------------------------------------
MODULES = [
    "Embedding(7, 5)",
    "Embedding(7, 5, padding_idx=-2)",
    "Embedding(7, 5, 3, 1.0, 1.0, True)",
    "Embedding(7, 5, None, 0.5)",
]


@pytest.mark.parametrize("text", MODULES)
def test_module(text):
    mine, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    assert repr(mine) == repr(theirs) == repr(eval(f"L.{text}", {"L": L}))
    assert list(mine.state_dict()) == list(theirs.state_dict()) == ["weight"]
    if theirs.padding_idx is not None:
        assert mine.padding_idx == theirs.padding_idx and not np.any(mine.weight.detach().numpy()[mine.padding_idx])
    mine.load_state_dict({"weight": fn.tensor(WEIGHT.astype(np.float32))})
    theirs.load_state_dict({"weight": torch.tensor(WEIGHT, dtype=torch.float32)})
    optimizers = fn.optim.SGD(mine.parameters(), 0.1), torch.optim.SGD(theirs.parameters(), 0.1)
    for _ in range(2):
        mine(fn.tensor(INDEX)).pow(3).sum().backward()
        theirs(torch.tensor(INDEX)).pow(3).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        np.testing.assert_allclose(mine.weight.detach().numpy(), theirs.weight.detach().numpy(), 1e-5, 1e-5)
    assert repr(pickle.loads(pickle.dumps(mine))) == repr(theirs)


def test_from_pretrained():
    table = fn.tensor(WEIGHT)
    frozen, free = nn.Embedding.from_pretrained(table), nn.Embedding.from_pretrained(table, freeze=False, padding_idx=2)
    assert not frozen.weight.requires_grad and free.weight.requires_grad and free.padding_idx == 2
    assert isinstance(frozen, nn.Embedding) and repr(frozen) == "Embedding(7, 5)"
    assert np.shares_memory(frozen.weight.numpy(), table.numpy())  # as PyTorch
    np.testing.assert_array_equal(frozen(fn.tensor(INDEX)).numpy(), WEIGHT[INDEX])
    params, state = L.Embedding.from_pretrained(table).init(fn.random.key(0))
    assert state == {} and np.array_equal(params["weight"].numpy(), WEIGHT)


def test_standard_normal_weights():
    w = nn.Embedding(400, 50, dtype=fn.float64).weight.detach().numpy()
    assert w.dtype == np.float64 and abs(w.mean()) < 0.03 and abs(w.std() - 1) < 0.03
