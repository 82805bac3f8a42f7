"""Pure optimizers: ``init(params) -> state`` and ``update(grads, state, params) -> (params, state)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.core import tree
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.base.promote import to_tensor
from funcnn.optim import fused
from funcnn.optim.fit import ORDER
from funcnn.optim.rules import ADAM, ADAMW, SGD, Rule, Slots


class PureOptimizer(NamedTuple):
    """A pair of pure functions; ``state`` is a pytree of the shape of ``params`` with each tensor's slots as a dict."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


def _pure(rule: Rule, hyper: dict) -> PureOptimizer:
    rule.check(hyper)

    def init(params: Any) -> Any:
        """The slots of every parameter before the first step."""
        found, treedef = tree.flatten(params)
        tensors = [_tensor(rule, "params", path, leaf) for path, leaf in zip(_paths(params), found, strict=True)]
        return treedef.unflatten([rule.init(p, hyper) for p in tensors])

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One step; gradients that are None leave their parameter as it is. Raises ``ShapeError``, ``DTypeError``."""
        found, treedef = tree.flatten(params)
        gradients, slots = _matched(rule, treedef, "grads", grads), _matched(rule, treedef, "state", state)
        paths = cache(lambda: _paths(params))
        rows: list[Any] = [
            row if _plain(*row) else _row(rule, paths()[i], *row)
            for i, row in enumerate(zip(found, gradients, slots, strict=True))
        ]

        def label(p: Tensor) -> str:
            return "params" + next(path for path, row in zip(paths(), rows, strict=True) if row[0] is p)

        members = [row for row in rows if row[1] is not None]
        new = iter(fused.update(rule, members, hyper, label))
        stepped = [(p, s) if g is None else next(new) for p, g, s in rows]
        return treedef.unflatten([p for p, _ in stepped]), treedef.unflatten([s for _, s in stepped])

    return PureOptimizer(init, update)


def _paths(params: Any) -> list[str]:
    """How each leaf is reached, as Python writes it."""
    return ["".join(f"[{key!r}]" for key in keys) for keys, _ in tree.walk(params)]


def _matched(rule: Rule, treedef: tree.TreeDef, what: str, given: Any) -> list:
    try:
        return tree.flatten_as(treedef, given, f"{rule.name}: {what}")
    except ShapeError as error:
        raise ShapeError(f"{error}; {ORDER}") from None


def _tensor(rule: Rule, what: str, path: str, leaf: Any) -> Tensor:
    """A tensor, or an array as one. Raises ``DTypeError`` naming the leaf."""
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(leaf, (np.ndarray, np.generic)):
        return to_tensor(leaf)
    got = f"a dict with keys {list(leaf)}" if isinstance(leaf, dict) else f"a {type(leaf).__name__}"
    raise DTypeError(f"{rule.name}: {what}{path}: expected a tensor or an array, got {got}; {ORDER}")


_TENSOR = {Tensor}


def _plain(p: Any, g: Any, slots: Any) -> bool:
    """Whether all of them are tensors already."""
    if not isinstance(p, Tensor) or not (g is None or isinstance(g, Tensor)) or type(slots) is not dict:
        return False
    return set(map(type, slots.values())) <= _TENSOR  # in half the time of a loop; another class is looked at again


def _row(rule: Rule, path: str, p: Any, g: Any, slots: Any) -> tuple[Tensor, Tensor | None, Slots]:
    """A parameter, its gradient and its slots as tensors."""
    p = _tensor(rule, "params", path, p)
    if not isinstance(slots, dict):
        raise DTypeError(f"{rule.name}: state{path}: expected a dict of slots, got a {type(slots).__name__}; {ORDER}")
    slots = {name: _tensor(rule, "state", f"{path}[{name!r}]", t) for name, t in slots.items()}
    return p, None if g is None else _tensor(rule, "grads", path, g), slots


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
