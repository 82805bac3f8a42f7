"""A Module as a pure function of its tensors: the trees of what it holds, and a clone that holds others instead.

A tensor that is reached under several names (tied weights, a shared submodule) stands in the trees once, under its
first name, as in ``named_parameters``; so its gradient is one sum and training keeps it tied.
"""

from __future__ import annotations

from typing import Any

from funcnn.core.errors import ShapeError


def trees(module: Any, every: bool = False, seen: set[int] | None = None) -> tuple[dict, dict]:
    """``(params, state)``: nested dicts of the module's own boxes, non-persistent buffers included.

    A submodule without any has no key. Of a bound clone: the boxes that it holds by now, under the same names.
    every: a tensor stands under each of its names, and every submodule has a key, as in what a layer's ``init`` gives.
    seen: ids of the modules and tensors that stand in the trees already.
    """
    params: dict[str, Any] = {}
    state: dict[str, Any] = {}
    seen = {id(module)} if seen is None else seen
    for tree, held in ((params, module._parameters), (state, module._buffers)):
        for name, t in held.items():
            if t is not None and (every or _is_first(module, name, t, seen)):
                tree[name] = t
    for name, part in module._modules.items():
        if part is None or (id(part) in seen and not every):
            continue
        seen.add(id(part))
        params_below, state_below = trees(part, every, seen)
        if every or params_below:
            params[name] = params_below
        if every or state_below:
            state[name] = state_below
    return params, state


def _is_first(module: Any, name: str, t: Any, seen: set[int]) -> bool:
    first = id(t) not in seen if module._tied is None else name not in module._tied
    seen.add(id(t))
    return first


def bound(module: Any, params: dict, state: dict) -> Any:
    """A clone of the module tree whose parameters and buffers are the given tensors; the keys are those of ``trees``.

    Every other attribute is the original's own object. What ``forward`` assigns to the clone stays in the clone.
    Raises ``ShapeError`` for missing and unexpected keys.
    """
    return _Binder().clone(module, params, state, "")


class _Binder:
    def __init__(self) -> None:
        self.clones: dict[int, Any] = {}
        self.given: dict[int, Any] = {}  # id(box of the original) -> the tensor that stands for it

    def clone(self, module: Any, params: dict, state: dict, path: str) -> Any:
        """The clone of one module, made once."""
        known = self.clones.get(id(module))
        if known is not None:
            _refuse_extra({**params, **state}, (), path)
            return known
        new = object.__new__(type(module))
        self.clones[id(module)] = new
        tied: set[str] = set()
        new.__dict__.update(module.__dict__)
        new.__dict__.update(
            _parameters=self._fill(module._parameters, params, path, tied),
            _buffers=self._fill(module._buffers, state, path, tied),
            _tied=tied,
        )
        _refuse_extra(params, (*module._parameters, *module._modules), path)
        _refuse_extra(state, (*module._buffers, *module._modules), path)
        new.__dict__["_modules"] = {
            name: None
            if child is None
            else self.clone(child, params.get(name, {}), state.get(name, {}), f"{path}{name}.")
            for name, child in module._modules.items()
        }
        return new

    def _fill(self, held: dict, given: dict, path: str, tied: set[str]) -> dict:
        filled: dict[str, Any] = {}
        for name, box in held.items():
            if box is None:  # nothing at first, but a forward may have assigned something to the name
                filled[name] = given.get(name)
            elif id(box) in self.given:
                _refuse_extra({key: given[key] for key in given if key == name}, (), path)
                tied.add(name)
                filled[name] = self.given[id(box)]
            elif name not in given:
                raise ShapeError(
                    f"pure: no tensor was given for {path}{name}; the trees must have every key of the module's"
                )
            else:
                filled[name] = self.given[id(box)] = given[name]
        return filled


def _refuse_extra(given: dict, allowed: tuple, path: str) -> None:
    extra = [path + name for name in given if name not in allowed]
    if extra:
        raise ShapeError(
            f"pure: no place for {', '.join(extra)}; the module has no such tensor, or it is tied to one given before"
        )
