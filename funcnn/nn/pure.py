"""``nn.pure``: any module as a pure layer with its parameters and state as trees."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any

from funcnn.core import tree
from funcnn.core.aval import is_concrete
from funcnn.core.context import ctx
from funcnn.core.interpreter import BoxTracer
from funcnn.core.tensor import Tensor, current, refresh, version, wrap
from funcnn.layers.base import Layer
from funcnn.layers.sequential import Sequential as PureSequential
from funcnn.nn.binding import trees
from funcnn.nn.containers import Sequential
from funcnn.nn.facade import LayerModule, owned
from funcnn.nn.module import Module
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.movement.views import clone, detach
from funcnn.ops.random.generator import use_key


@dataclass(frozen=True, eq=False, repr=False)
class ModuleLayer(Layer):
    """A module seen as a pure layer: its forward runs on a clone that is bound to the given trees."""

    module: Module

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Copies of the module's present parameters and state (a hand-written module says nowhere how it is initialised)."""
        return _copies(trees(self.module))

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        """``(output, state)``. Raises ``NoKey`` when the forward draws random numbers and no key was given."""
        given, shape = tree.flatten(state)
        boxes = [_fresh(t) for t in given]
        before = [(box._v, version(box)) for box in boxes]
        clone_ = self.module._bound(params, shape.unflatten(boxes)).train(training)
        with use_key(key):
            output = clone_(*inputs)
        after = trees(clone_)[1]
        left, after_shape = tree.flatten(after)
        same = after_shape == shape and all(
            new is box and new._v is value and version(new) == seen
            for new, box, (value, seen) in zip(left, boxes, before, strict=True)
        )
        return output, state if same else after

    @property
    def needs_key(self) -> bool:
        """Whether a generated layer inside draws random numbers (a hand-written forward may draw, too)."""
        return any(isinstance(m, LayerModule) and m._layer.random for m in self.module.modules())

    def as_module(self, params: dict, state: dict) -> Module:
        """A copy of the module that owns copies of these parameters and state."""
        held = dict(chain(self.module.named_parameters(), self.module.named_buffers()))
        made = [
            tree.nest({path: owned(t, held.get(path)) for path, t in tree.paths(given)}) for given in (params, state)
        ]
        # Everything else is copied; the new tensors, which stand in the bound clone already, are not.
        out = copy.deepcopy(self.module._bound(*made), {id(t): t for t in tree.leaves(made)})
        if ctx.top is None and ctx.stage is None:
            for part in out.modules():
                del part._tied
        return out

    def __repr__(self) -> str:
        return f"pure({self.module!r})"


def _fresh(t: Any) -> Tensor:
    """A box of our own around the same value; numbers are copied, for a forward may write into them.

    It is made here, inside whatever transformation runs, so a value that is traced there may be written to it.
    """
    t = refresh(to_tensor(t))
    if is_concrete(t._v):
        return clone(detach(t))
    value = current(t)
    box = wrap(value.copied() if isinstance(value, BoxTracer) else value)
    box._born = 0 if ctx.top is None else ctx.top.depth
    return box


def _copies(held: tuple[dict, dict]) -> tuple[dict, dict]:
    params, state = (tree.map(lambda t: clone(detach(t)), part) for part in held)
    return params, state


def _layer_of(module: Any) -> Layer | None:
    """The layer of a generated module, or of a Sequential of such; None where only running the forward says what it does."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if isinstance(module, LayerModule):
        return module._layer
    if type(module) is not Sequential:
        return None
    parts = [(name, _layer_of(part)) for name, part in module._modules.items()]
    if any(part is None for _, part in parts):
        return None
    made = module.__dict__.get("_layer")  # by ``nn.module``; the modules may be others since
    held = () if made is None else made.layers
    if len(held) == len(parts) and all(a == c and b is d for (a, b), (c, d) in zip(held, parts, strict=True)):
        return PureSequential() if made is None else made
    return PureSequential(dict(parts))


def _ties(module: Module) -> bool:
    """Whether a tensor or a module stands in it under several names."""
    modules = [m for _, m in module.named_modules(remove_duplicate=False)]
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    return any(len({*map(id, listed)}) < len(listed) for listed in (modules, tensors))


def pure(module: Module) -> tuple[Layer, dict, dict]:
    """``(layer, params, state)`` of any module: ``layer(params, state, x, training=, key=)`` has no side effect.

    A generated module gives back its own layer, and a Sequential of such the Sequential of theirs; a hand-written one a
    layer that runs its forward on a bound clone.
    """
    if ctx.stage is not None:  # a trace that makes a module pure depends on it
        for part in module.modules():
            ctx.stage.guard((id(part), "structure"), part._structure, part._identities())
    layer = _layer_of(module)
    if layer is not None and not _ties(module):
        return layer, *_copies(trees(module, every=True))
    params, state = _copies(trees(module))
    # A traced tensor cannot be copied, and need not be: the layer runs on the trees, and ends with the trace.
    return ModuleLayer(module if ctx.stage is not None else copy.deepcopy(module)), params, state
