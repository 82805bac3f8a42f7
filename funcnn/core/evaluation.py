"""How a primitive is evaluated for operands of one kind: its outputs and its implementation, looked up by what a plan may know.

An evaluation looks up what was planned for the primitive, its parameters and each operand's shape, strides and dtype; takes
memory for the outputs; and runs the launch plan, or the Python function where there is no kernel. The table is bounded, and
what was used least recently leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from math import copysign
from typing import Any, NamedTuple

import numpy as np

from funcnn.core.context import ctx
from funcnn.core.cost import cost_of
from funcnn.core.device import HOST, common_device, device_of, devices, viewed
from funcnn.core.errors import DeviceError
from funcnn.kernels.cpu.memory import is_large
from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import HostPlan, LaunchPlan

PLANNED = 1 << 13  # kinds of operands of all primitives


class Planned(NamedTuple):
    """Holds what is known of an evaluation from its kind of operands alone.

    outs: shape and dtype of each output, and whether its memory is recycled.
    run: ``run(ins, outs)``, or for a host plan ``run(ins, outs, **params)``.
    fit: whether the arrays that are overwritten were found to be contiguous and writeable.
    """

    outs: list[tuple[tuple[int, ...], Any, bool]]
    name: str
    plan: LaunchPlan | HostPlan | None
    run: Callable | None
    host: bool
    fit: bool = False


def key_of(params: dict[str, Any]) -> tuple:
    """Makes a key of parameters: 0.0 and -0.0, and 1, 1.0 and True, are not the same."""
    if not params:
        return ()
    types = tuple(map(type, params.values()))
    if float not in types:
        return tuple(params.items()), types
    signs = [copysign(1.0, value) for value in params.values() if type(value) is float]
    return tuple(params.items()), types, tuple(signs)


def plan(prim: Any, preferred: str | None, key: tuple, *described: Any, device: str = HOST) -> Planned:
    """Plans an evaluation anew. described: shape, strides and dtype of each operand. Raises what the shape rule raises."""
    params = dict(key[0]) if key else {}
    shapes, strides, dtypes = (described[i::3] for i in range(3))
    operands = tuple(map(Operand, shapes, dtypes, strides))
    outs = prim.shape(*operands, **params)
    made = _outputs(prim, outs)
    if prim.view is not None:
        view = viewed(devices[device], partial(prim.view, **params), shapes[0], strides[0], dtypes[0])
        return Planned(made, "view", None, view, True)
    name, chosen = choose(prim, operands, params, preferred, device)
    if isinstance(chosen, HostPlan):
        return Planned(made, name, chosen, chosen.run, True)
    chosen = replace(chosen, cost=cost_of(prim, operands, made, params, chosen.cost.nanoseconds))
    return Planned(made, name, chosen, devices[device].runner(chosen, operands, outs), False)


def _outputs(prim: Any, outs: Any) -> list[tuple[tuple[int, ...], Any, bool]]:
    """Returns shape and dtype of each output of a shape rule, and whether it is large.

    Raises ``TypeError`` where they are not what is declared.
    """
    if not isinstance(outs, tuple) or not all(hasattr(out, "shape") and hasattr(out, "dtype") for out in outs):
        raise TypeError(f"{prim.name}: the shape rule must give a tuple of Avals (shape, dtype), got {outs!r}")
    if len(outs) != 1 and not prim.multiple:
        raise TypeError(f"{prim.name}: the shape rule gives {len(outs)} outputs; declare multiple=True")
    known = [(tuple(out.shape), np.dtype(out.dtype)) for out in outs]
    return [(shape, dtype, is_large(shape, dtype)) for shape, dtype in known]


_remembered = lru_cache(PLANNED)(plan)


def planned(prim: Any, values: list, params: dict[str, Any]) -> Planned:
    """Returns the outputs and the implementation for these arrays, as planned for the first arrays of their kind."""
    described: list[Any] = []
    for value in values:
        described += (value.shape, value.strides, value.dtype)
    key: tuple = ()
    if params:  # as ``key_of``, without a call where no parameter is a float
        types = tuple(map(type, params.values()))
        key = (tuple(params.items()), types) if float not in types else key_of(params)
    if ctx.preferred is not None:
        return _as_preferred(prim, key, described)
    try:
        return _remembered(prim, None, key, *described)
    except TypeError:
        if _hashable(key):
            raise
    return plan(prim, None, key, *described)  # a parameter is a list or an array


def _as_preferred(prim: Any, key: tuple, described: list, device: str = HOST) -> Planned:
    name = None if ctx.preferred is None else ctx.preferred.name
    made = (_remembered if _hashable(key) else plan)(prim, name, key, *described, device=device)
    if ctx.preferred is not None:
        ctx.preferred.used += made.name == name
    return made


def _hashable(key: tuple) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def choose(
    prim: Any, operands: tuple[Operand, ...], params: dict[str, Any], preferred: str | None, device: str = HOST
) -> tuple[str, LaunchPlan | HostPlan]:
    """Returns the name and the plan of the preferred implementation if it applies, else of the first that applies and pays.

    Raises ``DeviceError`` where the primitive has none for the device.
    """
    ways = prim.on.get(device)
    if not ways:
        there = " and ".join(map(repr, prim.on)) or "none"
        raise DeviceError(f"{prim.name}: no implementation for device {device!r}, only for {there}; "
                          "move the operands there with .to(device), or add one to Primitive.on")  # fmt: skip
    for way in ways:
        if way.name == preferred and (made := way.plan(operands, params)) is not None:
            return way.name, made
    for way in ways:
        if (way.pays is None or way.pays(operands, params)) and (made := way.plan(operands, params)) is not None:
            return way.name, made
    raise AssertionError(f"{prim.name}: no implementation applies; the last one must be unconditional")


def elsewhere(prim: Any, values: list, params: dict[str, Any]) -> list:
    """Computes on the device of the values, which is not the host; without inputs, on the device that a parameter names.

    No rule is asked about numbers: what ``Primitive.check`` finds on the host, a device's kernel reports by its status.
    """
    name = common_device(prim.name, list(map(device_of, values)), params)
    device = devices[name]
    described = [fact for value in values for fact in (value.shape, value.strides, value.dtype)]
    made = _as_preferred(prim, key_of(params), described, name)
    if prim.view is not None:
        return [made.run(values[0])]  # type: ignore[misc]
    outs = [device.empty(shape, dtype) for shape, dtype, _ in made.outs]
    if made.host:
        made.run(values, outs, **params)  # type: ignore[misc]
    else:
        made.run(values, outs)  # type: ignore[misc]
    return outs
