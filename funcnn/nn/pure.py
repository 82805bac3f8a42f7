"""``nn.pure``: any module as a pure layer with its parameters and state as trees."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from funcnn.core import tree
from funcnn.core.context import ctx, running
from funcnn.core.tensor import Tensor, version, wrap
from funcnn.layers.base import Layer
from funcnn.nn.facade import LayerModule
from funcnn.nn.module import Module
from funcnn.ops.common import to_tensor
from funcnn.ops.elementwise import clone, detach
from funcnn.ops.generator import use_key


@dataclass(frozen=True, eq=False, repr=False)
class ModuleLayer(Layer):
    """A module seen as a pure layer: its forward runs on a clone that is bound to the given trees."""

    module: Module

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Copies of the module's present parameters and state (a hand-written module says nowhere how it is initialised)."""
        return trees(self.module)

    def __call__(self, params: dict, state: dict, *inputs: Any, training: bool = False, key: Any = None) -> tuple:
        """``(output, state)``. Raises ``NoKey`` when the forward draws random numbers and no key was given."""
        boxes = tree.map(_fresh, state)
        before = [(box, box._v, version(box)) for box in tree.leaves(boxes)]
        clone_ = self.module._bound(params, boxes).train(training)
        with use_key(key):
            output = clone_(*inputs)
        after = clone_._trees()[1]
        changed = any(
            new is not box or new._v is not value or version(new) != seen
            for new, (box, value, seen) in zip(tree.leaves(after), before, strict=True)
        )
        return output, after if changed else state

    @property
    def needs_key(self) -> bool:
        """Whether a generated layer inside draws random numbers (a hand-written forward may draw, too)."""
        return any(isinstance(m, LayerModule) and m._layer.random for m in self.module.modules())

    def restored(self, params: dict, state: dict) -> Module:
        """A copy of the module with these parameters and state."""
        out = copy.deepcopy(self.module)
        with running(ctx.top, False):
            for own, given in zip(out._trees(), (params, state), strict=True):
                tree.map(lambda box, value: box.copy_(value), own, given)  # tied tensors stand in the trees once
        return out

    def __repr__(self) -> str:
        return f"pure({self.module!r})"


def _fresh(t: Any) -> Tensor:
    """A box of our own around the same value; numbers are copied, for a forward may write into them."""
    t = to_tensor(t)
    return clone(detach(t)) if isinstance(t._v, np.ndarray) else wrap(t._v)


def trees(module: Module) -> tuple[dict, dict]:
    """Copies of a module's parameters and state, as nested dicts whose paths are the keys of its ``state_dict``."""
    params, state = module._trees()
    return tree.map(lambda t: clone(detach(t)), params), tree.map(lambda t: clone(detach(t)), state)


def pure(module: Module) -> tuple[Layer, dict, dict]:
    """``(layer, params, state)`` of any module: ``layer(params, state, x, training=, key=)`` has no side effect.

    A generated module gives back its own layer; a hand-written one a layer that runs its forward on a bound clone.
    """
    params, state = trees(module)
    if isinstance(module, LayerModule) and not module._forward_hooks and not module._forward_pre_hooks:
        return module._layer, params, state
    return ModuleLayer(copy.deepcopy(module)), params, state
