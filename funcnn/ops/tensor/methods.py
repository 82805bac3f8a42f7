"""PyTorch's methods and operators, put on ``Tensor`` from the functions of ``ops``: one table, no second definition."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core.errors import ShapeError
from funcnn.core.mutation import restructure
from funcnn.core.tensor import Tensor
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import stored, to_tensor
from funcnn.ops.base.registry import Operation, attach_all
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise import arithmetic, comparison, math
from funcnn.ops.indexing import index
from funcnn.ops.matmul import matmul
from funcnn.ops.movement import join
from funcnn.ops.movement import views as movement
from funcnn.ops.movement.views import expand
from funcnn.ops.tensor.exposed import SYNONYMS, methods
from funcnn.ops.tensor.inplace import fill, overwrite, replaced


def inplace(f: Callable, name: str) -> Callable:
    """The in-place form of ``f``: its result replaces the tensor's value."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return replaced(self, f(self, *args, **kwargs), name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of ``{name[:-1]}``."
    method.__wrapped__ = f  # type: ignore[attr-defined]  # whose arguments it takes
    return method


def restructured(f: Callable, name: str) -> Callable:
    """The in-place form of a view: the tensor goes on with the strides of the view, its memory stays as it is."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return restructure(self, lambda old: f(old, *args, **kwargs), name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of ``{name[:-1]}``: no element moves, and other views keep their shape."
    method.__wrapped__ = f  # type: ignore[attr-defined]  # whose arguments it takes
    return method


def reflected(f: Callable, name: str) -> Callable:
    """``other op self`` for the operators Python calls that way round."""

    def method(self: Tensor, other: Any) -> Tensor:
        return f(other, self)

    method.__name__ = name
    return method


def compared(f: Callable, name: str) -> Callable:
    """``==`` and its kin; other types than tensors, arrays and numbers are left to Python."""

    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, (Tensor, int, float, np.ndarray, np.generic)):
            return f(self, other)
        return NotImplemented

    method.__name__ = name
    return method


_OPERATORS = {
    "add": arithmetic.add, "sub": arithmetic.sub, "mul": arithmetic.mul, "truediv": arithmetic.true_divide,
    "floordiv": arithmetic.floor_divide, "mod": arithmetic.remainder, "pow": math.pow, "matmul": matmul.matmul,
    "and": comparison.bitwise_and, "or": comparison.bitwise_or, "xor": comparison.bitwise_xor,
    "lshift": comparison.bitwise_left_shift, "rshift": comparison.bitwise_right_shift,
}  # fmt: skip


def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element becomes ``value``, a number or a 0-d tensor. Raises ``OverflowError`` for a number beyond the dtype."""
    number = stored("fill_", value, self._v.dtype, self.device)
    if number.ndim:
        raise ShapeError(f"fill_: expected a number or a 0-d tensor, got one of shape {tuple(number.shape)}; use copy_")
    return fill(self, number, "fill_")


def zero_(self: Tensor) -> Tensor:
    """Every element becomes 0."""
    return fill_(self, False)


def copy_(self: Tensor, src: Any) -> Tensor:
    """Take over the values of ``src``, broadcast and converted to this dtype."""
    source = cast(to_tensor(src), self._v.dtype)
    shape = broadcast("copy_", source._v.shape, self._v.shape)
    source = expand(source, shape) if source._v.shape != shape else source
    return overwrite(self, source, "copy_")


def _reversed(self: Tensor) -> Tensor:
    """The tensor with its dimensions in the opposite order."""
    return movement.permute(self, tuple(range(self.ndim))[::-1])


def _matrix_transpose(self: Tensor) -> Tensor:
    """The transpose of the last two dimensions; a 0-d tensor as it is. Raises ``ShapeError`` for a vector."""
    if self.ndim == 1:
        raise ShapeError(f"mT: expected a matrix or a batch of them, got shape {tuple(self.shape)}")
    return movement.transpose(self, -2, -1) if self.ndim else self


def _attach_declared(name: str, operation: Operation) -> None:
    setattr(Tensor, name, operation.function)
    if operation.inplace:
        setattr(Tensor, name + "_", inplace(operation.function, name + "_"))


def _attach() -> None:
    attach_all(_attach_declared)
    for name, f, changes in methods():
        setattr(Tensor, name, f)
        if changes:
            setattr(Tensor, f"{name}_", inplace(f, f"{name}_"))
    for name in ("squeeze", "unsqueeze", "transpose", "t", "swapaxes"):
        setattr(Tensor, name + "_", restructured(getattr(movement, name), name + "_"))
    for name, f in _OPERATORS.items():
        setattr(Tensor, f"__{name}__", f)
        setattr(Tensor, f"__r{name}__", reflected(f, f"__r{name}__"))
        setattr(Tensor, f"__i{name}__", inplace(f, f"{name}_"))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", compared(getattr(comparison, name), f"__{name}__"))
    single: dict[str, Any] = {
        "__neg__": arithmetic.neg, "__pos__": arithmetic.positive, "__abs__": arithmetic.abs,
        "__invert__": comparison.bitwise_not, "__getitem__": index.getitem, "__setitem__": index.setitem,
        "true_divide": arithmetic.true_divide, **SYNONYMS,
        "concat": join.cat, "fill_": fill_, "zero_": zero_, "copy_": copy_, "swapdims_": Tensor.swapaxes_,
        "__rtruediv__": arithmetic.rdiv, "T": builtins.property(_reversed), "mT": builtins.property(_matrix_transpose),
    }  # fmt: skip
    for name, f in single.items():
        setattr(Tensor, name, f)


_attach()
