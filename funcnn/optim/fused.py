"""The update of all tensors of a group as a primitive of its rule, which makes new tensors or overwrites the old ones.

Its inputs are the hyperparameters (0-d, float64), then the parameters, the gradients, and each kind of slot in the rule's
order; its outputs the new parameters and slots. Its derivative is that of the rule's composed step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core import dtypes
from funcnn.core.device import device_of
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.promote import stored
from funcnn.ops.tensor.creation import zeros_like
from funcnn.optim.fit import Label, Member, kinds, unnamed
from funcnn.optim.rules import ADAM, ADAMW, SGD, Hyper, Rule
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap


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

    lead: how many leading axes of all tensors count models, each with a step of its own: what vmap adds.
    """
    numbers = len(rule.pack(rule.defaults))

    def overwrites(count: int, names: tuple, flags: tuple, lead: int) -> tuple:
        return (*range(numbers, numbers + count), *range(numbers + 2 * count, numbers + (2 + len(names)) * count))

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
        cpu=(rule.implementation,),
        vjp=pullback,
        batch=batch,
        multiple=True,
        overwrites=overwrites,
        flops=lambda ins, outs, params: rule.flops * sum(p.size for p in outs[: params["count"]]),
    )
    return prim


sgd_update, adam_update, adamw_update = map(_primitive, (SGD, ADAM, ADAMW))
PRIMITIVES = {SGD: sgd_update, ADAM: adam_update, ADAMW: adamw_update}


def flags_of(rule: Rule, hyper: Hyper) -> tuple[bool, ...]:
    """The options that the primitive takes as parameters."""
    return tuple([bool(hyper[flag]) for flag in rule.flags])


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
        outs = PRIMITIVES[rule](*numbers, *columns([members[i] for i in places], names),
                                count=len(places), names=names, flags=flags_of(rule, hyper), lead=0)  # fmt: skip
        for column, i in enumerate(places):
            new = outs[column :: len(places)]
            done[i] = (new[0], {**members[i][2], **dict(zip(names, new[1:], strict=True))})
    return done


def columns(members: list[Member], names: tuple[str, ...]) -> list[Tensor]:
    """The tensors in the primitive's order: the parameters, the gradients, and each kind of slot."""
    kept = [slots[name] for name in names for _, _, slots in members]
    return [*(p for p, _, _ in members), *(g for _, g, _ in members), *kept]
