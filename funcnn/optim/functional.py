"""Pure optimizers: ``init(params) -> state`` and ``update(grads, state, params) -> (params, state)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from funcnn.core import tree
from funcnn.optim import fused
from funcnn.optim.rules import ADAM, ADAMW, SGD, Rule


class PureOptimizer(NamedTuple):
    """A pair of pure functions; ``state`` is a pytree of the shape of ``params`` with each tensor's slots as a dict."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


def _pure(rule: Rule, hyper: dict) -> PureOptimizer:
    rule.check(hyper)

    def init(params: Any) -> Any:
        """The slots of every parameter before the first step."""
        return tree.map(lambda p: rule.init(p, hyper), params)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One step; gradients that are None leave their parameter as it is."""
        leaves, treedef = tree.flatten(params)
        slots = tree.flatten_as(treedef, state, f"{rule.name}: state")
        gradients = tree.flatten_as(treedef, grads, f"{rule.name}: grads")
        given = [(p, g, s) for p, g, s in zip(leaves, gradients, slots, strict=True) if g is not None]
        new = iter(fused.update(rule, given, hyper))
        stepped = [(p, s) if g is None else next(new) for p, s, g in zip(leaves, slots, gradients, strict=True)]
        return treedef.unflatten([p for p, _ in stepped]), treedef.unflatten([s for _, s in stepped])

    return PureOptimizer(init, update)


def _factory(rule: Rule, doc: str) -> Callable[..., PureOptimizer]:
    def factory(**hyper: Any) -> PureOptimizer:
        unknown = set(hyper) - set(rule.defaults)
        if unknown:
            raise TypeError(f"{rule.name}: unexpected arguments {sorted(unknown)}; expected {list(rule.defaults)}")
        return _pure(rule, {**rule.defaults, **hyper})

    def positional(lr: Any = rule.defaults["lr"], **hyper: Any) -> PureOptimizer:
        return factory(lr=lr, **hyper)

    positional.__name__ = positional.__qualname__ = rule.name
    positional.__doc__ = doc
    kinds = inspect.Parameter
    positional.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            kinds(k, kinds.POSITIONAL_OR_KEYWORD if k == "lr" else kinds.KEYWORD_ONLY, default=v)
            for k, v in rule.defaults.items()
        ]
    )
    return positional


sgd = _factory(SGD, "Stochastic gradient descent with momentum, Nesterov momentum and weight decay.")
adam = _factory(ADAM, "Adam (Kingma and Ba, arXiv:1412.6980); weight decay is added to the gradient.")
adamw = _factory(ADAMW, "Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).")
