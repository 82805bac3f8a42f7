"""Selection: one of two inputs by a condition."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import host
from funcnn.ops.base import costs
from funcnn.ops.base.batching import batch_elementwise
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import promoted, require_same_dtype, to_tensor
from funcnn.ops.base.structure import unbroadcast


def _where_shape(condition: Any, x: Any, y: Any) -> tuple:
    if condition.dtype != dtypes.bool_:
        raise DTypeError(f"where: condition must be bool, got {condition.dtype}; use a comparison or .bool()")
    require_same_dtype("where", x, y)
    return (Aval(broadcast("where", tuple(condition.shape), tuple(x.shape), tuple(y.shape)), x.dtype),)


def _where_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    condition, x, y = ins
    return (
        None,
        lambda: unbroadcast(where(condition, g, 0.0), x._v.shape),
        lambda: unbroadcast(where(condition, 0.0, g), y._v.shape),
    )


where_p = Primitive("where", _where_shape, cpu=host.WHERE, vjp=_where_vjp, flops=costs.none)


object.__setattr__(where_p, "batch", batch_elementwise(where_p))


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """``input`` where ``condition`` holds, else ``other``; all broadcast."""
    c = to_tensor(condition)
    return where_p(c, *promoted("where", input, other, exact=True, beside=c))
