"""Operations that are functions of ``funcnn`` and methods of tensors, noted where they are declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """A function of ``funcnn`` and a method of tensors. inplace: the method with a trailing underscore exists, too."""

    function: Callable
    inplace: bool


OPERATIONS: dict[str, Operation] = {}
_attachers: list[Callable[[str, Operation], None]] = []


def note(name: str, function: Callable, inplace: bool = True) -> None:
    """Let a function be the operation of a name; one that is declared later takes the place of an earlier one."""
    OPERATIONS[name] = made = Operation(function, inplace)
    for attach in _attachers:
        attach(name, made)


def attach_all(attach: Callable[[str, Operation], None]) -> None:
    """Call ``attach(name, operation)`` for every operation there is and, when it is declared, for every later one."""
    _attachers.append(attach)
    for name, made in list(OPERATIONS.items()):
        attach(name, made)


def operation(primitive: Any = None, inplace: bool = True) -> Callable:
    """Decorate the public function of an operation; ``primitive`` is what it applies in the simplest case."""

    def mark(function: Callable) -> Callable:
        if primitive is not None:
            function.primitive = primitive  # type: ignore[attr-defined]
        note(function.__name__, function, inplace)
        return function

    return mark
