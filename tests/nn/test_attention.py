"""``nn.MultiheadAttention`` against PyTorch: values, weights, gradients, state, masks and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import nn

torch = pytest.importorskip("torch")

ROWS: list[dict] = [
    {}, {"bias": False}, {"kdim": 3, "vdim": 5}, {"kdim": 6, "bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"batch_first": True}, {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
]  # fmt: skip
PADDING = np.array([[False, False, True, False], [False, True, True, False], [False] * 4])
CALLS: list[dict] = [
    {}, {"need_weights": False}, {"average_attn_weights": False}, {"key_padding_mask": PADDING},
    {"attn_mask": np.triu(np.ones((5, 4), bool), 2), "need_weights": False},
    {"attn_mask": np.linspace(-1, 1, 6 * 20).reshape(6, 5, 4), "key_padding_mask": PADDING.astype(float), "need_weights": False},
    {"attn_mask": np.linspace(-1, 1, 20).reshape(5, 4), "key_padding_mask": PADDING * -1e9},
]  # fmt: skip


def _pair(options: dict) -> tuple[Any, Any]:
    mine = nn.MultiheadAttention(8, 2, **options, dtype=fn.float64)
    theirs = torch.nn.MultiheadAttention(8, 2, **options, dtype=torch.float64)
    assert {k: tuple(v.shape) for k, v in mine.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    assert list(mine.state_dict()) == list(theirs.state_dict()) and repr(mine) == repr(theirs)
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_()
    mine.load_state_dict({k: fn.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return mine, theirs


def _inputs(m: Any, batched: bool = True) -> list:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 3, size)) for n, size in ((5, 8), (4, m.kdim), (4, m.vdim))]
    if not batched:
        return [a[:, 0] for a in arrays]
    return [a.swapaxes(0, 1) for a in arrays] if m.batch_first else arrays


def _apply(m: Any, back: Any, arrays: list, call: dict) -> list:
    inputs = [back(a).requires_grad_() for a in arrays]
    named = {k: back(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
    out, weights = m(*inputs, **named)
    assert (weights is None) == (not call.get("need_weights", True))
    (out * out).sum().backward()
    grads = [p.grad for p in m.parameters()]
    results = [out.detach(), *([] if weights is None else [weights.detach()]), *(x.grad for x in inputs), *grads]
    for p in m.parameters():
        p.grad = None
    return [np.asarray(t.numpy()) for t in results]


def _agree(mine: Any, theirs: Any, arrays: list, call: dict) -> None:
    copy = lambda a: torch.tensor(np.array(a))
    for a, b in zip(_apply(mine, fn.tensor, arrays, call), _apply(theirs, copy, arrays, call), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("options", ROWS, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=lambda c: "-".join(c))
def test_as_in_torch(options: dict, call: dict) -> None:
    mine, theirs = _pair(options)
    _agree(mine, theirs, _inputs(mine), call)


@pytest.mark.parametrize(
    "call", [{}, {"need_weights": False}, {"key_padding_mask": PADDING[0]}], ids=lambda c: "-".join(c)
)
def test_without_a_batch(call: dict) -> None:
    mine, theirs = _pair({"batch_first": True})
    _agree(mine, theirs, _inputs(mine, batched=False), call)


@pytest.mark.parametrize("weights", [False, True])
def test_causal_self_attention(weights: bool) -> None:
    mine, theirs = _pair({})
    x = np.random.default_rng(1).normal(size=(6, 2, 8))
    mask = np.triu(np.ones((6, 6), bool), 1)
    outs = []
    for m, back in ((mine, fn.tensor), (theirs, lambda a: torch.tensor(np.array(a)))):
        t = back(x).requires_grad_()
        out, _ = m(query=t, key=t, value=t, attn_mask=back(mask), is_causal=True, need_weights=weights)
        (out * out).sum().backward()
        outs.append([out.detach().numpy(), t.grad.numpy()])
    for a, b in zip(*outs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_dropout_is_for_training_and_needs_a_key_in_a_pure_layer() -> None:
    layer = L.MultiheadAttention(8, 2, dropout=0.5)
    params, state = layer.init(fn.random.key(0))
    x = fn.random.normal(fn.random.key(1), (5, 3, 8))
    for weights in (True, False):
        (calm, _), after = layer(params, state, x, x, x, None, weights)
        assert after is state
        noisy = [
            layer(params, state, x, x, x, None, weights, training=True, key=fn.random.key(i))[0][0].numpy()
            for i in (2, 2, 3)
        ]
        assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
        assert not np.array_equal(noisy[0], calm.numpy())
    with pytest.raises(L.KeyRequired):
        layer(params, state, x, x, x, training=True)
    module = nn.MultiheadAttention(8, 2, dropout=0.5)
    assert not np.array_equal(module(x, x, x)[0].detach().numpy(), module(x, x, x)[0].detach().numpy())
    module.eval()
    assert np.array_equal(module(x, x, x)[0].detach().numpy(), module(x, x, x)[0].detach().numpy())


def test_fresh_weights_spread_as_in_torch() -> None:
    torch.manual_seed(0), fn.manual_seed(0)
    for options in ({}, {"kdim": 100, "vdim": 20, "add_bias_kv": True}):
        mine, theirs = nn.MultiheadAttention(64, 4, **options), torch.nn.MultiheadAttention(64, 4, **options)
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            spread = b.detach().numpy().std()
            np.testing.assert_allclose(a.detach().numpy().std(), spread, rtol=0.35, err_msg=name)


def test_what_does_not_fit_is_refused() -> None:
    m, x = nn.MultiheadAttention(8, 2), fn.ones(5, 3, 8)
    for error, words, call in [
        (ValueError, "divisible by num_heads", lambda: nn.MultiheadAttention(8, 3)),
        (ValueError, "dropout must be", lambda: nn.MultiheadAttention(8, 2, 1.5)),
        (ValueError, "embed_dim must be positive", lambda: nn.MultiheadAttention(0, 1)),
        (ValueError, "promise about attn_mask", lambda: m(x, x, x, is_causal=True)),
        (fn.ShapeError, "expected queries of embed_dim 8", lambda: m(x[..., :4], x, x)),
        (fn.ShapeError, "key and value must agree", lambda: m(x, x, x[:2])),
        (fn.ShapeError, "one batch size", lambda: m(x, x[:, :2], x[:, :2])),
        (fn.ShapeError, "2 dimensions", lambda: m(x, x[0], x[0])),
        (fn.ShapeError, "attn_mask must be", lambda: m(x, x, x, attn_mask=fn.ones(5, 4))),
        (fn.ShapeError, "key_padding_mask must be", lambda: m(x, x, x, key_padding_mask=fn.ones(5, 3))),
        (fn.DTypeError, "must be of bool", lambda: m(x, x, x, attn_mask=fn.ones(5, 5, dtype=fn.int64))),
    ]:
        with pytest.raises(error, match=words):
            call()
