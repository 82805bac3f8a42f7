"""``vmap``: an interpreter whose tracers hide a batch axis, always axis 0 of the value inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from funcnn.core import composition, tree
from funcnn.core.aval import Aval, Tracer
from funcnn.core.context import ctx, running
from funcnn.core.errors import ShapeError
from funcnn.core.interpreter import BoxTracer, Interpreter, with_history, without_history
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, refresh_all, wrap
from funcnn.ops.movement.join import stack
from funcnn.ops.movement.views import expand, movedim, select
from funcnn.ops.random.keys import split
from funcnn.ops.tensor.creation import as_tensor, zeros
from funcnn.transforms.lending import Loans

RANDOMNESS = ("error", "same", "different")


class BatchTracer(BoxTracer):
    """One example of a batch: its shape is the value's without axis 0."""

    __slots__ = ()

    def layout(self) -> np.ndarray:
        """That of the first example; of none, as if it were alone."""
        whole = super().layout()
        return whole[0, ...] if len(whole) else Tracer.layout(self)

    def bare(self) -> Any:
        """The same batch without a history."""
        return BatchTracer(self.owner, wrap(without_history(self.value)), self.shape)

    def replaced(self, new: Tensor) -> Any:
        """The value of ``new``, and what differentiates around the batch goes on with the history of this one."""
        return BatchTracer(self.owner, with_history(self.value, self.owner.whole(new, False)), self.shape)

    def grafted(self, old: Tensor) -> Any:
        """This batch, for each example of which ``old`` stands."""
        if old._node is None and not isinstance(old._v, BoxTracer):
            return self.bare()
        return BatchTracer(self.owner, with_history(self.owner.whole(old, True), self.value), self.shape)


class Batch(Interpreter):
    """Applies each primitive's batching rule to the inputs that carry the batch axis."""

    name = "vmap"

    def __init__(self, n: int, randomness: str = "different"):
        super().__init__()
        self.n, self.randomness = n, randomness

    def bind(self, prim: Any, ins: tuple, params: dict) -> Any:
        lowered, batched = self.lower(ins)
        inside, grad = ctx.top, ctx.grad
        ctx.top, ctx.grad = self.outer, self.outer_grad and grad  # as ``outside``, without its cost
        try:
            if True not in batched:
                return self.passed(prim(*lowered, **params))
            if prim.batch is None:
                outs = each(prim, self.n, lowered, batched, params)
            else:
                outs = prim.batch(self.n, lowered, batched, **params)
        finally:
            ctx.top, ctx.grad = inside, grad
        return [self.enter(out) for out in outs] if prim.multiple else self.enter(outs)

    def enter(self, t: Tensor) -> Tensor:
        """A box for one example of ``t``, whose axis 0 is the batch."""
        return self.box(BatchTracer(self, t, tuple(t._v.shape[1:])))

    def whole(self, t: Tensor, record: bool) -> Tensor:
        """The batch of ``t``, repeated where it is the same for all examples."""
        if self.owns(t):
            return t._v.value
        with running(self.outer, record):
            return expand(t, (self.n, *t._v.shape))

    def leave(self, t: Any, axis: int | None) -> Tensor:
        """The whole batch of an output, its batch axis moved to ``axis``; with None an output that has none."""
        t = t if isinstance(t, Tensor) else as_tensor(t)
        if axis is None:
            if self.owns(t):
                raise ShapeError(
                    f"vmap: out_axes=None for an output of shape {tuple(t.shape)} that differs from example to example; "
                    "give it an axis, or reduce it over the batch after vmap"
                )
            return t
        whole = t._v.value if self.owns(t) else expand(t, (self.n, *t.shape))
        if not -whole.ndim <= axis < whole.ndim:
            raise ShapeError(f"vmap: out_axes={axis} for an output of {whole.ndim - 1} dimensions")
        return whole if axis == 0 else movedim(whole, 0, axis)

    def draws(self, key: Tensor) -> Tensor:
        """A generator's key as each example's own, or the same for all."""
        if self.randomness == "same":
            return key
        with self.outside():
            keys = split(key, self.n)
        return self.enter(keys)


