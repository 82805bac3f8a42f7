"""One update of all tensors of a group: as a primitive, which makes new tensors, and in place, for the classes.

A primitive's inputs are the hyperparameters (0-d, float64), then the parameters, the gradients, and each kind of slot in
the rule's order; its outputs the new parameters and slots. Its derivative is that of the rule's composed step.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.device import device_of
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.mutation import overwritten
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.threads import number as threads
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.promote import stored
from funcnn.ops.tensor.creation import zeros_like
from funcnn.optim.fit import Label, Member, kinds, unnamed
from funcnn.optim.rules import Hyper, Rule
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap

CHUNK = 1 << 14  # elements; Adam's four streams of a chunk fit in the cache of a core


# ---- tables -----------------------------------------------------------------------------------------------------------
def address(array: np.ndarray, _byte: Any = ctypes.c_char) -> int:
    """Where a contiguous array's memory begins."""
    try:
        return ctypes.addressof(_byte.from_buffer(array))  # a quarter of the time of array.ctypes.data
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data


def tabled(arrays: list[np.ndarray], count: int, models: int = 1) -> np.ndarray:
    """The table of a kernel: addresses [0] and lengths [1] of contiguous arrays, a row for each kind of array, in it those of
    each model of each tensor."""
    if models == 1:
        return np.array([*map(address, arrays), *[a.size for a in arrays]], np.int64).reshape(2, -1, count)
    sizes = np.array([[a.size // models, a.itemsize] for a in arrays], np.int64)
    starts = np.array([*map(address, arrays)], np.int64)[:, None] + sizes.prod(1)[:, None] * np.arange(models)
    return np.stack([starts, np.repeat(sizes[:, :1], models, 1)]).reshape(2, -1, count * models)


@lru_cache(maxsize=64)
def chunk_table(sizes: tuple[int, ...]) -> np.ndarray:
    """Rows (tensor, first element, elements) that cover tensors of these sizes; cut by the sizes alone."""
    rows = [(i, at, min(CHUNK, n - at)) for i, n in enumerate(sizes) for at in range(0, n, CHUNK)]
    return np.array(rows, np.int64).reshape(-1, 3)


def _launch(
    rule: Rule, table: np.ndarray, sizes: tuple, kind: np.dtype, names: tuple, hyper: list, flags: tuple
) -> None:
    chunks = chunk_table(sizes)
    workers = threads.workers(sum(sizes) * 0.25 * kind.itemsize)
    rates = fresh((2, len(sizes)))
    rule.kernel(names, table, chunks, np.empty(0, kind), rates, np.array(hyper, np.float64), *flags, workers)


# ---- the primitives ---------------------------------------------------------------------------------------------------
def _shape(rule: Rule, ins: tuple, count: int, names: tuple, lead: int) -> tuple:
    if names not in rule.layouts:
        raise ShapeError(f"{rule.name}: there is no step with the slots {list(names)}; expected one of {rule.layouts}")
    first = len(ins) - count * (2 + len(names))
    columns = [ins[at : at + count] for at in range(first, len(ins), count)]
    many = tuple(columns[0][0].shape[:lead])
    what_else, counter = ("gradient", *names), (many, dtypes.float32)
    for p, *others in zip(*columns, strict=True):
        shape = tuple(p.shape)
        like = (shape if shape[:lead] == many else (*many, *shape[lead:]), p.dtype)
        for what, t in zip(what_else, others, strict=True):
            wanted = counter if what == "step" else like
            if (tuple(t.shape), t.dtype) != wanted:
                raise (ShapeError if t.dtype == wanted[1] else DTypeError)(
                    f"{rule.name}: {what} of {t.dtype}{tuple(t.shape)} for a parameter of {p.dtype}{shape}; "
                    f"expected {wanted[1]}{wanted[0]}"
                )
    return tuple(t for row in (columns[0], *columns[2:]) for t in row)


def _composed(rule: Rule, count: int, names: tuple, flags: tuple, lead: int) -> Callable:
    """The update in ordinary operations, of the inputs of the primitive."""

    def step(*ins: Tensor) -> list:
        first = len(ins) - count * (2 + len(names))
        hyper = {**rule.unpack(ins[:first]), **dict(zip(rule.flags, flags, strict=True))}
        rows = zip(*[ins[at : at + count] for at in range(first, len(ins), count)], strict=True)
        done = [rule.step(g, dict(zip(names, slots, strict=True)), p, hyper) for p, g, *slots in rows]
        return [p for p, _ in done] + [slots[name] for name in names for _, slots in done]

    def of_models(*ins: Tensor) -> list:
        tensors, f = count * (2 + len(names)), step
        for _ in range(lead):
            f = vmap(f, (None,) * (len(ins) - tensors) + (0,) * tensors)
        return f(*ins)

    return of_models


def _primitive(rule: Rule) -> Primitive:
    """The primitive of a rule. ``count``: how many tensors; ``names``: their slots; ``flags``: the rule's flags.

    lead: how many leading axes of all tensors count models, each with a step of its own: what vmap adds. The kernel takes
    the models' tensors for tensors of one model.
    """

    def run(ins: list, outs: list, count: int, names: tuple, flags: tuple, lead: int) -> None:
        first = len(ins) - count * (2 + len(names))
        sources = [np.ascontiguousarray(t) for t in ins[first:]]
        models = prod(sources[0].shape[:lead])
        if models:
            sizes = tuple([t.size // models for t in sources[:count] for _ in range(models)])
            table = tabled([*sources, *outs], count, models)
            _launch(rule, table, sizes, sources[0].dtype, names, [float(t) for t in ins[:first]], flags)

    def pullback(g: list, ins: list, outs: list, **params: Any) -> tuple:
        results, pull = vjp(_composed(rule, **params), *ins)
        return pull([zeros_like(y) if g[i] is None else g[i] for i, y in enumerate(results)])

    def batch(n: int, ins: list, batched: list, lead: int, **params: Any) -> list:
        first = len(ins) - params["count"] * (2 + len(params["names"]))
        if any(batched[:first]):  # numbers of each model's own
            return vmap(_composed(rule, lead=lead, **params), tuple([0 if b else None for b in batched]))(*ins)
        return prim(*ins[:first], *all_batched(n, ins[first:], batched[first:]), lead=lead + 1, **params)

    prim = Primitive(
        f"{rule.name}_update",
        lambda *ins, count, names, flags, lead: _shape(rule, ins, count, names, lead),
        cpu=run,
        vjp=pullback,
        batch=batch,
        multiple=True,
        flops=lambda ins, outs, params: rule.flops * sum(p.size for p in outs[: params["count"]]),
    )
    return prim


@lru_cache
def primitive(rule: Rule) -> Primitive:
    """The fused primitive of a rule."""
    return _primitive(rule)


def update(rule: Rule, members: list[Member], hyper: Hyper, label: Label = unnamed, pure: bool = True) -> list:
    """New ``(parameter, slots)`` for each ``(parameter, gradient, slots)``; arguments as for ``fit.kinds``."""
    done: list = [None] * len(members)
    for (dtype, names), places in kinds(rule, members, hyper, label, pure).items():
        if dtype is None:  # half precision, or mixed: computed step by step
            for i in places:
                p, g, slots = members[i]
                new, after = rule.step(g, {name: slots[name] for name in names}, p, hyper)
                done[i] = (new, {**slots, **after})
            continue
        place = device_of(members[places[0]][0]._v)
        numbers = [stored(rule.name, value, dtypes.float64, place) for value in rule.pack(hyper)]
        kept = [members[i][2][name] for name in names for i in places]
        tensors = [*(members[i][0] for i in places), *(members[i][1] for i in places), *kept]
        flags = tuple(bool(hyper[flag]) for flag in rule.flags)
        outs = primitive(rule)(*numbers, *tensors, count=len(places), names=names, flags=flags, lead=0)
        for column, i in enumerate(places):
            new = outs[column :: len(places)]
            done[i] = (new[0], {**members[i][2], **dict(zip(names, new[1:], strict=True))})
    return done


# ---- in place ---------------------------------------------------------------------------------------------------------
class InPlace:
    """Updates tensors of one kind (``fit.kinds``) in their own memory, whose addresses are looked up once."""

    def __init__(self, rule: Rule, names: tuple[str, ...]):
        self.rule, self.names = rule, names
        self.seen: list[weakref.ref] = []  # weak: a step of jit may have put other arrays in the tensors' place
        self.table = np.empty((2, 0, 0), np.int64)
        self.sizes: tuple[int, ...] = ()

    def run(self, members: list[Member], hyper: Hyper) -> bool:
        """One step; False, with nothing done, where the memory is not contiguous and writable."""
        return (self.again(members, self.names) or self._look_up(members)) and self.launch(members, hyper)

    def launch(self, members: list[Member], hyper: Hyper) -> bool:
        """One step of what was looked up; False, with nothing done, where a gradient is not like its parameter."""
        held = []
        for p, g, _ in members:
            value, like = g._v, p._v
            if value.shape != like.shape or value.dtype != like.dtype:
                return False
            held.append(np.ascontiguousarray(value))
        self.table[:, 1] = [address(g) for g in held], [g.size for g in held]
        flags = tuple([bool(hyper[flag]) for flag in self.rule.flags])
        values = [float(v) for v in self.rule.pack(hyper)]
        _launch(self.rule, self.table, self.sizes, held[0].dtype, self.names, values, flags)
        for box in self._boxes(members):
            overwritten(box)
        return True

    def again(self, members: list[Member], names: tuple[str, ...]) -> bool:
        """Whether these are the arrays that were looked up, in the slots of these names."""
        seen = self.seen
        if names != self.names or len(seen) != len(members) * (1 + len(names)):
            return False
        try:
            boxes = self._boxes(members)
        except KeyError:  # a slot was taken out
            return False
        return all(ref() is getattr(box, "_v", None) for ref, box in zip(seen, boxes, strict=True))

    def _look_up(self, members: list[Member]) -> bool:
        """Take down where the tensors are; False where one is not contiguous and writable, or not of the kind."""
        arrays, count = [box._v for box in self._boxes(members)], len(members)
        kind = arrays[0].dtype
        for i, a in enumerate(arrays):
            counter = i >= count and self.names[i // count - 1] == "step"
            if (a.size, a.dtype) != ((1, dtypes.float32) if counter else (arrays[i % count].size, kind)):
                return False
            if type(a) is not np.ndarray or not a.flags.c_contiguous or not a.flags.writeable:
                return False
        rows = tabled(arrays, count)
        self.table = np.concatenate([rows[:, :1], rows[:, :1], rows[:, 1:], rows], 1)
        self.sizes = tuple([a.size for a in arrays[:count]])
        self.seen = [weakref.ref(a) for a in arrays]
        return True

    def _boxes(self, members: list[Member]) -> list[Tensor]:
        return [p for p, _, _ in members] + [slots[name] for name in self.names for _, _, slots in members]
