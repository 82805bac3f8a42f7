"""Sequential: layers one after another, named by position or by keyword."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, run_children


@dataclass(frozen=True, init=False, repr=False)
class Sequential(Layer):
    """``Sequential(a, b)`` names its layers "0", "1"; ``Sequential(conv=a, relu=b)`` by keyword; a dict by its keys.

    ``params`` and ``state`` are dicts with an entry for each name.
    """

    layers: tuple[tuple[str, Layer], ...]

    def __init__(self, *layers: Any, **named: Layer):
        if len(layers) == 1 and isinstance(layers[0], dict):
            named, layers = {**layers[0], **named}, ()
        pairs = (*((str(i), part) for i, part in enumerate(layers)), *named.items())
        for name, part in pairs:
            if not isinstance(part, Layer):
                raise TypeError(f"Sequential: {name} must be a Layer, got {type(part).__name__}")
        object.__setattr__(self, "layers", tuple(pairs))

    def children(self) -> dict[str, Layer]:
        """The layers by name."""
        return dict(self.layers)

    def __call__(self, params: dict, state: dict, x: Tensor, *, training: bool = False, key: Any = None) -> tuple:
        return run_children(list(self.layers), params, state, x, training, key)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(self.layers[index]))
        return dict(self.layers)[index] if isinstance(index, str) else self.layers[index][1]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(part).replace("\n", "\n  ") for name, part in self.layers]
        return "Sequential(\n  " + "\n  ".join(lines) + "\n)" if lines else "Sequential()"
