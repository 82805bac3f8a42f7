"""``primitive``: kernels that a user wrote become an operation, with every rule that its own operations have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from funcnn.core.context import ctx, running
from funcnn.core.errors import GradientError, ShapeError
from funcnn.core.graph import before_write
from funcnn.core.in_place import InPlace
from funcnn.core.mutation import assign, overwritten
from funcnn.core.primitive import Primitive, evaluate
from funcnn.core.tensor import Tensor, refresh, wrap
from funcnn.kernels.cpu.build.compile import Kernel
from funcnn.kernels.cpu.build.declared import Declared, adopt, arguments_of
from funcnn.ops.custom.derivative import ByFunction, ByOperation, Derivative
from funcnn.ops.custom.rules import Rules, counted

FLOATS = ("float32", "float64")
STATIC = (bool, int, float, complex, str, tuple, type(None), np.dtype)
RESERVED = {"lead", "like", "workers"}


class Operation:
    """A function of tensors, and by keyword of static parameters, that ``primitive`` made.

    inputs, outputs: their names. defaults: the parameters, ``...`` for one that must be given. primitive: the rules.
    differentiable: the inputs with a derivative, if that is known.
    """

    takes_like = False

    def __init__(
        self, declared: Declared, defaults: dict, prim: Primitive, differentiable: Any = None, saved: Sequence[str] = ()
    ):
        self.__name__ = self.__qualname__ = prim.name
        self.title, self.inputs = declared.title, declared.inputs
        self.returned = tuple([i for i, name in enumerate(declared.outputs) if name not in saved])
        self.outputs = tuple([declared.outputs[i] for i in self.returned])
        self.into = tuple([declared.inputs.index(one) for one in declared.overwrites])
        self.defaults, self.primitive, self.differentiable = defaults, prim, differentiable
        self.required = tuple([key for key, value in defaults.items() if value is ...])

    def __call__(self, *ins: Any, **given: Any) -> Any:
        """The outputs: a tensor, or a tuple of several. An operation that overwrites inputs returns those first."""
        if given or self.required or len(ins) != len(self.inputs):
            ins, given = self._bound(ins, given)
        params = {**self.defaults, **given}
        for t in ins:
            if not isinstance(t, Tensor):
                self._refuse(ins)
        prim = self.primitive
        if self.into:
            return _in_place(prim, self.into, ins, params)
        out = prim(*ins, **params)
        if not prim.multiple:
            return out
        return tuple([out[i] for i in self.returned]) if len(self.returned) > 1 else out[self.returned[0]]

    def __deepcopy__(self, memo: dict) -> Operation:
        return self  # it has no state; a copied module applies the same one

    def _bound(self, ins: tuple, given: dict) -> tuple[tuple, dict]:
        """Inputs in their order, some of which may come by name, and the parameters. Raises ``TypeError``."""
        name, late = self.__name__, self.inputs[len(ins) :]
        ins = (*ins, *[given[key] for key in late if key in given])
        if len(ins) != len(self.inputs):
            raise TypeError(f"{name}: takes {counted(self.inputs)}, got {len(ins)}")
        params = {key: value for key, value in given.items() if key not in late}
        unknown = [key for key in params if key not in self.defaults]
        if unknown:
            raise TypeError(f"{name}: unexpected argument {', '.join(unknown)}; its parameters are {[*self.defaults]}")
        missing = [key for key in self.required if key not in params]
        if missing:
            raise TypeError(f"{name}: the parameter {', '.join(missing)} must be given by keyword")
        for key, value in params.items():
            if not isinstance(value, STATIC):
                raise TypeError(
                    f"{name}: the parameter {key} is static (a number, a bool, a text or a tuple), got a "
                    f"{type(value).__name__}; what varies from call to call is an input"
                )
        return ins, params

    def _refuse(self, ins: tuple) -> None:
        for name, t in zip(self.inputs, ins, strict=True):
            if not isinstance(t, Tensor):
                static = "; a number that stays the same may be a parameter" if isinstance(t, (int, float)) else ""
                raise TypeError(
                    f"{self.__name__}: input {name} must be a tensor, got a {type(t).__name__}; pass fn.tensor(...) of it{static}"
                )

    def __repr__(self) -> str:
        return f"{self.__name__}({', '.join([*self.inputs, *(f'{k}={v!r}' for k, v in self.defaults.items())])})"


class _Gradient(Operation):
    """What a backward kernel became: the shapes of its outputs come with each call."""

    takes_like = True


def primitive(
    name: str,
    forward: Any,
    outputs: Mapping[str, Any] | None = None,
    *,
    backward: Any = None,
    params: Mapping[str, Any] | None = None,
    overwrites: Sequence[str] = (),
    saved: Sequence[str] = (),
    scratch: Mapping[str, Callable] | None = None,
    worker_scratch: Mapping[str, Callable] | None = None,
    zeros: Sequence[str] = (),
    fold: Sequence[str] = (),
    dtypes: Sequence[str] = FLOATS,
    nanoseconds: Any = 1.0,
    flops: Any = None,
    bytes: Any = None,
    check: Callable | None = None,
) -> Operation:
    """An operation whose work a kernel does (``@kernel``, or Numba's ``@njit``): under grad, vmap, jit and in the profiler.

    The kernel takes contiguous arrays and fills those that are its outputs. What an argument is follows from its name: an
    output, a parameter or scratch where it is declared below, the number of threads where it is called ``workers``, else
    an input. A rule is a function of some of these names, of which it sees ``shape`` and ``dtype``, and parameters.

    forward: the kernel, or a Python function on arrays that fills its outputs as well.
    outputs: for each the name of the input that it is like, or a rule that gives (shape, dtype).
    backward: a kernel, another ``primitive`` or a function of tensors; it takes inputs and outputs, ``dy`` for the output y,
        and fills ``dx`` for each input x that has a derivative (a function returns a derivative or None for each input).
        A kernel by itself has no second derivative; a ``primitive`` with a backward of its own, or a function, has.
    params: static parameters with their defaults, ``...`` where one must be given.
    overwrites: inputs that are changed in place, and returned; such an operation has no derivative.
    saved: outputs that are for the backward pass alone, and not returned.
    scratch, worker_scratch: rules giving (shape, dtype); of the latter each worker has one after another, in one dimension.
    zeros: outputs and scratch that hold zeros at the start.
    fold: inputs whose first axis holds independent rows, as it does in all outputs: a batch is then more rows. Else, and
        where other inputs are batched, the kernel is launched for each example.
    dtypes: what floating inputs may be, all of one dtype.
    nanoseconds: what a number of the largest operand takes on one thread, or a rule for the whole.
    flops, bytes: for the profiler; for each number of the first output, or a rule.
    check: a function of arrays by name that raises on bad values.
    Raises ``TypeError`` for a declaration that does not fit the kernel.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"primitive: the name must be an identifier, got {name!r}")
    outputs, defaults = _outputs(name, outputs), dict(params or {})
    rooms, own = dict(scratch or {}), dict(worker_scratch or {})
    unfit = sorted(RESERVED & {*defaults, *outputs})
    if unfit:
        raise TypeError(f"{name}: {', '.join(unfit)} has a meaning of its own; choose another name")
    listed = (overwrites, saved, zeros, fold, dtypes)
    if any(isinstance(group, str) for group in listed):
        raise TypeError(
            f"{name}: overwrites, saved, zeros, fold and dtypes take several names, such as ('x',), not a text"
        )
    mine, theirs = arguments_of(name, forward), arguments_of(name, backward) if _is_kernel(backward) else ()
    shared, each = ({k: rule for k, rule in group.items() if k in mine or k not in theirs} for group in (rooms, own))
    filled = [z for z in zeros if z in outputs or z in shared or z not in theirs]
    declared = Declared(name, forward, [*outputs], [*defaults], shared, each, filled, overwrites)
    _refuse_names(name, declared, outputs, fold, saved)
    rules = Rules(declared, outputs, tuple(dtypes), fold, nanoseconds, flops, bytes)
    derivative = _derivative(name, declared, rules, backward, defaults, (rooms, own), zeros)
    prim = _primitive(name, rules, derivative, check)
    return Operation(declared, defaults, prim, getattr(derivative, "gradients", None), saved)


