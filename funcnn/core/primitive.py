"""Primitive: one object with every rule of an operation; and what applying one means when nothing transforms it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np

from funcnn.core.aval import Missing, Tracer, is_concrete
from funcnn.core.context import ctx
from funcnn.core.device import stand_in
from funcnn.core.errors import GradientError, TracerError
from funcnn.core.evaluation import elsewhere, planned
from funcnn.core.foreign import checked, is_foreign, misapplied, refuse_returned
from funcnn.core.graph import Node
from funcnn.core.in_place import taken_over
from funcnn.core.preference import prefer
from funcnn.core.tensor import Tensor, alias, refresh
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.implementation import Implementation, host
from funcnn.kernels.refusal import Refused

ON_ARRAYS = "a Python function on arrays"


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """An operation on arrays (positional) with static parameters (keyword). Every rule takes the same parameters.

    name: also the operation's name in errors.
    recorded: what ``grad_fn`` calls it, where PyTorch's name is another than ``name``.
    shape: ``(*avals, **params) -> tuple[Aval, ...]``; raises on inputs that do not fit. Arrays serve as avals.
    cpu: ordered implementations for ``on["cpu"]``, the last one always applicable; or one function ``(ins, outs, **params)`` on
        arrays, which is a host implementation.
    on: for each device its implementations; what has none for a device is refused there by name.
    vjp: ``(g, ins, outs, **params) -> per input`` a cotangent, a thunk of one, or None. ``g`` and ``outs`` are lists for
        ``multiple`` outputs (a ``g`` may be None there), single tensors otherwise. None: not differentiable.
    batch: ``(n, ins, batched, **params) -> out(s)``, all with the batch on axis 0. None: a loop over the batch.
    keeps: what the vjp reads the numbers of: "i" inputs, "o" outputs, "io" both, "" only shapes.
    view: ``(array, **params) -> array`` sharing memory, in place of ``cpu``; ``unview(base, new, **params)`` writes back.
    may_copy: whether ``view`` shares memory only for some strides of its input.
    check: ``(ins, **params)`` looks at values on the host before an implementation runs, and raises for bad ones. A user's
        operation may have one; ours refuse by the status words of a kernel, for which no device need be waited for.
    looks: implementations without outputs that find what those of ``on["cpu"]`` refuse, and compute nothing: what a compiler
        keeps where nobody reads the outputs.
    refuse: ``(meaning, words, ins, **params) -> exception`` for a refusal: what is said of the status
        code, and the words (code, operand, position, value); of ``ins`` it reads no numbers. None: ``ValueError``.
    effect: whether running it does something besides computing its outputs (a call back into Python): then a compiler
        keeps each application, in their order.
    unused: ``(used, params) -> (primitive, params) | None``: what computes only the outputs whose ``used`` is True, as a
        compiler asks when nobody reads the others; None: nothing is saved. A third item says which outputs it does compute,
        where these are more.
    absorbs: ``(then, params) -> (primitive, params) | None``: what computes this and then the primitive ``then`` of the only
        output, bit for bit, as a compiler asks when nobody else reads that; None: nothing is saved.
    overwrites: for each of the first outputs the input that it is after a change, in whose memory it may come about where
        nobody reads the input any more; or a function of the parameters that says so.
    scalar: of an elementwise operation the function of one element, which fused code and other devices are made of.
    flops, bytes: what one application costs, for the profiler: ``(ins, outs, params) -> number``, where each of ``ins`` and
        ``outs`` has ``shape``, ``dtype``, ``size`` and ``nbytes``. None: a flop for each number of the first output, and
        each input read and each output written once.
    """

    name: str
    shape: Callable[..., tuple]
    cpu: InitVar[Any] = None
    vjp: Callable | None = None
    batch: Callable | None = None
    keeps: str = "i"
    multiple: bool = False
    view: Callable | None = None
    unview: Callable | None = None
    may_copy: bool = False
    check: Callable | None = None
    looks: tuple[Implementation, ...] = ()
    refuse: Callable | None = None
    effect: bool = False
    unused: Callable | None = None
    absorbs: Callable | None = None
    overwrites: tuple[int, ...] | Callable[..., tuple[int, ...]] = ()
    scalar: Any = None
    recorded: str = ""
    flops: Callable | None = None
    bytes: Callable | None = None
    on: dict[str, tuple[Implementation, ...]] = field(default_factory=dict)

    def __post_init__(self, cpu: Any) -> None:
        if cpu is not None:
            self.on["cpu"] = (host("host", cpu, ON_ARRAYS),) if callable(cpu) else tuple(cpu)
        if self.vjp is not None and is_foreign(self.vjp):
            object.__setattr__(self, "vjp", checked(self.name, self.vjp))
        for way in self.on.get("cpu", ()):
            prefer.known.setdefault(way.name, []).append(self.name)

    def __call__(self, *ins: Tensor, **params: Any) -> Any:
        """Applies to tensors, in the current interpreter; outside every transformation, computes and records for ``backward()``.

        Raises ``TypeError`` for what is no tensor, and for too few or many.
        """
        try:
            if ctx.top is not None:
                out = ctx.top.bind(self, ins, params)
                return out if self.view is None else _as_view(self, out, ins[0], params)
            grad, recording, values = ctx.grad, False, []
            for t in ins:
                if grad:
                    if t._view is not None:
                        refresh(t)
                    if t._rg or t._node is not None:
                        recording = True
                values.append(t._v)
            stage = ctx.stage
            results = evaluate(self, values, params) if stage is None else stage.emit(self, ins, params)
            outs = []
            for result in results:
                out = _new(Tensor)  # as ``wrap``
                out._v = result
                outs.append(out)
            if recording:
                Node(self, params, ins, None, outs)  # the outputs refer to it
        except (AttributeError, TypeError) as error:
            wrong = misapplied(self, ins, params)
            if wrong is None:
                raise
            raise wrong from error
        if self.view is not None:
            return _as_view(self, outs[0], ins[0], params)
        return outs if self.multiple else outs[0]

    def overwritten(self, params: dict[str, Any]) -> tuple[int, ...]:
        """Lists for each of the first outputs the input that it is after a change, for these parameters."""
        return self.overwrites(**params) if callable(self.overwrites) else self.overwrites

    def __repr__(self) -> str:
        return f"Primitive({self.name})"


# What stands around every evaluation, by who put it there: the last one is called as f(prim, values, params, where).
around: dict[Any, Callable] = {}


def _errors_ignored() -> tuple[ContextVar, Any]:
    """Finds the variable in which NumPy keeps its handling of floating-point errors, and the value that ignores them.

    ``np.errstate`` makes the value anew each time, which takes longer than adding ten numbers.
    """
    context = copy_context()
    before = dict(context)
    context.run(np.seterr, all="ignore")
    changed = ((variable, value) for variable, value in context.items() if before.get(variable) is not value)
    return next(changed, (ContextVar("unknown", default=None), None))


_variable, _ignored = _errors_ignored()
_errors, _set_errors, _reset_errors = _variable.get, _variable.set, _variable.reset
_ndarray, _new = np.ndarray, object.__new__


def quietly(make: Callable, *args: Any) -> Any:
    """Makes ``make(*args)`` without NumPy's warnings of floating-point errors; an interrupt leaves no trace."""
    before = _errors()
    try:
        _set_errors(_ignored)
        return make(*args)
    finally:
        _set_errors(before)


