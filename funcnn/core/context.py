"""Which interpreter is current, per thread: the one piece of ambient state in the core."""

from __future__ import annotations

import threading
from typing import Any


class Context(threading.local):
    """``top``: innermost transformation or None; ``stage``: the jit being traced or None; ``grad``: recording allowed."""

    top: Any = None
    stage: Any = None
    grad: bool = True


ctx = Context()


class running:
    """``with running(top, grad)``: bind primitives to ``top``, as an interpreter does for its lowered values."""

    __slots__ = ("grad", "saved", "top")

    def __init__(self, top, grad: bool):
        self.top, self.grad = top, grad

    def __enter__(self):
        self.saved = (ctx.top, ctx.grad)
        ctx.top, ctx.grad = self.top, self.grad

    def __exit__(self, *exc):
        ctx.top, ctx.grad = self.saved
