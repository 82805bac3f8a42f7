"""Samplers and layers refuse what PyTorch refuses, eagerly and compiled; what is drawn requires grad where PyTorch's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn

NAN, INF = float("nan"), float("inf")
torch = pytest.importorskip("torch")


def refuses(T: Any, f: Any) -> bool:
    try:
        f(T)
    except (ValueError, TypeError, RuntimeError):
        return True
    return False


NUMBERS = (0.0, 0.5, 1.0, 1.5, -0.1, NAN, INF, -INF)
WEIGHTS = (
    [0.0, 0, 0],
    [1.0, NAN, 1],
    [1.0, -1, 1],
    [1.0, INF, 1],
    [0.0, 0, 1],
    [2.0, 0.5, 1],
    [[1.0, 1], [0, 0]],
    [[1.0, 1], [1, 0]],
    [],
)
SAMPLERS: dict[str, Any] = {
    **{f"bernoulli {v}": lambda T, v=v: T.bernoulli(T.tensor([0.5, v])) for v in NUMBERS},
    **{f"bernoulli p={v}": lambda T, v=v: T.bernoulli(T.ones(2), v) for v in NUMBERS},
    **{f"bernoulli_ {v}": lambda T, v=v: T.ones(2).bernoulli_(v) for v in NUMBERS},
    **{f"bernoulli_ tensor {v}": lambda T, v=v: T.ones(2).bernoulli_(T.tensor([0.5, v])) for v in NUMBERS},
    **{f"normal {v}": lambda T, v=v: T.normal(0.0, v, (2,)) for v in NUMBERS},
    **{f"normal tensor {v}": lambda T, v=v: T.normal(T.zeros(2), T.tensor([1.0, v])) for v in NUMBERS},
    **{f"normal mixed {v}": lambda T, v=v: T.normal(T.zeros(2), v) for v in NUMBERS},
    **{f"normal other {v}": lambda T, v=v: T.normal(0.0, T.tensor([1.0, v])) for v in NUMBERS},
    **{f"normal_ {v}": lambda T, v=v: T.zeros(2).normal_(0, v) for v in NUMBERS},
    **{f"init {v}": lambda T, v=v: T.nn.init.normal_(T.zeros(2), 0, v) for v in NUMBERS},
    **{f"uniform_ {a} {b}": lambda T, a=a, b=b: T.zeros(2).uniform_(a, b) for a in NUMBERS for b in NUMBERS},
    **{f"multinomial {w} {n} {r}": lambda T, w=w, n=n, r=r: T.multinomial(T.tensor(w), n, r)
       for w in WEIGHTS for n in (-1, 0, 1, 2, 5) for r in (False, True)},
    "multinomial ints": lambda T: T.multinomial(T.tensor([1, 2]), 1),
    "multinomial 0-d": lambda T: T.multinomial(T.tensor(1.0), 1),
    "multinomial 3-d": lambda T: T.multinomial(T.ones(2, 2, 2), 1),
    "multinomial bool": lambda T: T.multinomial(T.ones(3), True),
    "multinomial float": lambda T: T.multinomial(T.ones(3), 1.0),
    "bernoulli ints": lambda T: T.bernoulli(T.ones(2).long()),
    "bernoulli ints p": lambda T: T.bernoulli(T.ones(2).long(), 0.5),
    "normal_ ints": lambda T: T.ones(2).long().normal_(),
    "uniform_ ints": lambda T: T.ones(2).long().uniform_(),
    "bernoulli_ ints": lambda T: T.ones(2).long().bernoulli_(),
    **{f"random_ {a}": lambda T, a=a: T.ones(2).byte().random_(*a) for a in ((), (0,), (3, 1), (0, 256), (0, 257), (-1, 4), (7,))},
}  # fmt: skip
LAYERS: dict[str, Any] = {
    **{f"{name} {option}={v!r}": lambda T, name=name, option=option, v=v: getattr(T.nn, name)(3, 2, **{option: v})
       for name in ("RNN", "LSTM", "GRU") for option in ("bias", "batch_first") for v in (True, False, 1, 0, None, "yes", np.True_)},
    **{f"{name} bias={v!r}": lambda T, name=name, v=v: getattr(T.nn, name)(3, 2, bias=v)
       for name in ("RNNCell", "LSTMCell", "GRUCell") for v in (True, 1, 0, None)},
    **{f"entropy {i} {w is None}": lambda T, i=i, w=w: T.nn.CrossEntropyLoss(ignore_index=i, weight=w and T.ones(3))(T.ones(2, 3), T.ones(2, 3))
       for i in (-100, -1, 0, 1, 7) for w in (None, 1)},
    **{f"batch norm {eps} {training} {n}": lambda T, eps=eps, training=training, n=n:
       T.nn.BatchNorm1d(3, eps=eps).train(training)(T.ones(n, 3)) for eps in (1e-5, 0.0) for training in (True, False) for n in (0, 4)},
    **{f"{name} {eps}": lambda T, name=name, eps=eps, args=args: getattr(T.nn, name)(*args, eps=eps)(T.ones(2, 4, 3))
       for name, args in (("GroupNorm", (2, 4)), ("LayerNorm", (3,)), ("InstanceNorm1d", (4,))) for eps in (0.0, -1e-5)},
}  # fmt: skip


@pytest.mark.parametrize("name", [*SAMPLERS, *LAYERS])
def test_refused_where_pytorch_refuses(name: str) -> None:
    f = {**SAMPLERS, **LAYERS}[name]
    assert refuses(fn, f) == refuses(torch, f)


@pytest.mark.parametrize("name", ["bernoulli", "normal", "multinomial"])
def test_values_are_checked_at_every_run_of_a_compiled_step(name: str) -> None:
    draw = {
        "bernoulli": fn.bernoulli,
        "normal": lambda s: fn.normal(fn.zeros(2), s),
        "multinomial": lambda w: fn.multinomial(w, 1),
    }[name]
    step, kept = fn.jit(draw), fn.jit(lambda x: (draw(x), x * 2)[1])
    assert step(fn.tensor([0.5, 1.0])).numel() > 0 and kept(fn.tensor([0.5, 1.0])).tolist() == [1, 2]
    for f in (step, kept, fn.vmap(draw, randomness="different")):
        x = fn.tensor([0.5, -1.0])
        with pytest.raises(ValueError, match=f"{name}: expected .* got"):
            f(fn.stack([x, x]) if f not in (step, kept) else x)


def test_the_message_tells_what_came() -> None:
    with pytest.raises(
        ValueError, match=r"multinomial: expected finite weights of at least 0 with a sum above 0, got \[0.0, 0.0\]"
    ):
        fn.multinomial(fn.tensor([[1.0, 1.0], [0.0, 0.0]]), 1)
    with pytest.raises(ValueError, match=r"bernoulli: expected probabilities between 0 and 1, got 1.5"):
        fn.bernoulli(fn.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"random.bernoulli: p must be between 0 and 1, got nan"):
        fn.random.bernoulli(fn.random.key(0), NAN)
    with pytest.raises(TypeError, match=r"LSTM: bias must be a bool, got 1 \(int\)"):
        nn.LSTM(2, 2, bias=1)


@pytest.mark.parametrize("p", [None, 0.3])
def test_bernoulli_requires_grad_where_its_input_does(p: Any) -> None:
    for T in (fn, torch):
        x = T.tensor([0.0, 1.0, 0.4], requires_grad=True)
        y = T.bernoulli(x) if p is None else T.bernoulli(x, p)
        assert y.requires_grad
        if p is None or T is fn:  # PyTorch has no derivative of the other form
            (y * 3).sum().backward()
            assert x.grad.tolist() == [0, 0, 0]
        with T.no_grad():
            assert not T.bernoulli(x).requires_grad
        assert not T.bernoulli(x.detach()).requires_grad
    assert fn.grad(lambda x: fn.bernoulli(x, generator=None).sum())(fn.tensor([0.5, 0.2])).tolist() == [0, 0]


def test_multinomial_still_draws_by_weight() -> None:
    fn.manual_seed(0)
    drawn = fn.multinomial(fn.tensor([0.0, 1.0, 3.0]), 4000, True).numpy()
    assert set(drawn) == {1, 2} and abs((drawn == 2).mean() - 0.75) < 0.03
    assert fn.multinomial(fn.tensor([0.0, 1.0, 3.0]), 1).dtype == fn.int64
