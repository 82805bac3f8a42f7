"""The derivative of a composition of primitives, for the vjp rules of fused backward kernels.

A fused backward differentiates a second time through the composition that it stands for. ``transforms.grad`` knows how,
but stands floors above the rules, so it hands its ``vjp`` down when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_vjp: Callable | None = None


def provide(vjp: Callable) -> None:
    """Say who differentiates: ``vjp(f, *primals) -> (value, pullback)``."""
    global _vjp
    _vjp = vjp


def pullback(f: Callable, primals: tuple, cotangents: Any) -> tuple:
    """The cotangents of ``primals``, for those of what ``f(*primals)`` returns."""
    assert _vjp is not None, "transforms.grad is imported with funcnn"
    return _vjp(f, *primals)[1](cotangents)
