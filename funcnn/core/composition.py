"""The derivative of a composition of primitives, for the vjp rules of fused backward kernels.

A fused backward differentiates a second time through the composition that it stands for. ``transforms.grad`` knows how,
but stands floors above the rules, so it hands its ``vjp`` down when it is imported, and ``transforms.vmap`` its ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_vjp: Callable | None = None
_vmap: Callable | None = None


def provide(vjp: Callable) -> None:
    """Registers who differentiates: ``vjp(f, *primals) -> (value, pullback)``."""
    global _vjp
    _vjp = vjp


def provide_vmap(vmap: Callable) -> None:
    """Registers who batches: ``vmap(f)`` maps over the first axis of every input."""
    global _vmap
    _vmap = vmap


def mapped(f: Callable, lead: int) -> Callable:
    """Maps ``f`` over ``lead`` leading axes of all its inputs."""
    assert _vmap is not None, "transforms.vmap is imported with funcnn"
    for _ in range(lead):
        f = _vmap(f)
    return f


def pullback(f: Callable, primals: tuple, cotangents: Any) -> tuple:
    """Returns the cotangents of ``primals`` for those of what ``f(*primals)`` returns."""
    assert _vjp is not None, "transforms.grad is imported with funcnn"
    return _vjp(f, *primals)[1](cotangents)
