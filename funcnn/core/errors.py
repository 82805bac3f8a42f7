"""Exceptions. Each is also the builtin type that a PyTorch user and a JAX user would catch."""

from __future__ import annotations

import os
import sys

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class FuncnnError(Exception):
    """Base of every error that funcnn raises for a reason of its own."""


class ShapeError(FuncnnError, RuntimeError, ValueError):
    """Shapes, ranks or channel counts that do not fit the operation."""


class DTypeError(FuncnnError, RuntimeError, TypeError):
    """Dtypes that the operation cannot take, or that do not promote to a common one."""


class TracerError(FuncnnError, RuntimeError, TypeError):
    """A traced value was asked for its number, or was used after its transformation had ended."""


class GradientError(FuncnnError, RuntimeError):
    """A gradient was asked for where there is none: no graph, a freed graph, an overwritten value."""


def user_line() -> str:
    """``file:line`` of the innermost frame outside this package: where the user's code asked for what failed."""
    frame = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