def evaluate(prim: Primitive, values: list, params: dict, where: Any = None, plain: bool = False) -> list:
    """Computes on values: looks up what was planned, check, take memory for the outputs, run.

    where: the equation of a program that is run, which remembers how it was planned; ``plain``: leave out what stands around.
    """
    if around and not plain:
        for outermost in [*around.values()][-1:]:
            return outermost(prim, values, params, where)
    if where is None:
        for value in values:
            if type(value) is not _ndarray:
                return _elsewhere(prim, values, params)
        if not values and "device" in params:
            return _elsewhere(prim, values, params)
    made = planned(prim, values, params) if where is None else where.planned(values)
    if prim.check is not None:
        prim.check(values, **params)
    if prim.view is not None:
        return [prim.view(*values, **params)]
    if where is not None and where.into is not None:
        outs = taken_over(made, values, where.into)
    else:
        outs = []  # a loop, which costs no call as a comprehension does
        for shape, dtype, large in made.outs:
            outs.append(empty(shape, dtype) if large else fresh(shape, dtype))
    if not made.host:
        try:
            made.run(values, outs)  # type: ignore[misc]
        except Refused as refusal:
            raise refused(prim, refusal, values, params) from None
        return outs
    before, token = _errors(), None
    try:
        token = _set_errors(_ignored)
        if (result := made.run(values, outs, **params)) is not None and made.name == "host":  # type: ignore[misc]
            refuse_returned(prim, result, outs)
        return outs
    except Refused as refusal:
        raise refused(prim, refusal, values, params) from None
    finally:
        if token is None:  # an interrupt came before the token was stored; with it, putting back is faster
            _set_errors(before)
        else:
            _reset_errors(token)


