"""What a derivative of many outputs is given: one cotangent for each output, None where nothing arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive

SEEN: list[list[bool]] = []


def _run(ins: list, outs: list) -> None:
    for factor, out in enumerate(outs, 1):
        np.multiply(ins[0], factor, out=out)


def _vjp(g: Any, ins: list, outs: Any) -> tuple:
    SEEN.append([c is not None for c in g])
    last = [] if g[-1] is None else [g[-1] * 3]
    first = [c * factor for factor, c in enumerate(g[:-1], 1) if c is not None]
    return (sum(first + last),)


multiples_p = Primitive("multiples", lambda x: (Aval(tuple(x.shape), x.dtype),) * 3, cpu=_run, vjp=_vjp, multiple=True)


def by_backward(f: Callable, x: Any) -> Any:
    x = x.clone().requires_grad_()
    f(x).backward()
    return x.grad


def by_step(f: Callable, x: Any) -> Any:
    return fn.jit(lambda x: by_backward(f, x.detach()))(x)


WAYS: dict[str, Callable] = {
    "backward": by_backward,
    "grad": lambda f, x: fn.grad(f)(x),
    "jit of backward": by_step,
    "jit of grad": lambda f, x: fn.jit(fn.grad(f))(x),
    "grad of jit": lambda f, x: fn.grad(fn.jit(f))(x),
}


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_there_is_one_cotangent_for_each_output(way: str, used: tuple) -> None:
    SEEN.clear()

    def f(x: Any) -> Any:
        outs = multiples_p(x)
        return sum(outs[slot].sum() for slot in used)

    g = WAYS[way](f, fn.ones(2))
    np.testing.assert_array_equal(g.numpy(), np.full(2, sum(slot + 1 for slot in used)))
    assert SEEN and all(seen == [slot in used for slot in range(3)] for seen in SEEN)


def test_every_derivative_of_the_package_is_given_as_many_as_there_are_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first output is used of some operations that have more."""
    from funcnn.transforms import backward

    apply, seen = backward.apply_vjp, {}

    def counting(node: Any, g: Any) -> tuple:
        if node.prim.multiple:
            avals = [Aval(tuple(t.shape), t.dtype) for t in node.arguments()]
            seen[node.prim.name] = (len(g), len(node.prim.shape(*avals, **node.params)))
        return apply(node, g)

    monkeypatch.setattr(backward, "apply_vjp", counting)
    x = fn.randn(4, 3, 6, requires_grad=True)
    for outs in (
        x.max(1), x.sort(-1), x.topk(2), x.cummax(1), fn.var_mean(x, 1), fn.nn.LSTM(6, 2)(x), fn.nn.GRU(6, 2)(x),
        fn.nn.BatchNorm1d(3)(x), fn.nn.LayerNorm(6)(x), fn.nn.functional.max_pool1d(x, 2, return_indices=True),
        fn.nn.functional.scaled_dot_product_attention(x, x, x), fn.nn.functional.cross_entropy(x, fn.ones(4, 6).long()),
    ):  # fmt: skip
        (outs if isinstance(outs, fn.Tensor) else outs[0]).sum().backward()
    assert len(seen) >= 6 and all(given == outputs for given, outputs in seen.values()), seen