def _outputs(name: str, outputs: Any) -> dict[str, Any]:
    if outputs is not None and not isinstance(outputs, Mapping):
        raise TypeError(f"{name}: outputs must be a dict of names and rules, such as {{'y': 'x'}}, got {outputs!r}")
    return dict(outputs or {})


def _is_kernel(function: Any) -> bool:
    return isinstance(adopt(function), Kernel)


def _refuse_names(name: str, declared: Declared, outputs: dict, fold: Sequence[str], saved: Sequence[str]) -> None:
    wrong = [one for one in saved if one not in outputs]
    if wrong or len(saved) == len(declared.outputs):
        raise TypeError(
            f"{name}: saved={list(saved)} must be some of the outputs, {[*outputs]}, and leave one to return"
        )
    for output, rule in outputs.items():
        if isinstance(rule, str) and rule not in declared.inputs:
            raise TypeError(f"{name}: output {output} is like {rule}, which is no input; those are {declared.inputs}")
        if not isinstance(rule, str) and not callable(rule):
            raise TypeError(f"{name}: output {output} needs the name of an input or a rule, got {rule!r}")
    wrong = [one for one in fold if one not in declared.inputs]
    if wrong:
        raise TypeError(f"{name}: fold={wrong} is no input; those are {declared.inputs}")
    if not declared.inputs:
        raise TypeError(f"{name}: {declared.title} has no input; declared are {declared.outputs}")


