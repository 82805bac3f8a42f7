"""A layer of an operation that the user made of a kernel (``fn.primitive``), or of any function of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, frozen_set
from funcnn.ops.movement.views import clone, select
from funcnn.ops.random.keys import split
from funcnn.ops.tensor.creation import as_tensor


@dataclass(frozen=True, repr=False, eq=False)
class Custom(Layer):
    """``operation`` of the layer's inputs and of its weights, each of which is the operation's input of that name."""

    operation: Any = arg("what ``fn.primitive`` made, or a function of tensors")
    weights: Any = arg(
        "for each input that is a parameter its first value: a tensor, an array, or a function of a key", None
    )
    options: Any = arg("the operation's static parameters, by name", None)

    def __post_init__(self) -> None:
        for field in ("weights", "options"):
            given = getattr(self, field)
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"Custom: {field} must be a dict by name, got a {type(given).__name__}")
            frozen_set(self, **{field: dict(given or {})})
        known = getattr(self.operation, "inputs", None)
        wrong = [name for name in self.weights if known is not None and name not in known]
        if not callable(self.operation) or wrong:
            told = f"{wrong} is no input of {self.operation!r}" if wrong else f"{self.operation!r} is no operation"
            raise TypeError(f"Custom: {told}")
        frozen_set(self, parameters=tuple(self.weights))

    def init(self, key: Tensor) -> tuple[dict, dict]:
        params = {}
        for at, (name, value) in enumerate(self.weights.items()):
            if callable(value) and not isinstance(value, Tensor):
                value = value(select(split(key, len(self.weights)), 0, at))
            params[name] = clone(as_tensor(value))
        return params, {}

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        names = getattr(self.operation, "inputs", None)
        if names is None or len(inputs) + len(self.weights) != len(names):  # the operation says what is missing
            return self.operation(*inputs, **{name: params[name] for name in self.weights}, **self.options), state
        given = iter(inputs)
        ordered = [params[name] if name in self.weights else next(given) for name in names]
        return self.operation(*ordered, **self.options), state

    def extra_repr(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join([getattr(self.operation, "__name__", repr(self.operation)), *options])
