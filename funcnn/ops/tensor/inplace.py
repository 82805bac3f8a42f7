"""In-place writes by operations: ``core.mutation.assign`` for values that may themselves be leaves."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Tracer, is_concrete
from funcnn.core.context import ctx
from funcnn.core.errors import DTypeError
from funcnn.core.graph import Node
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, current, refresh, wrap
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast, expand_p, permute_p, reshape_p, slice_put_p
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import clone, expand
from funcnn.ops.movement.windows import covered, windows_p


def write(t: Tensor, new: Tensor, name: str) -> Tensor:
    """Give ``t`` the value and history of ``new``; a leaf that requires grad is reached through a copy of it."""
    return assign(t, clone(new) if ctx.grad and new._rg else new, name)


def overwrite(t: Tensor, new: Tensor, name: str) -> Tensor:
    """As ``write``, for a value that need not come from ``t``: it goes on requiring grad, and sends zeros back."""
    if ctx.grad and t._node is not None and ctx.top is None and t._v.shape == new._v.shape:
        new = clone(new) if new._rg else refresh(new)
        if new._node is None or not any(type(edge) is tuple and edge[0] is t._node for edge in new._node.edges):
            new = _replacing(t, new)
    if isinstance(t._v, Tracer) and is_concrete(new._v) and ctx.stage is None:
        new = clone(new)  # a traced value has no memory of its own: it would lie in that of what it was copied from
    return write(t, new, name)


def replaced(input: Any, out: Any, name: str) -> Tensor:
    """``input``, once it has taken over the value and history of ``out``, what an operation made of it.

    What every ``inplace=True`` and every method with a trailing underscore ends in. Raises ``DTypeError`` for an input
    that is no tensor, or whose dtype cannot hold the result.
    """
    if not isinstance(input, Tensor):
        raise DTypeError(
            f"{name}: only a tensor can be changed in place, got {type(input).__name__}; wrap it in tensor()"
        )
    out = to_tensor(out)
    if dtypes.kind(out._v.dtype) > dtypes.kind(input._v.dtype):
        raise DTypeError(
            f"{name}: a result of {out.dtype} cannot be stored in a tensor of {input.dtype}; convert it first"
        )
    return write(input, cast(out, input._v.dtype), name)


def fill(t: Tensor, number: Tensor, name: str) -> Tensor:
    """Give every element of ``t`` the value of a 0-d tensor, also where elements of ``t`` share their place."""
    view = t._view
    if view is None or not _shares_places(t):
        return overwrite(t, expand(number, t._v.shape), name)
    source = view.source()
    assert source is not None
    if view.prim is windows_p:
        write(source, where(covered(source, **view.params), number, source), name)
    else:
        fill(source, number, name)
    return refresh(t)


def _shares_places(t: Tensor) -> bool:
    """Whether several elements of ``t`` lie at one place: it was expanded, or is windows that overlap."""
    view = t._view
    source = None if view is None or view.detached else view.source()
    if view is None or source is None or not t._v.size:
        return False
    if view.prim is expand_p:
        return t._v.size != source._v.size or _shares_places(source)
    if view.prim is windows_p:
        return view.params["step"] < view.params["size"]
    return view.prim in (permute_p, reshape_p) and _shares_places(source)


def _replacing(t: Tensor, new: Tensor) -> Tensor:
    """``new`` with the history of having been put in the place of all of ``t``."""
    shape = t._v.shape
    whole = {"starts": (0,) * len(shape), "stops": shape, "steps": (1,) * len(shape)}
    box = wrap(current(new))
    box._node = Node(slice_put_p, whole, (t, new))
    return box
