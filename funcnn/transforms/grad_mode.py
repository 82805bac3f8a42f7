"""``no_grad``, ``enable_grad`` and ``set_grad_enabled``: whether operations are recorded, per thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from itertools import starmap
from typing import Any

from funcnn.core.context import ctx
from funcnn.kernels.interrupts import Leaving


class set_grad_enabled(Leaving):
    """Record operations for gradients or not: at once, within ``with``, or for a decorated function."""

    __slots__ = ("mode",)

    def __init__(self, mode: bool):
        self.mode = bool(mode)
        self.close = partial(ctx.__dict__.update, {"grad": ctx.grad})
        ctx.grad = self.mode

    def __enter__(self) -> None:
        ctx.grad = self.mode

    def __call__(self, f: Callable) -> Callable:
        self.close()
        return _wrapped(f, self.mode)


def _wrapped(f: Callable, mode: bool) -> Callable:
    @wraps(f)
    def inside(*args: Any, **kwargs: Any) -> Any:
        saved, ctx.grad = ctx.grad, mode
        try:
            return f(*args, **kwargs)
        finally:
            ctx.grad = saved

    return inside


class _Mode(Leaving):
    """A context manager and decorator for one mode; re-entrant."""

    __slots__ = ("saved",)
    mode: bool

    def __init__(self, f: Callable | None = None):
        self.saved: list[tuple[dict, dict]] = []  # the last is taken and put back, all in C
        self.close = partial(next, starmap(dict.update, iter(self.saved.pop, None)))

    def __new__(cls, f: Callable | None = None) -> Any:
        return super().__new__(cls) if f is None else _wrapped(f, cls.mode)

    def __enter__(self) -> None:
        saved = self.saved
        # Not by a call, after which an interrupt may come: entered twice, the outer leaving would take what the inner left.
        saved += [(ctx.__dict__, {"grad": ctx.grad})]
        ctx.grad = self.mode

    def __call__(self, f: Callable) -> Callable:
        return _wrapped(f, self.mode)


class no_grad(_Mode):
    """Within, nothing is recorded: results do not require grad. Also a decorator."""

    mode = False


class enable_grad(_Mode):
    """Within, operations are recorded again, inside a ``no_grad``. Also a decorator."""

    mode = True


inference_mode = no_grad


def is_grad_enabled() -> bool:
    """Whether operations are being recorded."""
    return ctx.grad
