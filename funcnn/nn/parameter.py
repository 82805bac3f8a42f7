"""Parameter and Buffer: the tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.context import ctx
from funcnn.core.errors import DTypeError
from funcnn.core.tensor import Cell, Tensor, current, refresh, wrap
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.movement.views import clone, detach
from funcnn.ops.tensor.creation import empty


def _leaf(cls: type, data: Any, requires_grad: bool) -> Tensor:
    """A box of class ``cls`` without history on the memory of ``data``. Raises ``TypeError`` and ``DTypeError``."""
    if data is None:
        data = empty((0,))
    if not isinstance(data, (Tensor, np.ndarray)):
        raise TypeError(f"{cls.__name__}: expected a tensor or an array, got {type(data).__name__}; use tensor(...)")
    source = refresh(to_tensor(data))
    if requires_grad and source._v.dtype.kind != "f":
        raise DTypeError(
            f"{cls.__name__}: only floating-point tensors can have gradients, got {source._v.dtype}; "
            "pass requires_grad=False"
        )
    box = wrap(current(source), cls)
    # One version counter for both boxes: an in-place write through either must invalidate what backward() saved.
    if source._cell is None:
        source._cell = Cell()
    box._cell = source._cell
    box._rg = bool(requires_grad)
    if ctx.top is not None:
        box._born = ctx.top.depth
    return box


class Parameter(Tensor):
    """A leaf tensor that becomes a parameter of the Module it is assigned to; shares memory with ``data``."""

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        return _leaf(cls, data, requires_grad)  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict) -> Parameter:
        """A parameter on memory of its own, without gradient."""
        if id(self) not in memo:
            memo[id(self)] = type(self)(clone(detach(self)), self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that becomes a buffer (state that is not trained) of the Module it is assigned to.

    persistent: whether it belongs to the module's ``state_dict``.
    """

    persistent: bool = True

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        box = _leaf(cls, data, isinstance(data, Tensor) and data.requires_grad)
        box.persistent = persistent  # type: ignore[attr-defined]
        return box  # type: ignore[return-value]
