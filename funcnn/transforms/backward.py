"""Reverse-mode differentiation: the one walk over recorded nodes, and ``Tensor.backward`` on top of it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from funcnn.core.aval import Tracer
from funcnn.core.context import Scope, ctx, running
from funcnn.core.device import sole
from funcnn.core.errors import DTypeError, GradientError, ShapeError, TracerError
from funcnn.core.graph import Node
from funcnn.core.primitive import apply_vjp
from funcnn.core.tensor import Tensor, refresh, refresh_all, wrap
from funcnn.ops.base.structure import filled_like
from funcnn.ops.elementwise.arithmetic import add
from funcnn.ops.movement.views import clone


class _Walk:
    """Cotangents on their way from the roots to the leaves, newest node first."""

    def __init__(self) -> None:
        self.pending: dict[Node, list] = {}
        self.heap: list[tuple[int, Node]] = []
        self.leaves: dict[Any, Tensor] = {}

    def send(self, edge: Any, g: Tensor) -> None:
        """Add a cotangent to what an edge leads to."""
        if not isinstance(edge, tuple):
            held = self.leaves.get(edge)
            self.leaves[edge] = g if held is None else add(held, g)
            return
        node, slot = edge
        slots = self.pending.get(node)
        if slots is None:
            slots = self.pending[node] = [None] * node.count
            heapq.heappush(self.heap, (-node.seq, node))
        slots[slot] = g if slots[slot] is None else add(slots[slot], g)

    def run(self, retain: bool) -> dict[Any, Tensor]:
        """Go through every pending node once; what reached the leaves."""
        outer, noting = (ctx.path, ctx.backward), Scope.wanted
        ctx.backward = True
        try:
            while self.heap:
                node = heapq.heappop(self.heap)[1]
                if noting:
                    ctx.path = node.path
                slots = self.pending.pop(node)
                cotangents = apply_vjp(node, slots if node.prim.multiple else slots[0])
                for edge, g in zip(node.edges, cotangents, strict=True):
                    if edge is not None and g is not None:
                        self.send(edge, g() if callable(g) else g)
                if not retain and node.prim.keeps:
                    node.free()
        except TracerError as error:  # a saved value that may not be read says so in this way
            if str(error).startswith("backward:"):
                raise GradientError(str(error)) from None
            raise
        finally:
            ctx.path, ctx.backward = outer
        return self.leaves


def walk(edges: Sequence, cotangents: Sequence[Tensor], retain: bool) -> dict[Any, Tensor]:
    """Send ``cotangents`` into ``edges`` and gather, for each leaf reached, its sum."""
    state = _Walk()
    for edge, g in zip(edges, cotangents, strict=True):
        if edge is not None:
            state.send(edge, g)
    return state.run(retain)


def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add the gradient of this tensor to ``.grad`` of every leaf that requires one.

    gradient: the cotangent, of this tensor's shape; may be left out for a single element.
    retain_graph: keep the saved values for another pass (default: ``create_graph``).
    create_graph: record the backward pass itself, for higher derivatives.
    Raises ``GradientError`` for a missing gradient, no graph, or a freed one.
    """
    if ctx.top is not None:
        raise GradientError(f"backward: cannot be called inside {ctx.top.name}; use fn.grad there")
    if self._view is not None:
        with running(None, True):
            refresh(self)
    if not self.requires_grad:
        raise GradientError(
            f"backward: this tensor of shape {tuple(self.shape)} does not require grad and has no grad_fn"
        )
    retain = create_graph if retain_graph is None else retain_graph
    edge = self if self._node is None else (self._node, self._slot)
    with running(None, create_graph):
        g = _seed(self, gradient)
        taken = {id(g._v)}
        totals = walk([edge], [g], retain)
        for leaf in list(totals):
            _accumulate(leaf, totals, create_graph, taken)


def _seed(t: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        if t._v.size != 1:
            raise GradientError(
                f"backward: a gradient can only be left out for a single element, this tensor has shape {tuple(t.shape)}; "
                "pass backward(gradient) of that shape, or reduce it first"
            )
        return filled_like(t, 1)
    if not isinstance(gradient, Tensor):
        raise DTypeError(f"backward: gradient must be a tensor, got {type(gradient).__name__}")
    if gradient.shape != t.shape:
        raise ShapeError(f"backward: gradient of shape {tuple(gradient.shape)} for a tensor of {tuple(t.shape)}")
    return gradient


def _accumulate(leaf: Tensor, totals: dict, create_graph: bool, taken: set[int]) -> None:
    """Take a leaf's gradient out of the table and add it to what the leaf has.

    taken: the values that the caller or another leaf has already.
    """
    g = totals.pop(leaf)
    traced = ctx.stage is not None or isinstance(g._v, Tracer)
    if g._view is not None and not create_graph and not traced:
        g = wrap(g._v)  # without a graph a view lets go of the tensor that it was taken of
    held = leaf.grad
    if held is not None:
        g = add(held, g)
    elif id(g._v) in taken or g._view is not None or not (traced or sole(g._v)):
        g = clone(g)  # the memory belongs to another tensor
    taken.add(id(g._v))
    leaf.grad = g if create_graph or traced or isinstance(g._v, Tracer) else wrap(g._v)


def gradients(
    outputs, inputs, grad_outputs=None, retain_graph: bool | None = None, create_graph: bool = False, allow_unused=False
) -> tuple:
    """``torch.autograd.grad``: the gradients of ``outputs`` with respect to ``inputs``, leaving ``.grad`` alone."""
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [None] * len(outs) if grad_outputs is None else grad_outputs
    given = [given] if isinstance(given, Tensor) else list(given)
    retain = create_graph if retain_graph is None else retain_graph
    with running(None, True):
        refresh_all([*outs, *ins])
    edges = [t if t._node is None else (t._node, t._slot) for t in outs]
    targets = [t if t._node is None else (t._node, t._slot) for t in ins]
    with running(None, create_graph):
        found = walk_to(edges, [_seed(t, g) for t, g in zip(outs, given, strict=True)], targets, retain)
    for t, g in zip(ins, found, strict=True):
        if g is None and not allow_unused:
            raise GradientError(
                f"grad: an input of shape {tuple(t.shape)} is not used by the outputs; pass allow_unused=True for None"
            )
    return tuple(found)


def walk_to(edges: list, cotangents: list, targets: list, retain: bool) -> list:
    """Like ``walk``, gathering what arrives at ``targets``, which may be inner points of the graph."""
    state = _Walk()
    reached: dict[Any, Tensor | None] = dict.fromkeys(targets)
    send = state.send

    def watch(edge: Any, g: Tensor) -> None:
        if edge in reached:
            held = reached[edge]
            reached[edge] = g if held is None else add(held, g)
        send(edge, g)

    state.send = watch  # type: ignore[method-assign]
    for edge, g in zip(edges, cotangents, strict=True):
        watch(edge, g)
    state.run(retain)
    del state.send  # type: ignore[method-assign]  # a cycle through ``watch`` otherwise
    return [reached[target] for target in targets]


setattr(Tensor, "backward", backward)
