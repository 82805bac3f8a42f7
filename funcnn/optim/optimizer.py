"""PyTorch's optimizer classes, generated from the update rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from funcnn.core.context import ctx, running
from funcnn.core.errors import GradientError
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, wrap
from funcnn.ops.tensor.creation import zeros_like
from funcnn.optim import fused
from funcnn.optim.fit import kinds
from funcnn.optim.in_place import GroupUpdate
from funcnn.optim.rules import ADAM, ADAMW, Rule
from funcnn.optim.rules import SGD as SGD_RULE

_IGNORED = ("foreach", "capturable", "differentiable", "fused")  # how PyTorch computes, not what


_NUMBERS = ("lr", "weight_decay", "momentum")  # options that a compiled step reads at each call


class Optimizer:
    """Parameters in groups, their slots, and ``step()``. ``params``: tensors, or dicts with "params" and own options."""

    rule: ClassVar[Rule]

    def __init__(self, params: Any, lr: Any = None, *more: Any, **options: Any):
        name = type(self).__name__
        options = {**dict(zip(list(self.rule.defaults)[1:], more, strict=False)), **options}
        unknown = set(options) - set(self.rule.defaults) - set(_IGNORED)
        if unknown:
            raise TypeError(f"{name}: unexpected arguments {sorted(unknown)}; expected {list(self.rule.defaults)}")
        given = {k: v for k, v in options.items() if k not in _IGNORED}
        self.defaults = {**self.rule.defaults, **({} if lr is None else {"lr": lr}), **given}
        self.rule.check(self.defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._last: dict[int, GroupUpdate] = {}  # of each group, by its position
        if isinstance(params, Tensor):
            raise TypeError(f"{name}: params must be an iterable of tensors or dicts, got a tensor")
        listed = [p[1] if isinstance(p, tuple) else p for p in params]
        if not listed:
            raise ValueError(f"{name}: got an empty parameter list")
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict) -> None:
        """Optimize more parameters, with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(
                f"{type(self).__name__}: a parameter group must be a dict, got {type(param_group).__name__}"
            )
        group = {**param_group}
        params = group["params"]
        if isinstance(params, set):
            raise TypeError(
                f"{type(self).__name__}: the parameters of a group must have an order, got a set; use a list, or sorted(...)"
            )
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        held = {id(p) for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(f"{type(self).__name__}: can only optimize tensors, got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"{type(self).__name__}: can only optimize leaf tensors, got one made by {p.grad_fn}")
            if id(p) in held:
                raise ValueError(f"{type(self).__name__}: a parameter of shape {tuple(p.shape)} is in two groups")
        for key, value in self.defaults.items():
            group.setdefault(key, value)
        self.rule.check(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if not set_to_none:
                    if (g := p.grad) is not None:
                        p.grad = zeros_like(g)
                elif ctx.stage is None:
                    p._grad = None
                else:
                    p.grad = None  # not read first: a trace then holds with and without a gradient before it

    def step(self, closure: Callable | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure``, if given, computes the loss first."""
        loss = None
        if closure is not None:
            with running(ctx.top, True):
                loss = closure()
        if ctx.top is not None:
            raise GradientError(f"{type(self).__name__}.step: not inside {ctx.top.name}; use the pure optimizers there")
        if ctx.stage is not None:
            ctx.stage.guard((id(self), "options"), self._watched())
        with running(ctx.top, False):
            for position, group in enumerate(self.param_groups):
                last = self._last.get(position) if ctx.stage is None else None
                if last is not None and last.again(group, self.state):
                    continue
                hyper = self._hyper(position, group)
                members = [(p, g, self._slots(p, group)) for p in group["params"] if (g := p.grad) is not None]
                if members:
                    if ctx.stage is not None:
                        ctx.stage.found(self._finder(position, members))
                    self._update(position, members, hyper)
        return loss

    def _update(self, position: int, members: list, hyper: dict) -> None:
        """One step of a group: in place where the memory allows it, else new values that are assigned."""
        name, rule = f"{type(self).__name__}.step", self.rule
        for key, places in kinds(rule, members, hyper, self._name).items():
            chosen = members if len(places) == len(members) else [members[i] for i in places]
            if ctx.stage is None and key[0] is not None:
                here = self._last[position] = GroupUpdate(rule, key[1], hyper, len(places))
                if here.first(chosen):
                    continue
            done = fused.update(rule, chosen, hyper, self._name, pure=False)
            for (p, _, slots), (new, after) in zip(chosen, done, strict=True):
                assign(p, new, name)
                for slot, value in after.items():
                    if value is not slots[slot]:
                        assign(slots[slot], value, name)

    def _name(self, p: Tensor) -> str:
        """Where a parameter stands, for errors."""
        for number, group in enumerate(self.param_groups):
            for i, other in enumerate(group["params"]):
                if other is p:
                    return f"parameter {i} of group {number}"
        return "a parameter"

    def _slots(self, p: Tensor, group: dict) -> dict:
        slots = self.state[p]
        if not slots:
            slots.update(self._first_slots(p, group))
        return slots

    def _first_slots(self, p: Tensor, group: dict) -> dict:
        """Slots are boxes from outside even when the first step is being traced: made now, lifted as inputs."""
        stage, ctx.stage = ctx.stage, None
        try:
            return self.rule.init(p, group)
        finally:
            ctx.stage = stage

    def _hyper(self, position: int, group: dict) -> dict:
        """The group's options; under ``jit`` the numbers are read at each call."""
        hyper = {k: v for k, v in group.items() if k != "params"}
        if ctx.stage is None:
            return hyper
        for key in _NUMBERS:
            if type(hyper.get(key)) is float and hyper[key] != 0.0:
                hyper[key] = ctx.stage.number(
                    (id(self), position, key), lambda key=key: self.param_groups[position][key]
                )
        return hyper

    def _finder(self, position: int, members: list) -> Callable[[], list | None]:
        """What finds the slots and the tensors among the options of a group for a traced step, which may be others by then."""
        params = [p for p, _, _ in members]
        names = [[*slots] for _, _, slots in members]

        def find() -> list | None:
            group = self.param_groups[position]
            boxes = [t for key in keys for t in _tensors(group[key])]
            for p, expected in zip(params, names, strict=True):
                slots = self._slots(p, group)
                if [*slots] != expected:
                    return None
                boxes += slots.values()
            return boxes

        keys = [k for k, v in self.param_groups[position].items() if k != "params" and _tensors(v)]
        return find

    def _watched(self) -> Callable[[], list]:
        """Reads what a trace depends on: the parameters, and the options that are neither tensors nor numbers."""
        held = [p for group in self.param_groups for p in group["params"]]  # or another could get the id of one

        def read(held: list = held) -> list:
            return [(k, *_fact(k, v)) for group in self.param_groups for k, v in group.items()]

        return read

    def state_dict(self) -> dict:
        """``{"state": {index: slots}, "param_groups": [...]}``, parameters by their index, as in PyTorch."""
        order = self._order()
        groups = [
            {**{k: v for k, v in group.items() if k != "params"}, "params": [order[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {
            "state": {order[id(p)]: dict(slots) for p, slots in self.state.items() if slots},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over slots and options. Raises ``ValueError``, changing nothing, when the groups do not match."""
        given = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in given] != sizes:
            raise ValueError(f"{type(self).__name__}: the loaded state has other parameter groups than {sizes}")
        mine = [p for group in self.param_groups for p in group["params"]]
        theirs = [index for group in given for index in group["params"]]
        loaded: dict[Tensor, dict] = {}
        for index, p in zip(theirs, mine, strict=True):
            if index in state_dict["state"]:
                loaded[p] = {k: _slot(v, p, k) for k, v in state_dict["state"][index].items() if v is not None}
        for group, other in zip(self.param_groups, given, strict=True):
            group.update({k: v for k, v in other.items() if k != "params"})
        self.state = defaultdict(dict, loaded)

    def _order(self) -> dict[int, int]:
        params: Iterable[Tensor] = (p for group in self.param_groups for p in group["params"])
        return {id(p): i for i, p in enumerate(params)}

    def __getstate__(self) -> dict:
        """What a copy gets: not what was looked up for the tensors of this one."""
        return {**self.__dict__, "_last": {}}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _tensors(option: Any) -> list[Tensor]:
    """The tensors in an option: a rate, or one of a pair."""
    values = option if isinstance(option, (tuple, list)) else (option,)
    return [v for v in values if isinstance(v, Tensor)]


def _fact(key: str, value: Any) -> tuple:
    """What stands for an option when a trace asks whether it still holds."""
    kind = type(value)
    if key == "params":
        return tuple(map(id, value))
    if kind is float and key in _NUMBERS:
        return kind, value == 0.0
    if kind is tuple or kind is list:
        return kind, *[Tensor if isinstance(v, Tensor) else v for v in value]
    return kind, None if isinstance(value, Tensor) else value


def _slot(value: Any, p: Tensor, name: str) -> Tensor:
    array = np.array(value.detach().numpy() if hasattr(value, "detach") else value)
    if array.shape not in ((), tuple(p._v.shape)):
        raise ValueError(f"optimizer state: {name} of shape {array.shape} for a parameter of {tuple(p.shape)}")
    return wrap(array.astype(np.float32 if name == "step" else p._v.dtype))


def _generate(name: str, rule: Rule, doc: str) -> type[Optimizer]:
    return type(name, (Optimizer,), {"rule": rule, "__doc__": doc, "__module__": __name__})


SGD = _generate("SGD", SGD_RULE, "Stochastic gradient descent; see ``optim.sgd``.")
Adam = _generate("Adam", ADAM, "Adam; see ``optim.adam``.")
AdamW = _generate("AdamW", ADAMW, "Adam with decoupled weight decay; see ``optim.adamw``.")
