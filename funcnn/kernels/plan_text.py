"""Launch plans as text: ``text(plan)`` prints one, a line for each launch, and ``read(text)`` makes an equal plan of it.

The text is a Python expression over the names of ``launch.py``; kernels stand as ``kernel('module:attribute')`` and constant
arrays as ``Constant(dtype, shape, base64)``. Reading evaluates literals and those names alone, so no text can run code.
"""

from __future__ import annotations

import ast
import binascii
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from funcnn.kernels import launch
from funcnn.kernels.launch import Constant, Launch, LaunchPlan
from funcnn.kernels.names import kernel_of, name_of


def text(plan: LaunchPlan) -> str:
    """Prints the plan as text that ``read`` understands."""
    return _show(plan, "")


def read(source: str) -> LaunchPlan:
    """Makes the plan that a text describes. Raises ``ValueError`` for any other text, ``LookupError`` for an unknown kernel."""
    try:
        made = _build(ast.parse(source.strip(), mode="eval").body)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"no launch plan: {error}") from error
    if not isinstance(made, LaunchPlan):
        raise ValueError(f"no launch plan but {type(made).__name__}")
    return made


def _show(value: Any, indent: str) -> str:
    if isinstance(value, LaunchPlan):
        within = indent + "  "
        parts = [(f.name, getattr(value, f.name), f.default) for f in fields(value)]
        lines = [f"{within}{name}={_show(part, within)}," for name, part, default in parts if part != default]
        return "\n".join(["LaunchPlan(", *lines, f"{indent})"])
    if isinstance(value, Launch):
        rest = "".join(f", {name}={part!r}" for name, part, default in _options(value) if part != default)
        return f"Launch(kernel({name_of(value.kernel)!r}), {_show(value.args, indent)}{rest})"
    if isinstance(value, Constant):
        packed = binascii.b2a_base64(value.array.tobytes(), newline=False).decode()
        return f"Constant({value.array.dtype.str!r}, {value.array.shape!r}, {packed!r})"
    if isinstance(value, tuple):
        return _show_tuple(value, indent)
    if isinstance(value, np.generic):
        return f"number({value.dtype.str!r}, {value.item()!r})"
    return repr(value)


def _options(value: Launch) -> list[tuple[str, Any, Any]]:
    """Returns what a launch need not be given: name, value and default."""
    return [(name, getattr(value, name), default) for name, default in Launch._field_defaults.items()]


def _show_tuple(value: tuple, indent: str) -> str:
    named = getattr(value, "_fields", None)
    if named is not None and type(value).__module__ == launch.__name__:
        defaults = getattr(type(value), "_field_defaults", {})
        given = [_show(part, indent) for name, part in zip(named, value, strict=True) if name not in defaults]
        given += [
            f"{name}={_show(part, indent)}"
            for name, part in zip(named, value, strict=True)
            if part != defaults.get(name, part)
        ]
        return f"{type(value).__name__}({', '.join(given)})"
    if value and all(isinstance(part, (Launch, Constant)) for part in value):
        within = indent + "  "
        return "(\n" + "".join(f"{within}{_show(part, within)},\n" for part in value) + indent + ")"
    return "(" + "".join(f"{_show(part, indent)}, " for part in value).rstrip() + ")"


def _constant(dtype: str, shape: tuple[int, ...], packed: str) -> Constant:
    return Constant(np.frombuffer(binascii.a2b_base64(packed), dtype).reshape(shape))


_NAMES: dict[str, Callable] = {
    "kernel": kernel_of,
    "Constant": _constant,
    "number": lambda dtype, value: np.dtype(dtype).type(value),
    **{
        name: getattr(launch, name)
        for name in (
            "LaunchPlan",
            "Launch",
            "Array",
            "Workers",
            "Status",
            "Count",
            "Table",
            "Access",
            "Output",
            "Scratch",
            "Cost",
        )
    },
}


def _build(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(map(_build, node.elts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_build(node.operand)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return getattr(math, node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        named = {keyword.arg: _build(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        return _NAMES[node.func.id](*map(_build, node.args), **named)
    raise ValueError(f"no launch plan: {ast.unparse(node)!r} is neither a literal nor a name of one")
