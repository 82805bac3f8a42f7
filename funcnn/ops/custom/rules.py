"""The rules of a declared operation: shapes and dtypes, launch plans, a batch as launches or as more rows, costs.

``lead`` is a static parameter that batching adds: ``(n, which)``, where the inputs that ``which`` marks, and all outputs,
have a leading axis of n examples; () otherwise. ``like``: shape and dtype of each output of a gradient's kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import ON_ARRAYS
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.declared import Declared, by_name, shape_and_dtype
from funcnn.kernels.implementation import Implementation, Operand
from funcnn.kernels.launch import Cost, HostPlan
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.structure import expand_p, reshape_p


def example(x: Any, has_lead: bool) -> Operand:
    """Shape and dtype of one example of an operand."""
    return Operand(tuple(x.shape)[has_lead:], x.dtype, ())


class Rules:
    """What ``Primitive`` asks of a declaration. ``outputs``: a rule for each output that is not an overwritten input."""

    def __init__(
        self,
        declared: Declared,
        outputs: Mapping[str, Any],
        dtypes: tuple[str, ...],
        fold: Sequence[str],
        nanoseconds: Any,
        flops: Any,
        bytes: Any,
    ):
        self.declared, self.owner, self.outputs = declared, declared.owner, dict(outputs)
        self.dtypes, self.fold = dtypes, tuple(fold)
        self.nanoseconds, self.flops, self.bytes = nanoseconds, flops, bytes
        self.primitive: Any = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.declared.inputs

    # ---- shapes -------------------------------------------------------------------------------------------------------
    def shape(self, *ins: Any, lead: tuple = (), like: tuple = (), **params: Any) -> tuple:
        """The outputs. Raises ``TypeError``, ``DTypeError``, and what the author's rules raise."""
        if len(ins) != len(self.inputs):
            raise TypeError(f"{self.owner}: takes {counted(self.inputs)}, got {len(ins)}")
        outs = self.examples(self._of_one(ins, lead), like, params)
        return tuple([Aval((lead[0], *out.shape), out.dtype) for out in outs]) if lead else outs

    def _of_one(self, ins: Sequence[Any], lead: tuple) -> list[Operand]:
        return [example(x, bool(lead) and lead[1][i]) for i, x in enumerate(ins)]

    def examples(self, ins: list, like: tuple, params: dict) -> tuple[Aval, ...]:
        """The outputs of one example."""
        self._compare_dtypes(ins)
        if like:
            return tuple([Aval(*one) for one in like])
        named = {**params, **dict(zip(self.inputs, ins, strict=True))}
        made = [named[name] for name in self.declared.overwrites]
        for name, rule in self.outputs.items():
            told = named[rule] if isinstance(rule, str) else by_name(self.owner, f"output {name}", rule, named)
            made.append(Aval(*shape_and_dtype(self.owner, f"output {name}", told)))
        return tuple([Aval(out.shape, out.dtype) for out in made])

    def _compare_dtypes(self, ins: list) -> None:
        floats = {name: x.dtype for name, x in zip(self.inputs, ins, strict=True) if x.dtype.kind == "f"}
        for name, dtype in floats.items():
            if dtype.name not in self.dtypes:
                raise DTypeError(
                    f"{self.owner}: {name} is {dtype}, and it computes in {' and '.join(self.dtypes)}; cast it, or declare "
                    "dtypes=(...)"
                )
        if len(set(floats.values())) > 1:
            got = ", ".join(f"{name} {dtype}" for name, dtype in floats.items())
            raise DTypeError(f"{self.owner}: floating inputs must have one dtype, got {got}; cast with .to(dtype)")

    # ---- implementations ----------------------------------------------------------------------------------------------
    def implementation(self) -> Implementation:
        """The kernel's launches, or the Python function on arrays."""
        if not self.declared.is_kernel:
            made = HostPlan(self._call, ON_ARRAYS)
            return Implementation("host", lambda operands, params: made, None, ON_ARRAYS)
        return Implementation("kernel", self._plan)

    def _plan(self, operands: tuple, params: dict) -> Any:
        lead, like = params.get("lead", ()), params.get("like", ())
        static = {key: value for key, value in params.items() if key not in ("lead", "like")}
        ins = self._of_one(operands, lead)
        outs = self.examples(ins, like, static)
        named = self.declared.named(ins, outs, static)
        times, steps = lead or (1, ())
        flops, moved = (self._cost(rule, named, outs) * times for rule in (self.flops, self.bytes))
        cost = Cost(flops, moved, self._nanoseconds(named) * times)
        return self.declared.plan(ins, outs, static, self._nanoseconds, cost, times, steps)

    def _call(self, ins: list, outs: list, lead: tuple = (), like: tuple = (), **params: Any) -> None:
        if not lead:
            self.declared.call(ins, outs, params)
            return
        for i in range(lead[0]):
            one = [x[i, ...] if stepping else x for x, stepping in zip(ins, lead[1], strict=True)]
            self.declared.call(one, [out[i, ...] for out in outs], params)

    def _nanoseconds(self, named: dict) -> float:
        if callable(self.nanoseconds):
            return float(by_name(self.owner, "nanoseconds", self.nanoseconds, named))
        return float(self.nanoseconds) * max(prod(x.shape) for x in named.values() if hasattr(x, "dtype"))

    def _cost(self, rule: Any, named: dict, outs: Sequence[Any]) -> float:
        if rule is None:
            return 0.0
        return float(by_name(self.owner, "a cost", rule, named) if callable(rule) else rule * prod(outs[0].shape))

    def cost(self, rule: Any) -> Callable | None:
        """``(ins, outs, params) -> number`` for the profiler, of a rule by names or a number for each element."""
        if rule is None:
            return None

        def told(ins: list, outs: list, params: dict) -> float:
            lead = params.get("lead", ())
            static = {key: value for key, value in params.items() if key not in ("lead", "like")}
            one = [example(out, bool(lead)) for out in outs]
            named = self.declared.named(self._of_one(ins, lead), one, static)
            return self._cost(rule, named, one) * (lead[0] if lead else 1)

        return told

    def checked(self, check: Callable) -> Callable:
        """``(ins, **params)`` for a check by names."""

        def call(ins: list, lead: tuple = (), like: tuple = (), **params: Any) -> None:
            by_name(self.owner, "check", check, {**params, **dict(zip(self.inputs, ins, strict=True))})

        return call

    # ---- batches ------------------------------------------------------------------------------------------------------
    def batch(self, n: int, ins: list, batched: list, lead: tuple = (), **params: Any) -> Any:
        """A batch: more rows where the inputs that have it are folded, else a launch for each example in one plan."""
        if not lead and self._folds(ins, batched):
            return self._folded(n, ins, batched, params)
        if not lead:
            return self.primitive(*ins, lead=(n, tuple(map(bool, batched))), **params)
        inner, which = lead
        both = [b or w for b, w in zip(batched, which, strict=True)]
        whole = [
            merged(t, n, inner, b, w) if wanted else t
            for t, b, w, wanted in zip(ins, batched, which, both, strict=True)
        ]
        outs = self.primitive(*whole, lead=(n * inner, tuple(both)), **params)
        return self._each(outs, lambda t: reshape_p(t, shape=(n, inner, *t._v.shape[1:])))

    def _folds(self, ins: list, batched: list) -> bool:
        """Whether only inputs that hold rows are batched, and there are rows."""
        if not self.fold:
            return False
        rows = [name in self.fold for name in self.inputs]
        inside = all(r or not b for r, b in zip(rows, batched, strict=True))
        return inside and all(t.ndim > b for t, b, r in zip(ins, batched, rows, strict=True) if r)

    def _folded(self, n: int, ins: list, batched: list, params: dict) -> Any:
        rows = [name in self.fold for name in self.inputs]
        spread = all_batched(n, ins, [b or not r for b, r in zip(batched, rows, strict=True)])
        first = next(t for t, r in zip(spread, rows, strict=True) if r)
        count = first._v.shape[1]
        given = [
            reshape_p(t, shape=(n * t._v.shape[1], *t._v.shape[2:])) if r else t
            for t, r in zip(spread, rows, strict=True)
        ]
        if "like" in params:
            params = {**params, "like": tuple([((n * shape[0], *shape[1:]), dtype) for shape, dtype in params["like"]])}
        return self._each(self.primitive(*given, **params), lambda t: reshape_p(t, shape=(n, count, *t._v.shape[1:])))

    def _each(self, outs: Any, change: Callable) -> Any:
        return [change(out) for out in outs] if self.primitive.multiple else change(outs)


def merged(t: Tensor, n: int, inner: int, outside: bool, inside: bool) -> Tensor:
    """A tensor with one leading axis for a batch of batches, repeated over the one that it has not."""
    shape = t._v.shape
    if not outside:
        t = expand_p(t, shape=(n, *shape))
    elif not inside:
        t = expand_p(reshape_p(t, shape=(n, 1, *shape[1:])), shape=(n, inner, *shape[1:]))
    return reshape_p(t, shape=(n * inner, *t._v.shape[2:]))


def counted(names: Sequence[str]) -> str:
    """``2 inputs (x, y)``."""
    return f"{len(names)} input{'s' * (len(names) != 1)} ({', '.join(names)})"
