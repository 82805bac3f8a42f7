"""In-place writes by operations: ``core.mutation.assign`` for values that may themselves be leaves."""

from __future__ import annotations

from funcnn.core.context import ctx
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor
from funcnn.ops.elementwise import clone


def write(t: Tensor, new: Tensor, name: str) -> Tensor:
    """Give ``t`` the value and history of ``new``; a leaf that requires grad is reached through a copy of it."""
    return assign(t, clone(new) if ctx.grad and new._rg else new, name)
