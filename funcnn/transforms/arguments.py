"""Which arguments of a jitted function are static and which are donated: positions and names, matched by its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from funcnn.core import tree
from funcnn.core.tensor import Tensor


@dataclass(frozen=True)
class Static:
    """A value that is no tensor to a traced function."""

    value: Any


class Roles:
    """The static and the donated arguments, each by position and by name.

    A position is that of a parameter, or of an argument where the function takes ``*args``; there a negative one counts
    from the last argument of a call.
    """

    def __init__(self, f: Callable, static: Any, static_names: Any, donated: Any):
        self.name = getattr(f, "__name__", type(f).__name__)
        self.shape = _Shape(f)
        positions = self._positions("static_argnums", static)
        names = self._names("static_argnames", static_names)
        self.donated = self._positions("donate_argnums", donated)
        self.static = tuple(
            dict.fromkeys((*positions, *(self.shape.position[n] for n in names if n in self.shape.position)))
        )
        self.static_names = {*names, *self._named(positions)}
        self.donated_names = set(self._named(self.donated))
        both = sorted({*self.static} & {*self.donated})
        if both:
            raise ValueError(
                f"jit: {self._shown(both[0])} of {self.name} is in static_argnums and in donate_argnums; "
                "only the memory of tensors can be donated"
            )

    def _positions(self, option: str, given: Any) -> tuple[int, ...]:
        listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
        for position in listed:
            if isinstance(position, bool) or not hasattr(position, "__index__"):
                raise TypeError(f"jit: {option} must be an integer or a sequence of them, got {given!r}")
        if self.shape.open:
            return tuple(int(position) for position in listed)
        count = len(self.shape.positional)
        for position in listed:
            if not -count <= position < count:
                raise ValueError(
                    f"jit: {option}={given!r} for {self.name}, which takes {count} positional arguments"
                    f" ({', '.join(self.shape.positional)}); expected {-count} to {count - 1}"
                )
        return tuple(int(position) % count for position in listed)

    def _names(self, option: str, given: Any) -> tuple[str, ...]:
        listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
        for name in listed:
            if not isinstance(name, str):
                raise TypeError(f"jit: {option} must be a name or a sequence of them, got {given!r}")
            if not self.shape.any_name and name not in self.shape.names:
                raise ValueError(
                    f"jit: {option}={given!r}, but {self.name} takes no argument {name!r} by name; "
                    f"it takes {', '.join(self.shape.names) or 'none'}"
                )
        return listed

    def _named(self, positions: tuple[int, ...]) -> list[str]:
        """The names of the parameters at these positions, where they may be given by name."""
        at = {position: name for name, position in self.shape.position.items()}
        return [at[position] for position in positions if position in at]

    def _shown(self, position: int) -> str:
        listed = self.shape.positional
        return f"argument {position}" + (f" ({listed[position]})" if 0 <= position < len(listed) else "")

    def sorted_out(self, args: tuple, kwargs: dict) -> tuple[list, dict]:
        """The arguments of a call, the static ones as ``Static``. Raises ``TypeError`` for a tensor among them."""
        given, named = list(args), dict(kwargs)
        for position in self._within(self.static, len(args)):
            given[position] = self._static(given[position], self._shown(position))
        for name in self.static_names & kwargs.keys():
            named[name] = self._static(named[name], f"argument {name}")
        return given, named

    def given_up(self, args: tuple, kwargs: dict) -> list[Tensor]:
        """The tensors of a call that are donated. Raises ``ValueError`` for a position that no argument has."""
        count = len(args)
        for position in self.donated if self.shape.open else ():
            if not -count <= position < count:
                raise ValueError(
                    f"jit: donate_argnums has {position}, but this call of {self.name} gave {count} positional arguments"
                )
        given = [args[position] for position in self._within(self.donated, count)]
        given += [kwargs[name] for name in kwargs if name in self.donated_names]
        return [leaf for value in given for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]

    @staticmethod
    def _within(positions: tuple[int, ...], count: int) -> set[int]:
        return {position % count for position in positions if -count <= position < count}

    def _static(self, value: Any, shown: str) -> Static:
        if any(isinstance(leaf, Tensor) for leaf in tree.leaves(value)):
            raise TypeError(
                f"jit: {shown} of {self.name} is static, but a tensor was given; it would be traced anew for each tensor. "
                "Leave it out of static_argnums and static_argnames, or pass a Python value"
            )
        return Static(value)


class _Shape:
    """What a signature says: the positional parameters, those that can be given by name, and what is left open."""

    def __init__(self, f: Callable):
        kinds = inspect.Parameter
        try:
            parameters = list(inspect.signature(f).parameters.values())
        except (TypeError, ValueError):  # a function that does not say
            parameters = [kinds("args", kinds.VAR_POSITIONAL), kinds("kwargs", kinds.VAR_KEYWORD)]
        placed = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        self.positional = [p.name for p in placed]
        self.position = {p.name: i for i, p in enumerate(placed) if p.kind is kinds.POSITIONAL_OR_KEYWORD}
        self.names = [*self.position, *(p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY)]
        self.open = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
        self.any_name = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