def _derivative(
    name: str, declared: Declared, rules: Rules, backward: Any, defaults: dict, rooms: tuple, zeros: Sequence[str]
) -> Derivative | None:
    if backward is None:
        return None
    if declared.overwrites:
        raise TypeError(f"{name}: an operation that overwrites {', '.join(declared.overwrites)} has no backward")
    facts = (name, declared.inputs, declared.outputs, [*defaults])
    if isinstance(backward, Operation):
        return ByOperation(backward, *facts)
    if not _is_kernel(backward):
        if not callable(backward):
            raise TypeError(
                f"{name}: backward must be a kernel, a primitive or a function of tensors, got {backward!r}"
            )
        return ByFunction(backward, *facts)
    return ByOperation(_gradient(name, declared, rules, backward, defaults, rooms, zeros), *facts)


def _gradient(
    name: str, of: Declared, rules: Rules, kernel: Any, defaults: dict, rooms: tuple, zeros: Sequence[str]
) -> Operation:
    """The operation of a backward kernel: its outputs are the ``d<input>`` among its arguments."""
    owner, names = f"{name}_grad", arguments_of(name, kernel)
    filled = [n for n in names if n[:1] == "d" and n[1:] in of.inputs and n not in (*of.inputs, *of.outputs)]
    if not filled:
        raise TypeError(f"{name}: backward kernel {kernel.__name__} fills no d<input>; expected some of "
                        f"{', '.join('d' + n for n in of.inputs)} among its arguments")  # fmt: skip
    shared, each = ({key: rule for key, rule in group.items() if key in names} for group in rooms)
    starting = [z for z in zeros if z in filled or z in shared]
    declared = Declared(owner, kernel, filled, [*defaults], shared, each, starting)
    folds = rules.fold if all(n[1:] in rules.fold for n in filled) else ()
    rows = [n for n in declared.inputs if n in folds or n.removeprefix("d") in of.outputs] if folds else []
    if folds and any(n not in rows for n in declared.inputs if n in of.outputs):
        rows = []
    nanoseconds = 1.0 if callable(rules.nanoseconds) else rules.nanoseconds
    made = Rules(declared, {}, rules.dtypes, rows, nanoseconds, None, None)
    prim = _primitive(owner, made, None, None, len(filled) > 1)
    return _Gradient(declared, defaults, prim)


def _primitive(
    name: str, rules: Rules, derivative: Derivative | None, check: Any, multiple: bool | None = None
) -> Primitive:
    several = len(rules.declared.outputs) > 1 if multiple is None else multiple

    def vjp(g: Any, ins: list, outs: Any, lead: tuple = (), **params: Any) -> tuple:
        assert derivative is not None
        likes = partial(rules.shape, *[t._v for t in ins], lead=lead, **params)
        return derivative(g, ins, outs, likes, lead, params)  # type: ignore[operator]

    prim = Primitive(
        name,
        rules.shape,
        cpu=(rules.implementation(),),
        vjp=None if derivative is None else vjp,
        batch=rules.batch,
        keeps="" if derivative is None else derivative.keeps,
        multiple=several,
        check=None if check is None else rules.checked(check),
        flops=rules.cost(rules.flops),
        bytes=rules.cost(rules.bytes),
        overwrites=tuple([rules.inputs.index(one) for one in rules.declared.overwrites]),
    )
    rules.primitive = prim
    return prim


# ---- in place ---------------------------------------------------------------------------------------------------------
def _in_place(prim: Primitive, into: tuple, ins: tuple, params: dict) -> Any:
    """Change the overwritten inputs; return them, and what is computed besides."""
    if ctx.grad:
        for t in ins:
            if t.requires_grad:
                told = "changes its inputs in place and has no derivative; call it in `with fn.no_grad():`"
                raise GradientError(f"{prim.name}: {told}")
    written = [ins[i] for i in into]
    values = None if ctx.top is not None or ctx.stage is not None else _apart(prim, ins, into)
    if values is None:
        with running(ctx.top, False):
            outs = prim(*ins, **params)
            outs = list(outs) if prim.multiple else [outs]
            for box, out in zip(written, outs, strict=False):
                assign(box, out, prim.name)
    else:
        arrays = evaluate(prim, values, params, InPlace(prim, params, into))
        there = []
        for box, array in zip(written, arrays, strict=False):
            if array is box._v:
                there.append(box)
            else:
                assign(box, wrap(array), prim.name)
        overwritten(there)
        outs = [*written, *[wrap(array) for array in arrays[len(written) :]]]
    results = (*written, *outs[len(written) :])
    return results if len(results) > 1 else results[0]


def _apart(prim: Primitive, ins: tuple, into: tuple) -> list | None:
    """The arrays, no other sharing memory with one of those ``into`` which it writes; None where a value is no array."""
    values = []
    for t in ins:
        if t._view is not None:
            refresh(t)
        if type(t._v) is not np.ndarray:
            return None
        values.append(t._v)
    for i in into:
        cell = ins[i]._cell
        if cell is not None and cell.readers is not None:
            before_write(cell)
        mine = values[i]
        alone = mine.base is None
        for j, other in enumerate(values):
            if i == j or (alone and other.base is None and other is not mine):
                continue  # two arrays that own their memory
            if np.may_share_memory(mine, other):
                if j in into:
                    raise ShapeError(
                        f"{prim.name}: two of the tensors that it overwrites share memory; pass a .clone() of one"
                    )
                values[j] = other.copy()
    return values
