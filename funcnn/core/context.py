"""Which interpreter is current, and for a profiler at which module, per thread: the ambient state of the core."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, ClassVar

from funcnn.kernels.interrupts import Leaving


class Context(threading.local):
    """``top``: innermost transformation or None; ``stage``: the jit being traced or None; ``grad``: recording allowed.

    path, module: those of the innermost module call, where a ``Scope`` notes them; ``backward``: a tape is walked back.
    preferred: the ``Preference`` for an implementation, or None.
    """

    top: Any = None
    stage: Any = None
    grad: bool = True
    path: str = ""
    module: Any = None
    backward: bool = False
    preferred: Any = None


ctx = Context()


def recordable() -> bool:
    """Whether something may need more than the value of what is computed now: a gradient or a transformation."""
    return ctx.grad or ctx.top is not None or ctx.stage is not None


class Scope(Leaving):
    """Marks, as ``with Scope(path, module)``, that the module (None: a pure layer) at a dotted path runs."""

    __slots__ = ("module", "path")
    wanted: ClassVar[set] = set()  # the profiles and traces there are, in any thread; without one no path is noted

    def __init__(self, path: str, module: Any = None):
        self.path, self.module = path, module

    def __enter__(self) -> None:
        here = ctx.__dict__
        self.close = partial(here.update, {"path": ctx.path, "module": ctx.module})
        ctx.path, ctx.module = self.path, self.module


def below(name: str) -> str:
    """Returns the path of what is called ``name`` in the current scope."""
    return f"{ctx.path}.{name}" if ctx.path and name else ctx.path or name


class running(Leaving):
    """``with running(top, grad)``: bind primitives to ``top``, as an interpreter does for its lowered values."""

    __slots__ = ("grad", "top")

    def __init__(self, top: Any, grad: bool):
        self.top, self.grad = top, grad

    def __enter__(self) -> None:
        here = ctx.__dict__
        self.close = partial(here.update, {"top": ctx.top, "grad": ctx.grad})
        ctx.top, ctx.grad = self.top, self.grad
