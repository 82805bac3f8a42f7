"""What a rule's step may be entered with: the slots that the options call for, of the parameter's size and dtype.

The kernels read and write through tables of addresses, so nothing is looked up in one that was not compared here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.optim.rules import Hyper, Rule, Slots

FUSED = (dtypes.float32, dtypes.float64)  # what the kernels compute in; other dtypes go step by step
ORDER = "the arguments are update(grads, state, params)"

Member = tuple[Tensor, Tensor, Slots]  # parameter, gradient, slots
Label = Callable[[Tensor], str]


def unnamed(p: Tensor) -> str:
    """A label of no name."""
    return "a parameter"


def kinds(rule: Rule, members: list[Member], hyper: Hyper, label: Label, pure: bool = False) -> dict[Any, list[int]]:
    """The positions that one kernel call can take, by ``(dtype, slot names)``; dtype None: to be computed step by step.

    label: a parameter's name in errors. ``pure``: the state is a tree, of which nothing may be passed over; the class,
    as PyTorch's, leaves alone what the options do not ask for. Raises ``ShapeError``, ``DTypeError``.
    """
    wanted = rule.wanted(hyper)
    found: dict[Any, list[int]] = {}
    for i, (p, g, slots) in enumerate(members):
        names, dtype = wanted, p._v.dtype
        if len(slots) != len(wanted) or not _alike(p, g, slots, wanted):
            names = _present(rule, wanted, p, slots, label, pure)
            if not _alike(p, g, slots, names):
                _refuse(rule, p, g, slots, names, label, pure)
                dtype = None
        key = (dtype if dtype in FUSED else None, names)
        if key in found:
            found[key].append(i)
        else:
            found[key] = [i]
    return found


def _alike(p: Tensor, g: Tensor, slots: Slots, names: tuple) -> bool:
    """Whether a kernel may take them: one floating dtype, one shape, and the counter a float32 number."""
    dtype, shape = p._v.dtype, p._v.shape
    if g._v.shape != shape or g._v.dtype != dtype or dtype.kind != "f":
        return False
    for name in names:
        t = slots.get(name)
        if not isinstance(t, Tensor):
            return False
        size, kind = ((), dtypes.float32) if name == "step" else (shape, dtype)
        value = t._v
        if value.shape != size or (value.dtype is not kind and value.dtype != kind):
            return False
    return True


def _present(rule: Rule, wanted: tuple, p: Tensor, slots: Slots, label: Label, pure: bool) -> tuple:
    """The names of the slots to enter with. Raises ``ShapeError`` for absent ones and, of a tree, for others."""
    names = tuple([name for name in wanted if name in slots or pure or name not in rule.optional])
    absent = [name for name in names if name not in slots]
    others = [name for name in slots if name not in wanted] if pure else []
    if absent or others:
        faults = [f"{what} {listed}" for what, listed in (("lacks", absent), ("also has", others)) if listed]
        remedy = f"make it with optim.{rule.name}(...).init(params)" if pure else "clear opt.state to begin anew"
        raise ShapeError(
            f"{rule.name}: the state of {label(p)}, {_about(p)}, {' and '.join(faults)}: it is of another rule or of other "
            f"options, which call for {list(wanted)}; {remedy}"
        )
    return names


def _refuse(rule: Rule, p: Tensor, g: Tensor, slots: Slots, names: tuple, label: Label, pure: bool) -> None:
    """Raise for what no step is defined for; what a rule mixes is not refused."""
    shape, dtype = tuple(p._v.shape), p._v.dtype
    if dtype.kind != "f":
        raise DTypeError(
            f"{rule.name}: {label(p)}, {_about(p)}, has a gradient, but only floating-point parameters can be optimized; "
            "give None as its gradient, or convert it with .float()"
        )
    for name in ("gradient", *names):
        t = g if name == "gradient" else slots[name]
        size, kind = ((), dtypes.float32) if name == "step" else (shape, dtype)
        if not isinstance(t, Tensor):
            raise DTypeError(f"{rule.name}: {name} of {label(p)}: expected a tensor, got a {type(t).__name__}")
        if tuple(t._v.shape) != size:
            fault: type[Exception] = ShapeError
            remedy = "init(params) makes a state that fits" if pure else "clear opt.state to begin anew"
            remedy = "take it at this parameter" if name == "gradient" else f"was the parameter resized? {remedy}"
        elif t._v.dtype != kind:
            if rule.mixes and t._v.dtype.kind == "f" and name != "step" and not (pure and name == "gradient"):
                continue
            fault, remedy = DTypeError, f"convert it with .to({kind})"
            if not pure and name != "gradient":
                remedy = "opt.load_state_dict(opt.state_dict()) converts the state"
        else:
            continue
        raise fault(
            f"{rule.name}: {name} of {_about(t)} for a parameter of {_about(p)}, {label(p)}; expected {kind}{size}: {remedy}"
        )


def _about(t: Tensor) -> str:
    return f"{t._v.dtype}{tuple(t._v.shape)}"