def _elsewhere(prim: Primitive, values: list, params: dict) -> list:
    """Computes where no value is an array of the host."""
    for value in values:
        if isinstance(value, Tracer):
            raise TracerError(_unreadable(prim, value))
    try:
        return elsewhere(prim, values, params)
    except Refused as refusal:
        raise refused(prim, refusal, values, params) from None


def _as_view(prim: Primitive, out: Tensor, base: Tensor, params: dict) -> Tensor:
    if prim.may_copy:  # a reshape of a transposed tensor is a copy, traced or not
        if type(out._v) is _ndarray and type(base._v) is _ndarray:
            one, two = out._v, base._v
        else:
            two = layout(base)
            one = prim.view(two, **params)  # type: ignore[misc]
        if one.base is not two and one.size and not np.may_share_memory(one, two):
            return out
    return alias(out, base, prim, params)


def layout(box: Tensor) -> np.ndarray:
    """Returns an array with the shape and strides that a box has, or would have if it were not traced; its elements mean nothing.

    Under ``jit`` the strides of what comes from outside become a condition of the compiled step.
    """
    if ctx.stage is not None:
        known = ctx.stage.layout(box)
        if known is not None:
            return known
    if is_concrete(box._v):
        return box._v if type(box._v) is _ndarray else stand_in(box._v.shape, box._v.strides, box._v.dtype)
    view = box._view
    source = None if view is None else view.source()
    if view is None or source is None:
        return box._v.layout()
    return view.prim.view(layout(source), **view.params)


def apply_vjp(node: Node, g: Any) -> tuple:
    """Returns the cotangents (or thunks) of a node's inputs. Raises ``GradientError`` where there is no derivative."""
    prim = node.prim
    if prim.vjp is None:
        raise GradientError(f"backward: {prim.name} has no derivative; detach() its input if none is wanted")
    outs = None if node.outs is None else node.results(ctx.grad)
    return prim.vjp(g, node.arguments(), outs, **node.params)


def refused(prim: Primitive, refusal: Any, values: list, params: dict) -> Exception:
    """Returns the exception for what a check or a kernel found: its meaning and the status words."""
    meaning, words = refusal.meaning, refusal.words
    if prim.refuse is not None:
        return prim.refuse(meaning, words, values, **params)
    return ValueError(f"{prim.name}: {meaning}; operand {words[1]}, element {words[2]}: {words[3]}")


def _unreadable(prim: Primitive, value: Any) -> str:
    if isinstance(value, Missing):
        return str(value.owner)
    owner = getattr(getattr(value, "owner", None), "name", type(value).__name__)
    return (
        f"{prim.name}: got a tensor of shape {tuple(value.shape)} that was traced by {owner} and outlived it; "
        "return it from the transformed function instead of storing it"
    )
