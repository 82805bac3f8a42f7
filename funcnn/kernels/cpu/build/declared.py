"""Kernels that their author declares: what each argument is follows from its name, and from that the launch plans.

An argument of a kernel is an output, a static parameter or scratch where the declaration says so, the number of threads where
it is called ``workers``, and an input otherwise. Arrays reach the kernel contiguous, in their shapes.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import prod
from threading import Lock
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.build.compile import Intrinsic, Kernel, ParallelKernel
from funcnn.kernels.cpu.build.writes import effects
from funcnn.kernels.implementation import ANY, CONTIGUOUS
from funcnn.kernels.launch import INPUT, OUTPUT, SCRATCH, Array, Cost, Launch, LaunchPlan, Output, Scratch, Workers
from funcnn.kernels.names import ADOPTED

WORKERS = "workers"
PARAMETER = "parameter"
SHARED = "scratch"
OWN = "scratch of each worker"


_adopting = Lock()


def adopt(function: Any) -> Any:
    """Returns the kernel of a function that Numba compiles (``@njit``), the same one each time; anything else as it is."""
    plain, options = getattr(function, "py_func", None), getattr(function, "targetoptions", None)
    if not isinstance(plain, FunctionType) or not isinstance(options, dict):
        return function
    with _adopting:
        if ADOPTED not in vars(function):
            asked = {key: options[key] for key in ("error_model", "fastmath", "forceinline") if key in options}
            kind = ParallelKernel if options.get("parallel") else Kernel
            more = {"parallel": options["parallel"]} if options.get("parallel") else {}
            vars(function)[ADOPTED] = kind(plain, **{"fastmath": False, "error_model": "python", **asked, **more})
        return vars(function)[ADOPTED]


class Argument(NamedTuple):
    """What an argument is, and its number among those of its kind, or its name."""

    kind: str
    at: Any


def arguments_of(owner: str, function: Any) -> tuple[str, ...]:
    """Returns the names of a function's arguments. Raises ``TypeError`` where they are not plain names."""
    plain = getattr(function, "function", None) or getattr(function, "py_func", None) or function
    try:
        found = inspect.signature(plain).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: the arguments of {function!r} have no names; wrap it in a function") from None
    wrong = [str(p) for p in found if p.kind is not p.POSITIONAL_OR_KEYWORD]
    if wrong:
        raise TypeError(f"{owner}: {title(function)} takes {', '.join(wrong)}; every argument must be a plain name")
    return tuple([p.name for p in found])


def title(function: Any) -> str:
    """Returns how a function is called in errors: ``kernel f(x, y)``."""
    if hasattr(function, "title"):
        return function.title
    plain = getattr(function, "function", None) or getattr(function, "py_func", None) or function
    kind = "function" if plain is function else "kernel"
    return f"{kind} {getattr(plain, '__name__', plain)}({', '.join(inspect.signature(plain).parameters)})"


def by_name(owner: str, what: str, rule: Callable, named: Mapping[str, Any]) -> Any:
    """Returns a rule's value, for arguments of the names that it takes. Raises ``TypeError`` for a name that there is not."""
    names = arguments_of(owner, rule)
    missing = [name for name in names if name not in named]
    if missing:
        raise TypeError(f"{owner}: the rule of {what} takes {missing}; there are {', '.join(named)}")
    return rule(*[named[name] for name in names])


def _returns(function: FunctionType) -> bool:
    """Whether a function's code returns anything but None."""
    steps = list(dis.get_instructions(function))
    for before, step in zip([None, *steps], steps, strict=False):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return True
        if step.opname == "RETURN_VALUE":
            assert before is not None
            if before.opname != "LOAD_CONST" or before.argval is not None:
                return True
    return False


