"""``vjp``, ``grad`` and ``value_and_grad``: an interpreter that records a function's primitives, then the walk back.

References: Griewank and Walther, Evaluating Derivatives (2nd ed., 2008), ch. 3; JAX's ``grad`` for the interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from funcnn.core import composition, tree
from funcnn.core.context import ctx, running
from funcnn.core.errors import DTypeError, GradientError, ShapeError
from funcnn.core.graph import Node
from funcnn.core.interpreter import BoxTracer, Interpreter, with_history
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, inheriting, refresh_all, version
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import filled_like
from funcnn.ops.tensor.creation import as_tensor, zeros_like
from funcnn.transforms.backward import walk
from funcnn.transforms.lending import Loans


class TapeTracer(BoxTracer):
    """A value that depends on the function's inputs: ``edge`` leads to the node that made it, or is a leaf's own mark."""

    __slots__ = ("edge", "leaf")
    known = True

    def __init__(self, owner: Tape, value: Tensor, edge: Any, leaf: bool = False):
        inside = value._v
        self.owner, self.shape, self.dtype, self.value = owner, inside.shape, inside.dtype, value
        self.edge, self.leaf = edge, leaf

    @property
    def node(self) -> Node | None:  # type: ignore[override]
        """The node that made the value, if it is no input."""
        return self.edge[0] if isinstance(self.edge, tuple) else None

    def replaced(self, new: Tensor) -> TapeTracer:
        """The value of ``new`` with this edge."""
        return TapeTracer(self.owner, with_history(self.value, self.owner.leave(new)), self.edge, self.leaf)

    def grafted(self, old: Tensor) -> Any:
        """The value inside: further out nothing is recorded here."""
        return inheriting(old, self.value)

    def copied(self) -> TapeTracer:
        """The same for another box, which is no leaf."""
        return TapeTracer(self.owner, self.value, self.edge) if self.leaf else self


class Tape(Interpreter):
    """Records every primitive that touches an input."""

    name = "grad"

    def bind(self, prim: Any, ins: tuple, params: dict) -> Any:
        lowered, owned = self.lower(ins)
        inside, grad = ctx.top, ctx.grad
        ctx.top, ctx.grad = self.outer, self.outer_grad and grad  # as ``outside``, without its cost
        try:
            result = prim(*lowered, **params)
        finally:
            ctx.top, ctx.grad = inside, grad
        if not grad or True not in owned:
            return self.passed(result)
        edges = []
        for t, own in zip(ins, owned, strict=True):
            edges.append(t._v.edge if own else None)
        node = Node(prim, params, tuple(lowered), edges)
        outs = result if prim.multiple else [result]
        node.count = len(outs)
        if "o" in prim.keeps:
            node.outs = tuple([(out, version(out)) for out in outs])
        boxes = [self._box(node, slot, out) for slot, out in enumerate(outs)]
        return boxes if prim.multiple else boxes[0]

    def _box(self, node: Node, slot: int, out: Tensor) -> Tensor:
        if out._v.dtype.kind != "f":
            return self.passed(out)
        return self.box(TapeTracer(self, out, (node, slot)))

    def enter(self, t: Tensor) -> Tensor:
        """An input of the function, as a box of this tape."""
        return self.box(TapeTracer(self, t, object(), leaf=True))

    def leave(self, t: Any) -> Any:
        """An output's box one level out."""
        return t._v.value if isinstance(t, Tensor) and self.owns(t) else t


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """``(f(*primals), pullback)``, and ``aux`` third with ``has_aux``; ``pullback(g)`` is a tuple of input cotangents.

    Inputs and outputs are pytrees of tensors. The pullback may be called more than once.
    """
    leaves, treedef = tree.flatten(primals)
    lowered = [_differentiable(leaf, "grad") for leaf in leaves]
    tape = Tape()
    boxes = [tape.enter(t) for t in lowered]
    given = treedef.unflatten(boxes)
    outer, grad = ctx.top, ctx.grad
    ctx.top, ctx.grad = tape, True  # as ``running``, without its cost
    try:
        result = f(*given)
        refresh_all(tree.leaves(result))
    finally:
        ctx.top, ctx.grad = outer, grad
    _settle(leaves, boxes)
    result, aux = _split_aux(result, has_aux, "vjp")
    outs, outdef = tree.flatten(result)
    outs = [out if isinstance(out, Tensor) else as_tensor(out) for out in outs]
    edges = [out._v.edge if tape.owns(out) else None for out in outs]
    values = [tape.leave(out) for out in outs]

    def pullback(cotangents: Any) -> tuple:
        given = tree.flatten_as(outdef, cotangents, "vjp: cotangents")
        given = [_cotangent(g, value) for g, value in zip(given, values, strict=True)]
        reached = walk(edges, given, retain=True)
        return treedef.unflatten([_arrived(reached, box, t) for box, t in zip(boxes, lowered, strict=True)])

    tail = (tree.map(tape.leave, aux),) if has_aux else ()
    return (outdef.unflatten(values), pullback, *tail)