_looped: set[Any] = set()  # primitives whose loop was told of


def each(prim: Any, n: int, ins: list, batched: list, params: dict) -> Any:
    """The batching rule that always holds: apply the primitive to one example after another and stack."""
    if n == 0:
        return _empty(prim, ins, batched, params)
    if n > 1 and prim not in _looped:
        _looped.add(prim)
        warnings.warn(
            f"vmap: {prim.name} has no batching rule and is applied to one example after another, here {n} times; give its "
            "Primitive a batch=",
            stacklevel=2,
        )
    rows = [prim(*[select(t, 0, i) if b else t for t, b in zip(ins, batched, strict=True)], **params) for i in range(n)]
    if not prim.multiple:
        return stack(rows)
    return [stack(column) for column in zip(*rows, strict=True)]


def _empty(prim: Any, ins: list, batched: list, params: dict) -> Any:
    avals = [Aval(t._v.shape[1:] if b else t._v.shape, t._v.dtype) for t, b in zip(ins, batched, strict=True)]
    outs = [zeros((0, *aval.shape), dtype=aval.dtype, device=ins[0].device) for aval in prim.shape(*avals, **params)]
    return outs if prim.multiple else outs[0]


def vmap(f: Callable, in_axes: Any = 0, out_axes: Any = 0, randomness: str = "error") -> Callable:
    """``f`` over a batch: each input loses the axis that ``in_axes`` names, each output gains one at ``out_axes``.

    in_axes: an int or None (not mapped) for all arguments, or a tuple with one for each, itself an int, None or a pytree
        matching the argument. Tensors and arrays given by keyword are mapped over their first axis.
    out_axes: likewise for the output; None for one that is the same for all examples.
    What ``f`` writes in place to an argument, it has afterwards; but to one that is not mapped each example may write values
    of its own, and then it stays as it was.
    randomness: what a draw from a generator is that ``f`` asks for: refused ("error"), or one for all examples ("same"),
        or each example's own ("different"). What is drawn from a key that is passed in is the key's business.
    Raises ``ShapeError`` when nothing is mapped or the mapped sizes differ.
    """
    if randomness not in RANDOMNESS:
        raise ValueError(f"vmap: randomness must be one of {', '.join(map(repr, RANDOMNESS))}, got {randomness!r}")

    @wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_axes, (tuple, list)) and len(in_axes) != len(args):
            raise ShapeError(f"vmap: in_axes has {len(in_axes)} entries for {len(args)} arguments")
        leaves, treedef = tree.flatten((args, kwargs))
        axes = _spread(tuple(in_axes) if isinstance(in_axes, list) else in_axes, args)
        axes += [0 if isinstance(leaf, (Tensor, np.ndarray)) else None for leaf in leaves[len(axes) :]]
        tensors = [leaf if axis is None else as_tensor(leaf) for leaf, axis in zip(leaves, axes, strict=True)]
        batch = Batch(_size(tensors, axes), randomness)
        loans = Loans(batch)
        moved = [
            loans.lend(t) if axis is None else batch.enter(t if axis == 0 else movedim(t, axis, 0))
            for t, axis in zip(tensors, axes, strict=True)
        ]
        given = [box._v if isinstance(box, Tensor) else None for box in moved]
        positional, named = treedef.unflatten(moved)
        outer, grad = ctx.top, ctx.grad
        ctx.top = batch  # as ``running``, without its cost
        try:
            result = f(*positional, **named)
            outs, outdef = tree.flatten(result)
            refresh_all(outs)
        finally:
            ctx.top, ctx.grad = outer, grad
        outs = [loans.returned(out) for out in outs]
        loans.settle()
        for leaf, axis, box, value in zip(leaves, axes, moved, given, strict=True):
            if axis is not None and box._v is not value and isinstance(leaf, Tensor):
                assign(leaf, batch.leave(box, axis), "in-place")
        ends = _spread(tuple(out_axes) if isinstance(out_axes, list) else out_axes, result)
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


composition.provide_vmap(vmap)