class Declared:
    """A kernel, or a Python function on arrays, with what its arguments are. Raises ``TypeError`` for what does not fit.

    outputs: those that it fills, in order. overwrites: inputs that it writes into, which are the first outputs, too.
    scratch, own: names and rules ``rule(<names>) -> (shape, dtype)``, of all workers together and of each.
    """

    def __init__(
        self,
        owner: str,
        function: Any,
        outputs: Sequence[str],
        params: Sequence[str],
        scratch: Mapping[str, Callable],
        own: Mapping[str, Callable],
        zeros: Sequence[str],
        overwrites: Sequence[str] = (),
    ):
        self.owner, self.title = owner, title(function)
        self.function = adopt(function)
        self.is_kernel = isinstance(self.function, Kernel)
        if isinstance(self.function, Intrinsic) or not callable(function):
            raise TypeError(f"{owner}: expected a kernel or a function that fills its outputs, got {function!r}")
        self.names = arguments_of(owner, function)
        self.scratch, self.own, self.zeros = dict(scratch), dict(own), frozenset(zeros)
        self.outputs = (*overwrites, *outputs)
        self.overwrites = tuple(overwrites)
        known = {*outputs, *params, *scratch, *own, WORKERS}
        self.inputs = tuple([name for name in self.names if name not in known])
        self._refuse(outputs, params)
        self.args = tuple([self._argument(name) for name in self.names])

    def _refuse(self, outputs: Sequence[str], params: Sequence[str]) -> None:
        owner = self.owner
        for what, names in (("output", outputs), ("overwritten input", self.overwrites), ("scratch", self.scratch),
                            ("scratch", self.own)):  # fmt: skip
            for name in names:
                if name not in self.names:
                    raise TypeError(f"{owner}: {self.title} has no argument {name}, which is declared as {what}")
        groups = [*outputs, *params, *self.scratch, *self.own, *self.overwrites]
        twice = sorted({name for name in groups if groups.count(name) > 1} | ({WORKERS} & {*groups}))
        if twice:
            raise TypeError(f"{owner}: {', '.join(twice)} is declared twice; each argument is one thing")
        if not self.outputs:
            raise TypeError(
                f"{owner}: nothing says which arguments of {self.title} are filled; declare outputs={{name: rule}}, or "
                "overwrites=(name,) for inputs that it writes into"
            )
        wrong = self.zeros - {*outputs, *self.scratch}
        if wrong:
            raise TypeError(
                f"{owner}: zeros={sorted(wrong)} names neither an output nor scratch that all workers share"
            )
        if self.is_kernel and _returns(self.function.function):
            raise TypeError(
                f"{owner}: {self.title} returns a value; a kernel returns nothing and fills its outputs "
                f"({', '.join(self.outputs)})"
            )
        if not self.is_kernel and (self.scratch or self.own or WORKERS in self.names):
            raise TypeError(
                f"{owner}: {self.title} is no kernel and gets neither scratch nor workers; decorate it @kernel"
            )
        if self.own and WORKERS not in self.names:
            raise TypeError(f"{owner}: scratch of each worker needs the argument {WORKERS} in {self.title}")

    def _argument(self, name: str) -> Argument:
        if name in self.outputs:
            return Argument(OUTPUT, self.outputs.index(name))
        if name in self.inputs:
            return Argument(INPUT, self.inputs.index(name))
        if name in self.scratch or name in self.own:
            return Argument(SCRATCH, [*self.scratch, *self.own].index(name))
        return Argument(WORKERS if name == WORKERS else PARAMETER, name)

    def named(self, ins: Sequence[Any], outs: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
        """Operands and parameters by name, for rules."""
        return {**params, **dict(zip(self.outputs, outs, strict=True)), **dict(zip(self.inputs, ins, strict=True))}

    # ---- plans ----------------------------------------------------------------------------------------------------------
    def plan(
        self,
        ins: Sequence[Any],
        outs: Sequence[Any],
        params: Mapping[str, Any],
        nanoseconds: Callable[[dict], float],
        cost: Cost = Cost(),
        times: int = 1,
        steps: Sequence[bool] = (),
    ) -> LaunchPlan:
        """Returns one launch, or ``times`` of them along a leading axis of the outputs and of the inputs that ``steps`` says have it.

        ins, outs: shape and dtype of one such example.
        """
        self._compare_writes()
        named = self.named(ins, outs, params)
        rooms = [self._room(name, rule, named) for name, rule in (*self.scratch.items(), *self.own.items())]
        lead = bool(steps)
        args: list[Any] = []
        for kind, at in self.args:
            if kind == INPUT:
                args.append(Array(INPUT, at, ins[at].shape, step=prod(ins[at].shape) if lead and steps[at] else 0))
            elif kind == OUTPUT:
                args.append(Array(OUTPUT, at, outs[at].shape, step=prod(outs[at].shape) if lead else 0))
            elif kind == SCRATCH:
                shape, _ = rooms[at]
                shared = at < len(self.scratch)
                stepping = lead and shared and [*self.scratch][at] in self.zeros
                args.append(Array(SCRATCH, at, shape if shared else None, step=prod(shape) if stepping else 0))
            else:
                args.append(Workers(float(nanoseconds(named))) if kind == WORKERS else params[at])
        accesses = [ANY if name in self.overwrites else CONTIGUOUS for name in self.inputs]
        launches = (Launch(self.function, tuple(args), times),) if times else ()
        return LaunchPlan(
            launches, tuple(accesses), tuple(map(self._output, self.outputs)), self._scratch(rooms, times), cost=cost
        )

    def _output(self, name: str) -> Output:
        if name in self.overwrites:
            at = self.inputs.index(name)
            return Output(at, (at,))
        return Output("zeros" if name in self.zeros else "anything")

    def _scratch(self, rooms: list, times: int) -> tuple[Scratch, ...]:
        made = []
        for (shape, dtype), name in zip(rooms, (*self.scratch, *self.own), strict=True):
            zeros = name in self.zeros
            made.append(Scratch(dtype.name, prod(shape) * (times if zeros else 1), name in self.own, zeros))
        return tuple(made)

    def _room(self, name: str, rule: Callable, named: dict) -> tuple[tuple[int, ...], np.dtype]:
        return shape_and_dtype(self.owner, f"scratch {name}", by_name(self.owner, name, rule, named))

    def _compare_writes(self) -> None:
        """Raises ``TypeError`` where the kernel writes into an argument that is no output."""
        done = effects(self.function.function)
        for place in sorted(done.written | done.added):
            name = self.names[place]
            if self.args[place].kind == INPUT and name not in self.function.facts.reads:
                raise TypeError(
                    f"{self.owner}: {self.title} writes into {name}, which is not declared; add it to outputs={{...}}, or to "
                    "overwrites=(...) if it changes an input"
                )

    # ---- Python functions -----------------------------------------------------------------------------------------------
    def call(self, ins: Sequence[Any], outs: Sequence[Any], params: Mapping[str, Any]) -> None:
        """Calls a function that is no kernel. Raises ``TypeError`` where it returns what it should have filled in."""
        for name, out in zip(self.outputs, outs, strict=True):
            if name in self.overwrites:
                np.copyto(out, ins[self.inputs.index(name)])
            elif name in self.zeros:
                out.fill(0)
        given: dict[str, Any] = {INPUT: ins, OUTPUT: outs, PARAMETER: params}
        result = self.function(*[given[kind][at] for kind, at in self.args])
        if result is not None and not any(result is out for out in outs):
            raise TypeError(
                f"{self.owner}: {self.title} returned a {type(result).__name__}; it has to fill its outputs instead: "
                f"{self.outputs[0]}[...] = ..."
            )


def shape_and_dtype(owner: str, what: str, made: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Returns a rule's result, as a shape and a dtype. Raises ``TypeError``."""
    if hasattr(made, "shape") and hasattr(made, "dtype"):
        made = (made.shape, made.dtype)
    try:
        shape, dtype = made
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        sizes, kind = tuple([int(size) for size in shape]), np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: the rule of {what} must give (shape, dtype), got {made!r}") from None
    if any(size < 0 for size in sizes) or sizes != shape:
        raise ValueError(f"{owner}: the rule of {what} gives the shape {shape}; sizes are integers from 0 on")
    return sizes, kind
