"""``vmap``: an interpreter whose tracers hide a batch axis, always axis 0 of the value inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from funcnn.core import tree
from funcnn.core.aval import Aval, Tracer
from funcnn.core.context import ctx, running
from funcnn.core.errors import ShapeError
from funcnn.core.interpreter import BoxTracer, Interpreter
from funcnn.core.tensor import Tensor, refresh_all
from funcnn.ops.creation import as_tensor, zeros
from funcnn.ops.join import stack
from funcnn.ops.movement import expand, movedim, select


class BatchTracer(BoxTracer):
    """One example of a batch: its shape is the value's without axis 0."""

    __slots__ = ()

    def layout(self) -> np.ndarray:
        """That of the first example; of none, as if it were alone."""
        whole = super().layout()
        return whole[0] if len(whole) else Tracer.layout(self)


class Batch(Interpreter):
    """Applies each primitive's batching rule to the inputs that carry the batch axis."""

    name = "vmap"

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def bind(self, prim: Any, ins: tuple, params: dict) -> Any:
        lowered, batched = self.lower(ins)
        with self.outside():
            if not any(batched):
                return self.passed(prim(*lowered, **params))
            if prim.batch is None:
                outs = each(prim, self.n, lowered, batched, params)
            else:
                outs = prim.batch(self.n, lowered, batched, **params)
        return [self.enter(out) for out in outs] if prim.multiple else self.enter(outs)

    def enter(self, t: Tensor) -> Tensor:
        """A box for one example of ``t``, whose axis 0 is the batch."""
        return self.box(BatchTracer(self, t, tuple(t._v.shape[1:])))

    def leave(self, t: Any, axis: int) -> Tensor:
        """The whole batch of an output, its batch axis moved to ``axis``."""
        t = t if isinstance(t, Tensor) else as_tensor(t)
        whole = t._v.value if self.owns(t) else expand(t, (self.n, *t.shape))
        if not -whole.ndim <= axis < whole.ndim:
            raise ShapeError(f"vmap: out_axes={axis} for an output of {whole.ndim - 1} dimensions")
        return whole if axis == 0 else movedim(whole, 0, axis)


def each(prim: Any, n: int, ins: list, batched: list, params: dict) -> Any:
    """The batching rule that always holds: apply the primitive to one example after another and stack."""
    if n == 0:
        return _empty(prim, ins, batched, params)
    rows = [prim(*[select(t, 0, i) if b else t for t, b in zip(ins, batched, strict=True)], **params) for i in range(n)]
    if not prim.multiple:
        return stack(rows)
    return [stack(column) for column in zip(*rows, strict=True)]


def _empty(prim: Any, ins: list, batched: list, params: dict) -> Any:
    avals = [Aval(t._v.shape[1:] if b else t._v.shape, t._v.dtype) for t, b in zip(ins, batched, strict=True)]
    outs = [zeros((0, *aval.shape), dtype=aval.dtype) for aval in prim.shape(*avals, **params)]
    return outs if prim.multiple else outs[0]


def vmap(f: Callable, in_axes: Any = 0, out_axes: Any = 0) -> Callable:
    """``f`` over a batch: each input loses the axis that ``in_axes`` names, each output gains one at ``out_axes``.

    in_axes: an int or None (not mapped) for all arguments, or a tuple with one for each, itself an int, None or a pytree
        matching the argument. out_axes: likewise for the output.
    Raises ``ShapeError`` when nothing is mapped or the mapped sizes differ.
    """

    @wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_axes, (tuple, list)) and len(in_axes) != len(args):
            raise ShapeError(f"vmap: in_axes has {len(in_axes)} entries for {len(args)} arguments")
        leaves, treedef = tree.flatten(args)
        axes = _spread(tuple(in_axes) if isinstance(in_axes, list) else in_axes, args)
        tensors = [leaf if axis is None else as_tensor(leaf) for leaf, axis in zip(leaves, axes, strict=True)]
        batch = Batch(_size(tensors, axes))
        moved = [
            t if axis is None else batch.enter(t if axis == 0 else movedim(t, axis, 0))
            for t, axis in zip(tensors, axes, strict=True)
        ]
        with running(batch, ctx.grad):
            result = f(*treedef.unflatten(moved), **kwargs)
            outs, outdef = tree.flatten(result)
            refresh_all(outs)
        ends = _spread(out_axes, result)
        return outdef.unflatten([batch.leave(out, axis) for out, axis in zip(outs, ends, strict=True)])

    return mapped


def _spread(axes: Any, whole: Any) -> list:
    """One axis for each leaf of ``whole``, from a prefix tree of axes."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(tree.leaves(whole))
    if isinstance(axes, dict):
        parts = [(axes[key], whole[key]) for key in whole]
    elif isinstance(whole, (tuple, list)) and len(axes) == len(whole):
        parts = list(zip(axes, whole, strict=True))
    else:
        raise ShapeError(f"vmap: axes {axes!r} do not match {type(whole).__name__}")
    return [axis for part, sub in parts for axis in _spread(part, sub)]


def _size(leaves: list, axes: list) -> int:
    sizes = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            continue
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ShapeError(f"vmap: in_axes={axis} for an argument of shape {tuple(leaf.shape)}")
        sizes.append(leaf._v.shape[axis])
    if not sizes:
        raise ShapeError("vmap: no argument is mapped; at least one in_axes must not be None")
    if len(set(sizes)) > 1:
        raise ShapeError(f"vmap: mapped axes must have one size, got {sorted(set(sizes))}")
    return sizes[0]
