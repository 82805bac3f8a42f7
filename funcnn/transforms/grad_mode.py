"""``no_grad``, ``enable_grad`` and ``set_grad_enabled``: whether operations are recorded, per thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from funcnn.core.context import ctx
from funcnn.kernels.interrupts import Leaving, in_c


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


_new = Leaving.__new__


class _Mode(Leaving):
    """A context manager and decorator for one mode; re-entrant."""

    __slots__ = ()
    mode: bool
    close: Any  # None until it is entered

    def __new__(cls, f: Callable | None = None) -> Any:
        if f is not None:
            return _wrapped(f, cls.mode)
        self = _new(cls)
        self.close = None
        return self

    def __enter__(self) -> None:
        here, outer = ctx.__dict__, self.close
        close = partial(here.update, {"grad": ctx.grad})
        if outer is not None:  # entered before, and perhaps not left: then the outer leaving finds its own
            self.close = in_c(close, partial(setattr, self, "close", outer))
        else:
            self.close = close
        here["grad"] = self.mode  # no call between these assignments, after which an interrupt may come

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
