"""The Layer protocol: a frozen dataclass whose fields are PyTorch's constructor arguments, ``init`` and a pure call.

    params, state = layer.init(key)
    y, state = layer(params, state, x, training=True, key=key)

The dotted paths of ``params`` and ``state`` are the keys of the module's ``state_dict``. In evaluation the very same
``state`` object comes back. A composite (a dataclass with layers among its fields) gets ``init`` from here.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from funcnn.core import dtypes
from funcnn.core.context import Scope, below
from funcnn.core.errors import FuncnnError, locate
from funcnn.core.tensor import Tensor
from funcnn.ops.movement.views import select
from funcnn.ops.random.keys import fold_in, split, uniform_from


class KeyRequired(FuncnnError, ValueError):
    """A layer that draws random numbers in training got no key."""


def arg(doc: str, default: Any = MISSING, **metadata: Any) -> Any:
    """A dataclass field for a constructor argument, documented here and nowhere else.

    torch: the argument's name in PyTorch, where a field cannot have it.
    """
    known = {"doc": doc, **metadata}
    return field(metadata=known) if default is MISSING else field(default=default, metadata=known)


def inplace_arg() -> Any:
    """The field ``inplace``, which a layer hands to its function."""
    return arg("whether the input takes over the output, and is returned", False)


@dataclass(frozen=True)
class Layer:
    """Base of all pure layers."""

    parameters: ClassVar[tuple[str, ...]] = ()  # names of the layer's own parameters, absent ones included
    buffers: ClassVar[tuple[str, ...]] = ()  # names of the layer's own state
    random: ClassVar[bool] = False  # draws random numbers in training
    version: ClassVar[int] = 1  # of the layer's numbers in a ``state_dict``

    def children(self) -> dict[str, Layer]:
        """The layers among the fields, by name; those in a tuple, a list or a dict are one ``LayerList``."""
        found = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Layer):
                found[f.name] = value
            elif isinstance(value, (tuple, list, dict)):
                named = value.items() if isinstance(value, dict) else enumerate(value)
                parts = tuple((str(name), part) for name, part in named if isinstance(part, Layer))
                if parts:
                    found[f.name] = LayerList(parts)
        return found

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Fresh ``(params, state)``; a composite's are those of its layers, under their field names."""
        parts = self.children()
        if not parts:
            return {}, {}
        keys = split(key, len(parts))
        pairs = {n: part.init(select(keys, 0, i)) for i, (n, part) in enumerate(parts.items())}
        return {n: pair[0] for n, pair in pairs.items()}, {n: pair[1] for n, pair in pairs.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> tuple:
        """``layer(params, state, *inputs, training=False, key=None) -> (output, state)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    @cached_property
    def needs_key(self) -> bool:
        """Whether this layer, or one inside it, draws random numbers in training."""
        return self.random or any(part.needs_key for part in self.children().values())

    def key_for(self, training: bool, key: Tensor | None) -> Tensor:
        """``key``, which training needs. Raises ``KeyRequired`` naming the layer."""
        if key is None:
            raise KeyRequired(f"{self!r} draws random numbers in training; call it with key=fn.random.key(...)")
        return key

    def as_module(self, params: dict, state: dict) -> Any:
        """The module that this layer stands for, with these trees, where it was made of one; None for any other layer."""
        return None

    def upgrade(self, numbers: dict, prefix: str, version: int | None, state: dict) -> None:
        """Bring the layer's entries of a ``state_dict`` that an older ``version`` wrote (None: unknown) up to date, in place.

        state: what the layer's module holds now.
        """

    def extra_repr(self) -> str:
        """What PyTorch prints between the parentheses."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


@dataclass(frozen=True, repr=False)
class LayerList(Layer):
    """The layers in a tuple, list or dict field of a composite, which calls them itself; as PyTorch's ``ModuleList``.

    Their parameters are ``params[field][name]``, names being the positions "0", "1" and so on, or the dict's keys.
    """

    layers: tuple[tuple[str, Layer], ...]

    def children(self) -> dict[str, Layer]:
        """The layers by name."""
        return dict(self.layers)


def no_state(layer: Layer, result: Any) -> TypeError:
    """The error for a layer that returned no pair of an output and a state."""
    got = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
    return TypeError(
        f"{type(layer).__name__}.__call__ must return (output, state), state being a dict ({{}} without any), got {got}"
    )


def run_children(parts: list[tuple[str, Layer]], params: dict, state: dict, x: Any, training: bool, key: Any) -> tuple:
    """Apply layers one after another; the state is copied only where a layer changed its own. Errors name the layer."""
    after = state
    for position, (name, part) in enumerate(parts):
        own = state.get(name, {})
        part_key = fold_in(key, position) if key is not None and training and part.needs_key else None
        try:
            if Scope.wanted:
                with Scope(below(name)):
                    result = part(params.get(name, {}), own, x, training=training, key=part_key)
            else:
                result = part(params.get(name, {}), own, x, training=training, key=part_key)
            if type(result) is not tuple or len(result) != 2 or not isinstance(result[1], dict):
                raise no_state(part, result)
            x, new = result
        except Exception as error:
            before = f"layer {parts[position - 1][0]}, {parts[position - 1][1]!r}," if position else ""
            locate(error, name, part, x, before)
            raise
        if new is not own:
            after = {**after, name: new}
    return x, after


def document(cls: type) -> type:
    """Append the fields' documentation to the class's docstring."""
    lines = [f"    {f.name}: {f.metadata['doc']}" for f in fields(cls) if "doc" in f.metadata]  # type: ignore[arg-type]
    cls.__doc__ = "\n".join([(cls.__doc__ or "").rstrip(), "", "Arguments:", *lines])
    return cls


def frozen_set(layer: Layer, **values: Any) -> None:
    """Normalise fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(layer, name, value)


def bounded(key: Tensor, shape: tuple[int, ...], bound: float, dtype: Any) -> Tensor:
    """Uniform in [-bound, bound), PyTorch's default for weights."""
    return uniform_from(key, shape, dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype), -bound, bound)


def float_dtype(dtype: Any) -> np.dtype:
    """A layer's ``dtype`` argument, None meaning the default float."""
    return dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype)


def positive(name: str, **sizes: Any) -> None:
    """Raise ``ValueError`` for a size that is not a positive int."""
    for what, value in sizes.items():
        values = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(v, (int, np.integer)) or v <= 0 for v in values):
            raise ValueError(f"{name}: {what} must be positive, got {value!r}")
