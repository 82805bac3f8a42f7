"""The derivative of a declared operation: by a kernel, by another operation, or by a function of tensors.

Its arguments are found by name: inputs and outputs of the forward pass, static parameters, and for each output ``y`` its
cotangent ``dy``. A kernel fills ``dx`` for each input ``x`` that has a derivative; a function returns one for each input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from funcnn.core.composition import mapped
from funcnn.core.errors import DTypeError
from funcnn.core.foreign import compared
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.declared import arguments_of, title
from funcnn.ops.base.batching import all_batched
from funcnn.ops.custom.rules import counted
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import zeros


class Derivative:
    """The vjp rule of an operation. ``names``: the arguments of what computes it."""

    def __init__(
        self, owner: str, inputs: Sequence[str], outputs: Sequence[str], params: Sequence[str], names: Sequence[str]
    ):
        self.owner, self.inputs, self.outputs, self.params = owner, tuple(inputs), tuple(outputs), tuple(params)
        self.cotangents = {"d" + name: at for at, name in enumerate(self.outputs)}
        both = sorted({*self.cotangents} & {*self.inputs, *self.outputs, *self.params})
        if both:
            raise TypeError(
                f"{owner}: {', '.join(both)} is also the cotangent of an output; call one of them otherwise"
            )
        self.names = tuple(names)
        self.keeps = "i" * bool({*names} & {*self.inputs}) + "o" * bool({*names} & {*self.outputs})

    def refuse(self, wrong: Sequence[str], function: Any) -> None:
        """Raise ``TypeError`` for arguments of the backward pass that stand for nothing."""
        if wrong:
            raise TypeError(
                f"{self.owner}: {title(function)} takes {', '.join(wrong)}, which is no input ({', '.join(self.inputs)}), output "
                f"({', '.join(self.outputs)}), cotangent ({', '.join(self.cotangents)}), parameter or scratch of {self.owner}"
            )

    def pool(self, g: Any, ins: Sequence[Tensor], outs: Any, likes: Callable[[], tuple]) -> dict[str, Any]:
        """What an argument may be, by its name; zeros for the cotangent of an output that nobody used.

        likes: gives shape and dtype of each output.
        """
        gs = list(g) if isinstance(g, (list, tuple)) else [g]
        made = list(outs) if isinstance(outs, (list, tuple)) else [outs] * len(gs)
        found = dict(zip(self.inputs, ins, strict=True)) | dict(zip(self.outputs, made, strict=True))
        for name, at in self.cotangents.items():
            if name in self.names and gs[at] is None:
                like = likes()[at]
                if like.dtype.kind != "f":
                    raise DTypeError(f"{self.owner}: backward takes {name}, but {self.outputs[at]} is {like.dtype}")
                found[name] = zeros(like.shape, dtype=like.dtype)
            elif name in self.names:
                found[name] = gs[at]
        return found

    def which(self, name: str, lead: tuple) -> bool:
        """Whether what an argument stands for has the leading axis of a batch."""
        return bool(lead) and (name not in self.inputs or lead[1][self.inputs.index(name)])


class ByOperation(Derivative):
    """By an operation whose outputs are ``d<input>``: a kernel made one, or one of the user's with its own derivative."""

    def __init__(self, operation: Any, *args: Any):
        super().__init__(*args, names=operation.inputs)
        self.operation = operation
        self.refuse(
            [n for n in operation.inputs if n not in {*self.inputs, *self.outputs, *self.cotangents}], operation
        )
        self.gradients = tuple([name.removeprefix("d") for name in operation.outputs])
        wrong = [
            o for o, n in zip(operation.outputs, self.gradients, strict=True) if n not in self.inputs or o[0] != "d"
        ]
        if wrong:
            raise TypeError(
                f"{self.owner}: backward fills {', '.join(wrong)}; expected d<input> of {counted(self.inputs)}"
            )

    def __call__(self, g: Any, ins: Sequence[Tensor], outs: Any, likes: Callable, lead: tuple, params: dict) -> tuple:
        pool = self.pool(g, ins, outs, likes)
        inner = self.operation
        given = [pool[name] for name in inner.inputs]
        more = {key: params[key] for key in inner.defaults if key in params}
        if lead:
            more["lead"] = (lead[0], tuple([self.which(name, lead) for name in inner.inputs]))
        if inner.takes_like:
            more["like"] = tuple([self._like(pool[name], self.which(name, lead), name) for name in self.gradients])
        made = inner.primitive(*given, **{**inner.defaults, **more})
        listed = [made[i] for i in inner.returned] if inner.primitive.multiple else [made]
        found = dict(zip(self.gradients, listed, strict=True))
        return _in_order(self, found, ins, lead)

    def _like(self, x: Tensor, has_lead: bool, name: str) -> tuple:
        if x._v.dtype.kind != "f":
            raise DTypeError(f"{self.owner}: backward fills d{name}, but {name} is {x._v.dtype} and has no derivative")
        return x._v.shape[has_lead:], x._v.dtype


class ByFunction(Derivative):
    """By a Python function of tensors, whose own derivative is that of what it calls."""

    def __init__(
        self, function: Callable, owner: str, inputs: Sequence[str], outputs: Sequence[str], params: Sequence[str]
    ):
        names = arguments_of(owner, function)
        super().__init__(owner, inputs, outputs, params, names)
        self.function = function
        self.refuse([n for n in names if n not in {*inputs, *outputs, *params, *self.cotangents}], function)

    def __call__(self, g: Any, ins: Sequence[Tensor], outs: Any, likes: Callable, lead: tuple, params: dict) -> tuple:
        pool = self.pool(g, ins, outs, likes)
        tensors = [name for name in self.names if name not in params]
        present: list[str] = []

        def call(*given: Tensor) -> tuple:
            found = {**params, **dict(zip(tensors, given, strict=True))}
            made = self._listed(self.function(*[found[name] for name in self.names]))
            present[:] = [name for name, one in zip(self.inputs, made, strict=True) if one is not None]
            return tuple([one for one in made if one is not None])

        given = [pool[name] for name in tensors]
        if lead:
            given = all_batched(lead[0], given, [self.which(name, lead) for name in tensors])
        made = mapped(call, 1)(*given) if lead else call(*given)
        return _in_order(self, dict(zip(present, made, strict=True)), ins, lead)

    def _listed(self, made: Any) -> tuple:
        found = made if isinstance(made, (tuple, list)) else (made,)
        if len(found) != len(self.inputs):
            raise TypeError(
                f"{self.owner}: backward gives {len(found)} derivative{'s' * (len(found) != 1)}; expected one, or None, for each "
                f"of {counted(self.inputs)}"
            )
        for name, one in zip(self.inputs, found, strict=True):
            if one is not None and not isinstance(one, Tensor):
                compared(self.owner, f"input {name}", one, (), None)
        return tuple(found)


def _in_order(of: Derivative, found: dict[str, Tensor], ins: Sequence[Tensor], lead: tuple) -> tuple:
    """A derivative or None for each input; of one that all examples share, their sum."""
    made = []
    for name, x in zip(of.inputs, ins, strict=True):
        one = found.get(name)
        if one is not None and lead and not of.which(name, lead):
            one = sum_(one, 0)
        made.append(compared(of.owner, f"input {name}", one, x._v.shape, x._v.dtype))
    return tuple(made)
