"""Exceptions. Each is also the builtin type that a PyTorch user and a JAX user would catch."""

from __future__ import annotations


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
