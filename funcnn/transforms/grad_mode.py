"""``no_grad``, ``enable_grad`` and ``set_grad_enabled``: whether operations are recorded, per thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from funcnn.core.context import ctx


class set_grad_enabled:
    """Record operations for gradients or not: at once, within ``with``, or for a decorated function."""

    def __init__(self, mode: bool):
        self.mode, self.saved = bool(mode), [ctx.grad]
        ctx.grad = self.mode

    def __enter__(self) -> None:
        ctx.grad = self.mode

    def __exit__(self, *exc: Any) -> None:
        ctx.grad = self.saved[-1]

    def __call__(self, f: Callable) -> Callable:
        ctx.grad = self.saved[-1]
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


class _Mode:
    """A context manager and decorator for one mode; re-entrant."""

    mode: bool

    def __init__(self, f: Callable | None = None):
        self.saved: list[bool] = []

    def __new__(cls, f: Callable | None = None) -> Any:
        return object.__new__(cls) if f is None else _wrapped(f, cls.mode)

    def __enter__(self) -> None:
        self.saved.append(ctx.grad)
        ctx.grad = self.mode

    def __exit__(self, *exc: Any) -> None:
        ctx.grad = self.saved.pop()

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
