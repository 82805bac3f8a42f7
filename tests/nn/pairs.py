"""The same small modules in funcnn and in torch, and the comparison of what the two answer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import funcnn  # noqa: F401  (attaches the methods of Tensor)
from funcnn.nn.module import Module
from funcnn.nn.parameter import Buffer, Parameter
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.tensor import creation

OURS = SimpleNamespace(Module=Module, Parameter=Parameter, Buffer=Buffer, tensor=creation.tensor, ones=creation.ones)


def theirs() -> SimpleNamespace:
    """torch under the names of ``OURS``; skips where it is not installed."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    return SimpleNamespace(
        Module=nn.Module, Parameter=nn.Parameter, Buffer=nn.Buffer, tensor=torch.tensor, ones=torch.ones
    )


def build(lib: SimpleNamespace) -> SimpleNamespace:
    """The same small modules in either library."""

    class Scale(lib.Module):
        def __init__(self, size: int = 2):
            super().__init__()
            self.size = size
            self.weight = lib.Parameter(lib.ones(size))
            self.register_parameter("bias", None)
            self.register_buffer("count", lib.tensor([0.0]))
            self.register_buffer("scratch", lib.tensor([3.0]), persistent=False)

        def forward(self, x, shift=0.0):
            return x * self.weight + shift if lib is not OURS else add(mul(x, self.weight), shift)

        def extra_repr(self):
            return f"size={self.size}"

    class Net(lib.Module):
        def __init__(self):
            super().__init__()
            self.first = Scale(2)
            self.second = Scale(2)
            self.tied = self.first
            self.nothing = None
            self.gain = lib.Parameter(lib.tensor([2.0, 3.0]))

        def forward(self, x):
            return (
                self.second(self.first(x)) * self.gain
                if lib is not OURS
                else mul(self.second(self.first(x)), self.gain)
            )

    return SimpleNamespace(Scale=Scale, Net=Net)


class Scale(build(OURS).Scale):
    """At module level, so that it can be pickled."""


Net = build(OURS).Net


def numbers(t) -> list:
    return np.asarray(t._v).tolist()


def agree(question) -> None:
    """``question(lib)`` has one answer, or raises one type of error, in both libraries."""
    answers = []
    for lib in (OURS, theirs()):
        try:
            answers.append(question(lib))
        except Exception as error:
            answers.append(type(error))
    assert answers[0] == answers[1]