def _cotangent(g: Any, value: Tensor) -> Tensor:
    """A cotangent, like the output that it is for; a Python number takes its dtype. Raises where they differ."""
    shape, dtype = tuple(value._v.shape), value._v.dtype
    if isinstance(g, (int, float)) and dtype.kind == "f":
        g = to_tensor(g, dtype)
    t = as_tensor(g)
    if t._v.shape != shape or (t._v.dtype != dtype and dtype.kind == "f"):
        raise (ShapeError if t._v.shape != shape else DTypeError)(
            f"vjp: a cotangent of {t._v.dtype}{tuple(t._v.shape)} for an output of {dtype}{shape}; "
            + (f"convert it with .to({dtype})" if t._v.shape == shape else "it must have the output's shape")
        )
    return t


def _settle(leaves: list, boxes: list[Tensor]) -> None:
    """Give inputs that were written without recording their new values."""
    for leaf, box in zip(leaves, boxes, strict=True):
        if box._v.value is not leaf and isinstance(leaf, Tensor):
            with running(ctx.top, False):
                assign(leaf, box._v.value, "in-place")


def _arrived(reached: dict, box: Tensor, t: Tensor) -> Tensor:
    g = reached.get(box._v.edge)
    return zeros_like(t) if g is None else g


def value_and_grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function giving ``(f(...), gradient)``, where ``f`` returns a scalar (and ``aux`` second with ``has_aux``).

    argnums: which positional argument(s) to differentiate; each may be a pytree. A sequence gives a tuple of gradients.
        What ``f`` writes in place to the other arguments, or to these under ``no_grad``, they have afterwards.
    Raises ``GradientError`` when the value is not a scalar, ``DTypeError`` when an argument is not floating-point.
    """

    @wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple:
        chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        for position in chosen:
            if not -len(args) <= position < len(args):
                raise GradientError(f"grad: argnums={argnums} but {len(args)} positional arguments were given")
        chosen = tuple(position % len(args) for position in chosen)

        loans = []

        def of_chosen(*values: Any) -> Any:
            loan = Loans(ctx.top)
            loans.append(loan)
            given = dict(zip(chosen, values, strict=True))
            full = [given[i] if i in given else loan.lend_all(arg) for i, arg in enumerate(args)]
            return loan.returned_all(f(*full, **loan.lend_all(kwargs)))

        value, pullback, *aux = vjp(of_chosen, *[args[position] for position in chosen], has_aux=has_aux)
        if not isinstance(value, Tensor) or value._v.size != 1 or value.ndim != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise GradientError(f"grad: the function must return a scalar, got {got}; reduce it, or use vjp")
        if value._v.dtype.kind != "f":
            raise DTypeError(f"grad: the function must return a floating-point scalar, got {value.dtype}")
        gradient = pullback(filled_like(value, 1))
        loans[0].settle()
        gradient = gradient[0] if isinstance(argnums, int) else gradient
        return ((value, aux[0]) if has_aux else value), gradient

    return value_and_gradient


def grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function giving the gradient of ``f``, as ``value_and_grad`` without the value; ``(gradient, aux)`` with aux."""
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return gradient


def _differentiable(leaf: Any, name: str) -> Tensor:
    t = as_tensor(leaf)
    if t._v.dtype.kind != "f":
        raise DTypeError(f"{name}: can only differentiate floating-point inputs, got {t.dtype}; convert with .float()")
    return t


def _split_aux(result: Any, has_aux: bool, name: str) -> tuple:
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise GradientError(
            f"{name}: has_aux=True needs a function returning (output, aux), got {type(result).__name__}"
        )
    return result


composition.provide(vjp)
