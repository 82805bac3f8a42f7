"""Writes to one side of a detached alias, or of a view, inside transformations: history and memory are as in eager code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import GradientError

fuzz = pytest.importorskip("benchmarks.fuzz_grad")
torch = pytest.importorskip("torch")

BASES: dict[str, Callable] = {"made inside": lambda m, x: m.ones(3) * 1.0, "traced": lambda m, x: x * 2.0}
ALIASES: dict[str, Callable] = {
    "detach": lambda b: b.detach(),
    "detach twice": lambda b: b.detach().detach(),
    "data": lambda b: b.data if isinstance(b, fn.Tensor) else b.detach(),
    "view of a detach": lambda b: b.detach()[0:3],
    "detach of a view": lambda b: b[0:3].detach(),
}


def _set(m: Any, d: Any, b: Any, x: Any) -> None:
    d[0] = x[0]


def _copy_itself(m: Any, d: Any, b: Any, x: Any) -> None:
    b.copy_(b)


def _base(m: Any, d: Any, b: Any, x: Any) -> None:
    b.mul_(x)


def _alias(m: Any, d: Any, b: Any, x: Any) -> None:
    d.mul_(x)


def _quiet_base(m: Any, d: Any, b: Any, x: Any) -> None:
    with m.no_grad():
        b[1] = 0.5


def _quiet_alias(m: Any, d: Any, b: Any, x: Any) -> None:
    with m.no_grad():
        d[1:].mul_(3.0)


def _quiet_read(m: Any, d: Any, b: Any, x: Any) -> None:
    with m.no_grad():
        (b.sum() + d.sum()).sin()


WRITES: dict[str, list[Callable]] = {
    "alias, base copies itself": [_set, _copy_itself],
    "alias, base": [_set, _base],
    "base, alias": [_base, _alias, _base, _set],
    "alias, base, alias": [_alias, _base, _alias],
    "base, quiet read, base": [_base, _quiet_read, _base, _quiet_read],
    "alias, quiet base": [_alias, _quiet_base, _quiet_read],
    "base, quiet alias": [_base, _quiet_alias, _copy_itself],
    "quiet alias, base, quiet base": [_quiet_alias, _base, _quiet_base, _alias],
}


def _program(m: Any, base: str, alias: str, writes: str) -> Callable:
    def f(x: Any) -> Any:
        b = BASES[base](m, x)
        d = ALIASES[alias](b)
        view = b[1:]
        for write in WRITES[writes]:
            write(m, d, b, x)
        return (b * b).sum() + 10 * (d * d * d).sum() + 3 * (view * view).sum()

    return f


def _twice(f: Callable) -> Callable:
    return fn.grad(lambda x: (fn.grad(f)(x) ** 2).sum())


WAYS: dict[str, Callable] = {
    "grad": fn.grad,
    "jit of grad": lambda f: fn.jit(fn.grad(f)),
    "grad of jit": lambda f: fn.grad(fn.jit(f)),
    "vmap of grad": lambda f: lambda x: fn.vmap(fn.grad(f))(fn.stack([x + 1, x]))[1],
    "grad of vmap": lambda f: lambda x: fn.grad(lambda xs: fn.vmap(f)(xs).sum())(fn.stack([x + 1, x]))[1],
}


@pytest.mark.parametrize("writes", WRITES)
@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("base", BASES)
def test_gradients_are_those_of_pytorch(base: str, alias: str, writes: str) -> None:
    t = torch.tensor([2.0, 3.0, 4.0], requires_grad=True)
    (g,) = torch.autograd.grad(_program(torch, base, alias, writes)(t), t, create_graph=True)
    (second,) = torch.autograd.grad((g**2).sum(), t)
    f, x = _program(fn, base, alias, writes), fn.tensor([2.0, 3.0, 4.0])
    for name, way in WAYS.items():
        np.testing.assert_allclose(way(f)(x).numpy(), g.detach().numpy(), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(_twice(f)(x).numpy(), second.numpy(), rtol=1e-5)
    leaf = x.clone().requires_grad_()
    f(leaf).backward()
    np.testing.assert_allclose(leaf.grad.numpy(), g.detach().numpy(), rtol=1e-5)


def test_a_view_that_is_read_quietly_keeps_its_history() -> None:
    def f(x: Any) -> Any:
        b = x * 2
        view = b[1:]
        b.mul_(x)
        with fn.no_grad():
            view.sum()
        return (view * view).sum()

    assert fn.grad(f)(fn.tensor([2.0, 3.0, 4.0])).tolist() == [0.0, 432.0, 1024.0]


def test_a_quiet_write_leaves_what_a_derivative_reads() -> None:
    def f(x: Any) -> Any:
        y = fn.exp(x)
        with fn.no_grad():
            y[None, ...] = 3.0  # through a view, which is an array
        alone = fn.exp(x)
        other = alone.detach()
        z = alone * alone
        del alone
        other.add_(1.0)
        return (y + z).sum()

    x = fn.tensor([0.5, -1.0])
    np.testing.assert_allclose(fn.grad(f)(x).numpy(), (fn.exp(x) + 2 * fn.exp(2 * x)).numpy(), rtol=1e-5)


def test_a_pullback_notices_a_write_to_the_result_that_it_reads() -> None:
    y, pullback = fn.vjp(fn.exp, fn.tensor([1.0, 2.0]))
    y.zero_()
    with pytest.raises(GradientError, match="overwritten by an in-place"):
        pullback(fn.ones(2))


def test_every_alias_of_a_chain_sees_a_traced_write() -> None:
    def f(x: Any) -> Any:
        a = fn.ones(3)
        one, two = a.detach(), a.detach().detach()  # the one in the middle is nobody's
        del a
        two.mul_(x)
        return x.sum(), (one, two)

    _, (one, two) = fn.grad(f, has_aux=True)(fn.tensor([1.0, 2.0, 3.0]))
    assert one.tolist() == two.tolist() == [1.0, 2.0, 3.0]


def test_views_of_single_numbers_under_vmap() -> None:
    def f(x: Any) -> Any:
        t, u = x * 2.0, x * 3.0
        t.unfold(0, 1, 1)[:] = 1.0
        u.flatten().add_(x)
        return t + u

    assert fn.vmap(f)(fn.tensor([1.0, 2.0])).tolist() == [5.0, 9.0]


def test_an_outer_history_outlasts_a_batched_write() -> None:
    def f(w: Any) -> Any:
        def row(x: Any) -> Any:
            b = fn.ones(2)
            d = b.detach()
            d.mul_(w)  # is the same for all examples
            b.mul_(x)  # is not
            return (d * d).sum()

        return fn.vmap(row)(fn.tensor([[2.0, 3.0], [4.0, 5.0]])).sum()

    w, total = torch.tensor([1.0, 2.0], requires_grad=True), 0.0
    for x in ([2.0, 3.0], [4.0, 5.0]):
        b = torch.ones(2)
        d = b.detach()
        d.mul_(w)
        b.mul_(torch.tensor(x))
        total = total + (d * d).sum()
    total.backward()
    np.testing.assert_allclose(fn.grad(f)(fn.tensor([1.0, 2.0])).numpy(), w.grad.numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 500, 125))
def test_gradients_of_random_programs(first: int) -> None:
    ends, wrong = fuzz.fuzz(torch, fn, range(first, first + 125), few=True)
    assert not wrong, wrong
    assert ends["grad", "agree"] > 25 and ends["grad", "refused"] < 5
