"""Random numbers under vmap: whose they are, with ``torch.func`` beside it; and what vmap says of its other options."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn
from funcnn.core.primitive import Primitive

F = nn.functional
X = fn.ones(3, 64)
KEYS = fn.random.split(fn.random.key(3), 3)
DRAWS: dict[str, Callable] = {
    "dropout": lambda x: F.dropout(x, 0.5, True),
    "rand": lambda x: x + fn.rand(64),
    "randn": lambda x: x + fn.randn(64),
    "rand_like": lambda x: x * fn.rand_like(x[:64]),
    "randint": lambda x: x + fn.randint(1000, (64,)),
    "randperm": lambda x: x + fn.randperm(64),
    "bernoulli": lambda x: fn.bernoulli(x * 0.5),
    "multinomial": lambda x: fn.multinomial(x, 32),
    "normal": lambda x: x + fn.normal(0.0, 1.0, (64,)),
    "generator": lambda x: x + fn.rand(64, generator=GENERATOR),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.reshape(8, 8)] * 3, dropout_p=0.5),
    "multihead": lambda x: F.multi_head_attention_forward(
        *[x.reshape(8, 8)] * 3, 8, 2, fn.ones(24, 8) * 0.1, None, None, None, False, 0.5, fn.eye(8), None
    )[0],
    "module": nn.Dropout(0.5),
    "lstm": nn.LSTM(8, 8, num_layers=2, dropout=0.5),
}
GENERATOR = fn.Generator()


def _out(result: Any) -> np.ndarray:
    return (result[0] if isinstance(result, tuple) else result).detach().numpy().reshape(3, -1)


def _apply(name: str, x: Any) -> Any:
    return DRAWS[name](x.reshape(8, 8) if name == "lstm" else x)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_refused_shared_or_each_examples_own(name: str, compiled: bool) -> None:
    f = lambda x: _apply(name, x)
    wrap = fn.jit if compiled and name != "generator" else lambda g: g
    before = fn.get_rng_state().tolist()
    with pytest.raises(RuntimeError, match=r'vmap: a random number .*randomness="different"'):
        wrap(fn.vmap(f))(X)
    assert fn.get_rng_state().tolist() == before, "a refused draw moved the generator"
    same = _out(wrap(fn.vmap(f, randomness="same"))(X))
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])
    run = wrap(fn.vmap(f, randomness="different"))
    own, again = _out(run(X)), _out(run(X))
    assert all((a != b).any() for a, b in ((own[0], own[1]), (own[0], own[2]), (own[1], own[2]), (own[0], again[0])))


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_each_of_nested_vmaps_says_for_itself(outer: str, inner: str) -> None:
    f = fn.vmap(fn.vmap(lambda x: F.dropout(x, 0.5, True), randomness=inner), randomness=outer)
    y = f(fn.ones(3, 3, 64)).numpy()
    assert (y[0] == y[1]).all() == (outer == "same") and (y[:, 0] == y[:, 1]).all() == (inner == "same")
    with pytest.raises(RuntimeError, match="vmap: a random number"):
        fn.vmap(fn.vmap(lambda x: F.dropout(x, 0.5, True)), randomness=outer)(fn.ones(3, 3, 64))


def test_keys_batched_by_hand_go_on_working() -> None:
    one = lambda k, x: F.dropout(x, 0.5, True, key=k)
    np.testing.assert_array_equal(
        fn.vmap(one)(KEYS, X).numpy(), fn.stack([one(KEYS[i], X[i]) for i in range(3)]).numpy()
    )
    layer = nn.pure(nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5)))
    own = fn.vmap(lambda k, x: layer[0](*layer[1:], x, training=True, key=k)[0])(KEYS, X).numpy()
    assert (own[0] != own[1]).any()
    gradients = fn.vmap(fn.grad(lambda x, k: one(k, x).sum()))(X, KEYS).numpy()
    np.testing.assert_array_equal(gradients, fn.vmap(one)(KEYS, X).numpy())


def test_a_key_from_outside_is_not_shared_in_silence_by_what_draws_inside() -> None:
    """A hand-written module that maps a function with dropout: the key of its call is for all of its draws."""

    class Mapped(nn.Module):
        def __init__(self, randomness: str):
            super().__init__()
            self.randomness = randomness

        def forward(self, x: Any) -> Any:
            return fn.vmap(lambda row: F.dropout(row, 0.5, True), randomness=self.randomness)(x)

    apply = lambda kind: nn.pure(Mapped(kind))[0]({}, {}, X, training=True, key=fn.random.key(0))[0].numpy()
    with pytest.raises(RuntimeError, match="vmap: a random number"):
        apply("error")
    assert (apply("same")[0] == apply("same")[1]).all() and (apply("different")[0] != apply("different")[1]).any()
    np.testing.assert_array_equal(apply("different"), apply("different"))


def test_refuses_as_torch_does_and_only_known_words() -> None:
    torch = pytest.importorskip("torch")
    f = lambda T: lambda x: T.nn.functional.dropout(x, 0.5, True)
    for T, vmap in ((torch, torch.func.vmap), (fn, fn.vmap)):
        with pytest.raises(RuntimeError, match="random"):
            vmap(f(T))(T.ones(3, 8))
        for kind, alike in (("same", True), ("different", False)):
            y = vmap(f(T), randomness=kind)(T.ones(3, 64)).numpy()
            assert (y[0] == y[1]).all() == alike
    with pytest.raises(ValueError, match="'error', 'same', 'different', got 'some'"):
        fn.vmap(f(fn), randomness="some")


@pytest.mark.parametrize("need_weights", [True, False])
def test_functions_take_the_key_that_decides(need_weights: bool) -> None:
    q, k, v = (fn.random.normal(fn.random.key(i), (5, 2, 8)) for i in range(3))
    w, out = fn.random.normal(fn.random.key(4), (24, 8)), fn.eye(8)

    def multihead(key: Any) -> Any:
        more = {"need_weights": need_weights, "key": key}
        return F.multi_head_attention_forward(q, k, v, 8, 2, w, None, None, None, False, 0.5, out, None, **more)[0]

    for f in (
        lambda key: F.dropout(q, key=key),
        lambda key: F.scaled_dot_product_attention(q, k, v, None, 0.5, key=key),
        multihead,
    ):
        one, again, other = (f(fn.random.key(seed)).numpy() for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
    named = F.scaled_dot_product_attention(query=q, key=k, value=v)
    np.testing.assert_array_equal(named.numpy(), F.scaled_dot_product_attention(q, k, v).numpy())


def test_attention_with_dropout_of_examples_keys_gradients_and_masks() -> None:
    """Each example draws what it would draw alone, in one application, forward, backward and twice."""
    shape = (3, 2, 5, 4)
    q, k, v = (fn.random.normal(fn.random.key(i), shape, fn.float64) for i in range(3))
    masks = [
        None,
        fn.random.normal(fn.random.key(5), (5, 5), fn.float64),
        fn.random.normal(fn.random.key(6), (2, 5, 5), fn.float64),
    ]
    for mask in masks:

        def loss(q: Any, k: Any, v: Any, key: Any, mask: Any = mask) -> Any:
            return (F.scaled_dot_product_attention(q, k, v, mask, 0.4, key=key) ** 2).sum()

        def slope(*args: Any, loss: Callable = loss) -> Any:
            return sum((g * g).sum() for g in fn.grad(loss, (0, 1, 2))(*args))

        for f in (loss, fn.grad(loss, (0, 1, 2)), fn.grad(slope, (0, 1, 2))):
            got = fn.tree.leaves(fn.vmap(f)(q, k, v, KEYS))
            alone = [fn.tree.leaves(f(q[i], k[i], v[i], KEYS[i])) for i in range(3)]
            for position, t in enumerate(got):
                wanted = np.stack([row[position].numpy() for row in alone])
                np.testing.assert_allclose(t.numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_keyword_arguments_are_mapped_and_outputs_may_have_no_axis() -> None:
    f = lambda x, *, scale, shift=0.0, name="": (x * scale + shift, fn.ones(2))
    y, same = fn.vmap(f, out_axes=(0, None))(X[:, :2], scale=fn.tensor([1.0, 2.0, 3.0]), shift=1.0, name="n")
    assert y.tolist() == [[2, 2], [3, 3], [4, 4]] and same.tolist() == [1, 1]
    assert fn.vmap(lambda x, w: x * w, in_axes=None)(2.0, w=np.arange(3.0)).tolist() == [0, 2, 4]
    with pytest.raises(fn.ShapeError, match=r"vmap: out_axes=None for an output of shape \(2,\) that differs"):
        fn.vmap(lambda x: x, out_axes=None)(X[:, :2])
    with pytest.raises(fn.ShapeError, match=r"in_axes=0 for an argument of shape \(\)"):
        fn.vmap(f)(X[:, :2], scale=fn.tensor(1.0))


def test_a_rule_that_loops_says_so_once_and_no_own_primitive_does() -> None:
    cube = Primitive("cube_without_rule", lambda x: (x,), cpu=lambda ins, outs: np.power(ins[0], 3, out=outs[0]))
    with pytest.warns(UserWarning, match="vmap: cube_without_rule has no batching rule .* 3 times"):
        assert fn.vmap(cube)(fn.tensor([1.0, 2.0, 3.0])).tolist() == [1, 8, 27]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fn.vmap(cube)(fn.tensor([1.0, 2.0, 3.0]))
