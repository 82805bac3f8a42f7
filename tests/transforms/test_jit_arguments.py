"""Static and donated arguments of ``jit``: JAX's rules, positions and names matched, and refusals that say what is wrong."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn
from funcnn.core.errors import TracerError


def power(x: Any, n: int = 2) -> Any:
    """``n`` decides in Python, so it must be static."""
    return x if n == 1 else x * power(x, n - 1)


X = fn.tensor([1.0, 2.0, 3.0])
WAYS = {
    "number": {"static_argnums": 1},
    "numbers": {"static_argnums": [1]},
    "from the end": {"static_argnums": -1},
    "name": {"static_argnames": "n"},
    "names": {"static_argnames": ["n"]},
    "both": {"static_argnums": (1,), "static_argnames": ("n",)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_parameter_is_static_by_position_by_name_and_by_default(way: str) -> None:
    f = fn.jit(power, **WAYS[way])
    for args, kwargs, n in (((X,), {}, 2), ((X, 3), {}, 3), ((X,), {"n": 3}, 3), ((), {"x": X, "n": 1}, 1)):
        for _ in range(2):
            np.testing.assert_array_equal(f(*args, **kwargs).numpy(), X.numpy() ** n)
    assert f.traces == 4
    np.testing.assert_array_equal(f(X * 2).numpy(), (X * 2).numpy() ** 2)
    assert f.traces == 4, "an argument that the call leaves out makes no other one static"


def test_no_tensor_is_kept_alive_when_the_static_argument_is_left_out() -> None:
    f = fn.jit(power, static_argnums=1)
    x = fn.ones(3)
    gone = weakref.ref(x)
    f(x)
    del x
    gc.collect()
    assert gone() is None and f.traces == 1


def test_the_rest_of_the_arguments() -> None:
    def scaled(*tensors: Any, by: int, **more: Any) -> Any:
        return [t * (1 if by else 2) for t in tensors] + [t + int(more["shift"]) for t in more.values() if t is X]

    f = fn.jit(scaled, static_argnames=("by", "shift"))
    assert [t.tolist() for t in f(X, X, by=0, other=X, shift=1)] == [[2, 4, 6], [2, 4, 6]]
    last = fn.jit(lambda *args: args[0] if args[-1] else -args[0], static_argnums=-1)
    assert last(X, 1).tolist() == X.tolist() and last(X, X, 0).tolist() == (-X).tolist()
    only = fn.jit(lambda x, /, n: x if n else -x, static_argnums=(1,))
    assert only(X, n=0).tolist() == (-X).tolist()

    class Scaler:
        factor = 2

        @fn.jit
        def plain(self, x: Any) -> Any:
            return x * self.factor

        def _chosen(self, x: Any, n: int) -> Any:
            return x if n else x * self.factor

        chosen = fn.jit(_chosen, static_argnums=2)

    scaler = Scaler()
    assert scaler.plain(X).tolist() == scaler.chosen(X, 0).tolist() == scaler.chosen(X, n=0).tolist() == [2, 4, 6]
    assert fn.jit(nn.Identity())(X).tolist() == X.tolist()


@pytest.mark.parametrize("option", ["static_argnums", "donate_argnums"])
@pytest.mark.parametrize("position", [2, -3, (0, 5), [7]])
def test_positions_that_the_function_does_not_have_are_refused(option: str, position: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}=.* for power, which takes 2 positional arguments \(x, n\)"):
        fn.jit(power, **{option: position})


@pytest.mark.parametrize("option", ["static_argnums", "donate_argnums"])
@pytest.mark.parametrize("position", ["n", 1.0, True, None, [0, "x"]])
def test_positions_are_integers(option: str, position: Any) -> None:
    with pytest.raises(TypeError, match=option):
        fn.jit(power, **{option: position})


def test_misspelt_names_are_refused() -> None:
    with pytest.raises(ValueError, match="takes no argument 'm' by name; it takes x, n"):
        fn.jit(power, static_argnames="m")
    with pytest.raises(ValueError, match="takes no argument 'x' by name"):
        fn.jit(lambda x, /: x, static_argnames="x")
    with pytest.raises(TypeError, match="static_argnames"):
        fn.jit(power, static_argnames=1)


def test_a_static_tensor_is_refused() -> None:
    f = fn.jit(power, static_argnums=1)
    for value in (fn.tensor(2), (1, fn.ones(2)), {"a": [fn.ones(2)]}):
        with pytest.raises(TypeError, match=r"argument 1 \(n\) of power is static, but a tensor was given"):
            f(X, value)
        with pytest.raises(TypeError, match="argument n of power is static, but a tensor was given"):
            f(X, n=value)
    with pytest.raises(TypeError, match="hashable"):
        f(X, [1])
    with pytest.raises(TypeError, match="hashable"):
        f(X, np.ones(2))


def test_donated_arguments_by_position_and_by_name() -> None:
    def add(x: Any, y: Any = 1.0) -> Any:
        return x + y

    f = fn.jit(add, donate_argnums=(1,))
    assert f(X).tolist() == [2, 3, 4]
    for call in (lambda y: f(X, y), lambda y: f(X, y=y)):
        y = fn.ones(3)
        assert call(y).tolist() == [2, 3, 4]
        with pytest.raises(TracerError, match="add: this tensor was donated"):
            y.tolist()
    assert f(X, 2.0).tolist() == [3, 4, 5]


def test_donations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"argument 1 \(n\) of power is in static_argnums and in donate_argnums"):
        fn.jit(power, static_argnames="n", donate_argnums=-1)
    f = fn.jit(lambda *xs: xs[0] * 2, donate_argnums=2)
    with pytest.raises(ValueError, match="donate_argnums has 2, but this call of <lambda> gave 1 positional arguments"):
        f(X)
