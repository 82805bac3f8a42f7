"""The eager update of a group's tensors in their own memory, of which a step that is repeated looks up almost nothing."""

from __future__ import annotations

from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.context import ctx
from funcnn.core.in_place import Known, looked_up
from funcnn.core.mutation import assign, overwritten
from funcnn.core.primitive import evaluate
from funcnn.core.tensor import wrap
from funcnn.ops.base.promote import stored
from funcnn.optim.fit import Member
from funcnn.optim.fused import PRIMITIVES, columns, flags_of
from funcnn.optim.rules import Hyper, Rule

_value = attrgetter("_v")
_FIXED = {int, float, bool}  # numbers that stay what they are while they are the same object


class GroupUpdate:
    """Updates tensors of one kind (``fit.kinds``) in place, the same ones again and again."""

    def __init__(self, rule: Rule, names: tuple[str, ...], hyper: Hyper, count: int):
        self.rule, self.names, self.count = rule, names, count
        self.flags, self.whole = flags_of(rule, hyper), names == rule.wanted(hyper)
        self.params = {"count": count, "names": names, "flags": self.flags, "lead": 0}
        self.options = itemgetter(*rule.defaults)
        self.known: Any = None
        self.places = {key: at for at, key in enumerate(rule.order()) if key != "betas"}
        self._read(hyper)

    def _read(self, hyper: Hyper) -> None:
        """Take down the options, and their numbers as arrays of this update's own, or a tensor's own."""
        self.given, packed = self.options(hyper), self.rule.pack(hyper)
        self.fixed = {*map(type, packed)} <= _FIXED and list not in map(type, self.given)
        made = [stored(self.rule.name, value, dtypes.float64)._v for value in packed]
        self.numbers = [array.copy() for array in made] if self.fixed else made

    def _take_over(self, group: dict) -> bool:
        """Take down what changed among the options; False where it asks for another update."""
        now = self.options(group)
        for key, new, old in zip(self.rule.defaults, now, self.given, strict=True):
            if new is not old or not self.fixed:
                at = self.places.get(key) if self.fixed and type(new) is type(old) is float else None
                if at is None or (new == 0) is not (old == 0):
                    break
                self.numbers[at][()] = new
        else:
            self.given = now
            return True
        self._read(group)
        return self.rule.wanted(group) == self.names and flags_of(self.rule, group) == self.flags

    def again(self, group: dict, state: Any) -> bool:
        """Step with the gradients of now; False, with nothing done, where anything but numbers may not be as it was."""
        known = self.known
        if known is None or ctx.preferred is not None:
            return False
        if not (self.fixed and all(map(is_, self.options(group), self.given))) and not self._take_over(group):
            return False
        params = [p for p in group["params"] if p._grad is not None]
        if len(params) != self.count:
            return False
        try:
            slots = [state[p] for p in params]
            boxes = [*params, *[kept[name] for name in self.names for kept in slots]]
            arrays = [*map(_value, boxes)]
            values = [*self.numbers, *arrays[: self.count], *[p._grad._v for p in params], *arrays[self.count :]]
            if not known.holds(values):
                return False
        except (AttributeError, KeyError):  # a slot was taken out, or is no tensor
            return False
        known.path, known.backward = ctx.path, ctx.backward
        evaluate(known.prim, values, self.params, known)
        overwritten(boxes)
        return True

    def first(self, members: list[Member]) -> bool:
        """Step with tensors that ``fit.kinds`` compared; False, with nothing done, where one is on another device."""
        prim, tensors = PRIMITIVES[self.rule], columns(members, self.names)
        values = [*self.numbers, *map(_value, tensors)]
        if any(type(value) is not np.ndarray for value in values):
            return False
        where = looked_up(prim, self.params, values)
        self.known = where if self.whole and isinstance(where, Known) else None
        outs = evaluate(prim, values, self.params, where)
        boxes = [*tensors[: self.count], *tensors[2 * self.count :]]
        overwritten([box for box, array in zip(boxes, outs, strict=True) if array is box._v])
        for box, array in zip(boxes, outs, strict=True):
            if array is not box._v:  # its memory is not contiguous, or read-only
                assign(box, wrap(array), f"{self.rule.name}.step")
        return True
