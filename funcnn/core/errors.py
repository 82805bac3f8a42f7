"""Exceptions. Each is also the builtin type that a PyTorch user and a JAX user would catch."""

from __future__ import annotations

import os
import sys

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class FuncnnError(Exception):
    """Is the base of every error that funcnn itself defines."""


class ShapeError(FuncnnError, RuntimeError, ValueError):
    """Reports shapes, ranks or channel counts that do not fit the operation."""


class DTypeError(FuncnnError, RuntimeError, TypeError):
    """Reports dtypes that the operation does not take, or that do not promote to a common one."""


class DeviceError(FuncnnError, RuntimeError):
    """Reports operands on several devices, an unknown device, or an operation without an implementation for a device."""


class TracerError(FuncnnError, RuntimeError, TypeError):
    """Reports that a traced value was asked for its elements, or was used after its transformation had ended."""


class GradientError(FuncnnError, RuntimeError):
    """Reports that a gradient does not exist: there is no graph, the graph was freed, or a value was overwritten."""


def locate(error: Exception, name: str, what: object, input: object = None, before: str = "") -> None:
    """Adds to an error's message the layer where it happened.

    Each caller on the way out adds its ``name`` for what it called to the path; the innermost layer, ``what``, is shown, and
    where its input is a tuple also the layer ``before`` it, which gave one. Only our errors and ``TypeError`` are told:
    what a user raises stays as it is.
    """
    if not isinstance(error, (FuncnnError, TypeError)) or len(error.args) != 1 or not isinstance(error.args[0], str):
        return
    message, path, inner = getattr(error, "_located", (error.args[0], "", ""))
    if not inner:
        inner = repr(what).split("\n")[0].rstrip("(")
        if isinstance(input, (tuple, list)):
            message += (
                f"; its input is a {type(input).__name__}: {before or 'the layer before it'} gives more than one output"
            )
    path = f"{name}.{path}" if name and path else name or path
    setattr(error, "_located", (message, path, inner))
    error.args = (f"{message} [in layer {path}: {inner}]" if path else message,)


_inside: dict[str, bool] = {}  # by the name of a source file: whether it is one of this package


def user_line() -> str:
    """Returns ``file:line`` of the innermost frame outside this package, where the user's code called what failed."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        inside = _inside.get(name)
        if inside is None:
            inside = _inside[name] = os.path.abspath(name).startswith(_PACKAGE + os.sep)
        if not inside:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "an unknown line"
