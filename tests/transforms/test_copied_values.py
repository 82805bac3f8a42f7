"""What is copied into a traced tensor does not change when its source is written afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn


def _quiet(write: Callable) -> Callable:
    def run(v: Any, t: Any) -> None:
        with fn.no_grad():
            write(v, t)

    return run


def _whole(v: Any, t: Any) -> None:
    v[:] = t


def _part(v: Any, t: Any) -> None:
    v[0:2] = t[0:2]


WRITES: dict[str, Callable] = {
    "copy_": lambda v, t: v.copy_(t),
    "copy_ of a number": lambda v, t: v.copy_(t[0]),
    "quiet copy_": _quiet(lambda v, t: v.copy_(t)),
    "quiet copy_ of a number": _quiet(lambda v, t: v.copy_(t[0])),
    "copy_ of a view": lambda v, t: v.flip(0)[:].copy_(t.flip(0)[:]),
    "setitem": _whole,
    "setitem of a part": _part,
    "fill_": lambda v, t: v.fill_(t[0]),
    "into a detached alias": lambda v, t: v.detach().copy_(t),
    "into a view": lambda v, t: v[1:].copy_(t[1:]),
}
WAYS: dict[str, Callable] = {
    "grad": lambda f: fn.value_and_grad(f),
    "jit of grad": lambda f: fn.jit(fn.value_and_grad(f)),
    "grad of jit": lambda f: fn.value_and_grad(fn.jit(f)),
    "vmap of grad": lambda f: lambda x: fn.vmap(fn.value_and_grad(f), in_axes=0)(fn.stack([x, x])),
}


@pytest.mark.parametrize("target", [False, True], ids=["source written", "target written"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("write", WRITES)
def test_a_copy_and_its_source_are_apart(write: str, way: str, target: bool) -> None:
    def f(x: Any) -> Any:
        v, t = x * 1.0, fn.tensor([2.0, 3.0, 4.0], dtype=fn.float64)
        WRITES[write](v, t)
        (v if target else t).mul_(2.0)
        return (v * x).sum() + t.sum()

    x = fn.tensor([1.0, 2.0, 3.0], dtype=fn.float64)
    leaf = x.clone().requires_grad_()
    value = f(leaf)
    value.backward()
    got = [np.asarray(out.numpy()) for out in WAYS[way](f)(x)]
    expected = [value.detach().numpy(), leaf.grad.numpy()]
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, np.broadcast_to(two, one.shape))
