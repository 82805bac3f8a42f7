"""Which of its arguments a kernel writes into, found in its code, so that arrays that it only reads may be read-only.

Numba's own test knows assignments to arrays, not to the pointers that our kernels work with. Here each function is read as
Numba's intermediate form: what an argument becomes (views, pointers, places in a tuple), what is assigned into, and, in
turn, what the functions that it is handed to do; an intrinsic does what its Python twin does. The order of statements does
not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

_METHODS = {"fill", "sort", "put", "partition", "itemset", "setfield"}  # of arrays, that write into them
_NUMBERS = {"dtype", "shape", "size", "itemsize", "ndim", "nbytes", "strides"}  # what an array tells, no part of it
_PARTS = {"cast", "getitem", "static_getitem", "typed_getitem", "exhaust_iter", "getiter", "iternext", "pair_first"}


class Effects(NamedTuple):
    """Holds the positions of the arguments that a function writes into, and of those that its result may be a part of."""

    written: frozenset[int]  # by assignments to their elements
    added: frozenset[int]  # by ``x += y``, which writes into an array but not into the one that a number is from
    returned: frozenset[int]


NOTHING = Effects(frozenset(), frozenset(), frozenset())


def refuse_read_only(kernel: Any, given: Any) -> None:
    """Raises ``ValueError`` where a type among ``given`` is that of a read-only array into which the kernel writes."""
    from numba import types

    held = {place for place, t in enumerate(given) if isinstance(t, types.Array) and not t.mutable}
    done = effects(kernel.function) if held else NOTHING
    for place in sorted(held & (done.written | done.added)):
        name = kernel.function.__code__.co_varnames[place]
        if name in kernel.facts.reads:
            continue
        raise ValueError(
            f"kernel {kernel.__name__} writes into its argument {name}, which is read-only memory ({given[place]}); pass an "
            "array that may be written, for instance a copy"
        )


_open: set[Any] = set()  # functions that are being read: a recursive one adds nothing to itself


def effects(function: Any) -> Effects:
    """Returns what a Python function, whose globals may be kernels, does to its arguments."""
    return NOTHING if function in _open else _read(function)


@cache
def _read(function: Any) -> Effects:
    from numba.core.compiler import run_frontend

    _open.add(function)
    try:
        return _Reader(run_frontend(function)).effects()
    except Exception:  # twins may be any Python, which Numba need not understand
        return NOTHING
    finally:
        _open.discard(function)


class _Reader:
    """What the variables of one function hold; grows until nothing changes."""

    def __init__(self, code: Any):
        self.statements = [step for block in code.blocks.values() for step in block.body]
        self.whole: dict[str, set[int]] = {}  # arguments that a variable may be
        self.parts: dict[str, set[int]] = {}  # and those that it may be a part of
        self.constants: dict[str, Any] = {}
        self.tuples: dict[str, list] = {}
        self.written: set[int] = set()
        self.added: set[int] = set()
        self.returned: set[int] = set()

    def effects(self) -> Effects:
        """Repeats over the statements until nothing changes."""
        before = -1
        while before != (before := self._size()):
            for step in self.statements:
                self._statement(step)
        return Effects(frozenset(self.written), frozenset(self.added), frozenset(self.returned))

    def _size(self) -> int:
        held = [
            *self.whole.values(),
            *self.parts.values(),
            self.written,
            self.added,
            self.returned,
            self.constants,
            self.tuples,
        ]
        return sum(map(len, held))

    def _of(self, variables: Iterable[Any]) -> set[int]:
        return {i for v in variables for kept in (self.whole, self.parts) for i in kept.get(v.name, ())}

    def _statement(self, step: Any) -> None:
        from numba.core import ir

        if isinstance(step, (ir.SetItem, ir.StaticSetItem)):
            self.written |= self._of([step.target])
        elif isinstance(step, ir.Return):
            self.returned |= self._of([step.value])
        elif isinstance(step, ir.Assign):
            self._assign(step.target.name, step.value, ir)

    def _assign(self, target: str, value: Any, ir: Any) -> None:
        whole, parts = self.whole.setdefault(target, set()), self.parts.setdefault(target, set())
        if isinstance(value, ir.Arg):
            whole.add(value.index)
        elif isinstance(value, ir.Var):
            self._same(target, value.name)
        elif isinstance(value, (ir.Global, ir.FreeVar)):
            self.constants[target] = value.value
        elif isinstance(value, ir.Expr):
            if value.op == "call":
                parts |= self._call(value)
            elif value.op == "build_tuple":
                self.tuples[target] = value.items
                parts |= self._of(value.items)
            elif value.op == "inplace_binop":
                self.added |= self.whole.get(value.lhs.name, set())
                whole |= self.whole.get(value.lhs.name, set())
            elif value.op in ("exhaust_iter", "static_getitem") and value.value.name in self.tuples:
                items = self.tuples[value.value.name]
                if value.op == "exhaust_iter":
                    self.tuples[target] = items
                elif isinstance(value.index, int) and value.index < len(items):
                    self._same(target, items[value.index].name)
            elif value.op == "getattr":
                parts |= set() if value.attr in _NUMBERS else self._of([value.value])
                self.constants[target] = getattr(self.constants.get(value.value.name), value.attr, (value,))
            elif value.op in _PARTS:
                parts |= self._of([value.value])

    def _same(self, target: str, source: str) -> None:
        self.whole[target] |= self.whole.get(source, set())
        self.parts.setdefault(target, set()).update(self.parts.get(source, set()))
        for kept in (self.tuples, self.constants):  # a condition moves them, too, through places on the stack
            if source in kept:
                kept[target] = kept[source]

    def _call(self, call: Any) -> set[int]:
        """Returns the arguments that the result may be a part of."""
        called, args = self.constants.get(call.func.name), [*call.args, *(v for _, v in call.kws)]
        if isinstance(called, tuple):  # a method
            if called[0].attr in _METHODS:
                self.written |= self._of([called[0].value])
            return self._of([called[0].value, *args])
        self.written |= self._of([v for name, v in call.kws if name == "out"])
        if (handed := getattr(called, "calls", None)) is not None:
            body, members = (args[place].name for place in handed)
            called, args = self.constants.get(body), [None, None, *self.tuples.get(members, [])]
        function = (
            getattr(called, "twin", None) or getattr(called, "function", None) or getattr(called, "py_func", None)
        )
        if function is None:
            return self._of(args)
        done = effects(function)
        given = {i: v for i, v in enumerate(args) if v is not None}
        self.written |= self._of(given[i] for i in done.written & given.keys())
        self.added |= {i for place in done.added & given.keys() for i in self.whole.get(given[place].name, ())}
        return self._of(given[i] for i in done.returned & given.keys())
