"""Attention beyond the table of cases: hidden queries, dropout, errors, and memory that does not grow with the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F

attend = F.scaled_dot_product_attention


def _randn(*shape: int, seed: int = 0, dtype: Any = None) -> Any:
    return fn.random.normal(fn.random.key(seed), shape, dtype or fn.float64)


Q, K, V = _randn(2, 3, 5, 4), _randn(2, 3, 6, 4, seed=1), _randn(2, 3, 6, 3, seed=2)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_nothing_gives_zero_and_no_gradient(kind: str) -> None:
    torch = pytest.importorskip("torch")
    hidden = np.ones((5, 6), bool)
    hidden[1] = False
    mask = hidden if kind == "bool" else np.where(hidden, 0.5, -np.inf)
    leaves = []
    for lib, back in ((fn, fn.tensor), (torch, lambda a: torch.tensor(np.array(a)))):
        q, k, v = (back(np.array(t.numpy())).requires_grad_() for t in (Q, K, V))
        m = back(mask) if kind == "bool" else back(mask).requires_grad_()
        out = lib.nn.functional.scaled_dot_product_attention(q, k, v, m)
        (out * out).sum().backward()
        leaves.append([out.detach(), *(t.grad for t in ((q, k, v) if kind == "bool" else (q, k, v, m)))])
    for mine, theirs in zip(*leaves, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-10, atol=1e-12)
    assert not leaves[0][0].numpy()[..., 1, :].any()


@pytest.mark.parametrize("dtype", [fn.float32, fn.float64])
def test_large_and_causal_as_in_torch(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    arrays = [_randn(2, 2, 150, 40, seed=i, dtype=dtype).numpy() for i in range(3)]
    results = []
    for lib, back in ((fn, fn.tensor), (torch, torch.tensor)):
        q, k, v = (back(a).requires_grad_() for a in arrays)
        out = lib.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)
        (out * out).sum().backward()
        results.append([out.detach(), q.grad, k.grad, v.grad])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4 if dtype == fn.float32 else 1e-10)


def _dropped(q: Any, k: Any, v: Any, p: float) -> Any:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=p)


def test_dropout_is_unbiased_repeats_with_its_seed_and_has_its_own_derivative() -> None:
    fn.manual_seed(3)
    rows = [_dropped(Q, K, V, 0.25) for _ in range(400)]
    np.testing.assert_allclose(fn.stack(rows).mean(0).numpy(), attend(Q, K, V).numpy(), atol=0.2)
    assert not np.array_equal(rows[0].numpy(), rows[1].numpy())
    weight = _randn(2, 3, 5, 3, seed=7)

    def loss(q: Any, k: Any, v: Any) -> Any:
        fn.manual_seed(5)
        return (_dropped(q, k, v, 0.4) * weight).sum()

    def slope(q: Any, k: Any, v: Any) -> Any:
        return sum((g * g).sum() for g in fn.grad(loss, (0, 1, 2))(q, k, v))

    for f in (loss, slope):
        for i, g in enumerate(fn.grad(f, (0, 1, 2))(Q, K, V)):
            step = [fn.zeros_like(t) for t in (Q, K, V)]
            step[i] = _randn(*g.shape, seed=9 + i)
            up, down = (f(*(t + h * s for t, s in zip((Q, K, V), step, strict=True))) for h in (1e-5, -1e-5))
            np.testing.assert_allclose((g * step[i]).sum().item(), (up - down).item() / 2e-5, rtol=1e-6)


def test_dropout_of_a_batch_is_that_of_each_example() -> None:
    def one(q: Any) -> Any:
        fn.manual_seed(11)
        return attend(q, K[0], V[0], dropout_p=0.5)

    np.testing.assert_array_equal(fn.vmap(one, randomness="same")(Q).numpy(), fn.stack([one(Q[0]), one(Q[1])]).numpy())
    assert not attend(Q, K, V, dropout_p=1.0).numpy().any()


def test_traced_and_differentiated_twice_with_a_mask() -> None:
    mask = _randn(5, 6, seed=4)

    def f(q: Any, m: Any) -> Any:
        return (fn.grad(lambda q: (attend(q, K, V, m) ** 2).sum())(q) ** 2).sum()

    for mine, jitted in zip(fn.grad(f, (0, 1))(Q, mask), fn.jit(fn.grad(f, (0, 1)))(Q, mask), strict=True):
        np.testing.assert_allclose(mine.numpy(), jitted.numpy(), rtol=1e-12)
    batched = fn.vmap(lambda m: attend(Q, K, V, m))(fn.stack([mask, mask * 2.0]))
    np.testing.assert_allclose(batched[1].numpy(), attend(Q, K, V, mask * 2.0).numpy(), rtol=1e-12)


def test_memory_does_not_grow_with_the_scores() -> None:
    q, k, v = (_randn(1, 3000, 4, seed=i, dtype=fn.float32).requires_grad_() for i in range(3))
    before = fn.memory_stats()["used_bytes"]
    out = attend(q, k, v, is_causal=True)
    out.sum().backward()
    assert fn.memory_stats()["used_bytes"] - before < 3000 * 3000  # a quarter of the scores' bytes


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (fn.ShapeError, "do not fit", lambda: attend(Q, K[..., :3], V)),
        (fn.ShapeError, "do not fit", lambda: attend(Q, K, V[:, :, :5])),
        (fn.ShapeError, "do not fit", lambda: attend(Q, K[:, :2], V[:, :2], enable_gqa=True)),
        (fn.ShapeError, "at least 2 dimensions", lambda: attend(Q[0, 0, 0], K, V)),
        (fn.ShapeError, "attn_mask", lambda: attend(Q, K, V, fn.ones(4, 6, dtype=fn.float64))),
        (fn.ShapeError, "does not broadcast to the scores", lambda: attend(Q, K, V, fn.ones(2, 2, 3, 5, 6, dtype=fn.float64))),
        (fn.DTypeError, "attn_mask of bool or of the query's float64", lambda: attend(Q, K, V, fn.ones(5, 6))),
        (fn.DTypeError, "operands of one dtype", lambda: attend(Q, K.float(), V)),
        (fn.DTypeError, "convert with .float", lambda: attend(Q.half(), K.half(), V.half())),
        (ValueError, "dropout_p must be between 0 and 1", lambda: attend(Q, K, V, dropout_p=1.5)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(error: type, words: str, call: Any) -> None:
    with pytest.raises(error, match=words):
        call()
