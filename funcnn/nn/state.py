"""``state_dict`` and ``load_state_dict``: a Module's numbers by dotted path, out and in.

Loading first compares everything and then writes, so that an error leaves the module as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from funcnn.core import mutation
from funcnn.core.aval import is_concrete
from funcnn.core.context import ctx, running
from funcnn.core.device import writeable
from funcnn.core.tensor import Tensor
from funcnn.nn.hooks import RemovableHandle, add_hook
from funcnn.nn.parameter import Parameter
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.movement.views import detach, select

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: keys that it did not find, and keys that it had no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r})"


class Stateful:
    """The part of Module that saves and loads."""

    _version: int = 1
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _non_persistent_buffers_set: set[str]
    _state_dict_hooks: OrderedDict[int, Callable]
    _state_dict_pre_hooks: OrderedDict[int, Callable]
    _load_state_dict_pre_hooks: OrderedDict[int, Callable]
    _load_state_dict_post_hooks: OrderedDict[int, Callable]

    # ---- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """An ``OrderedDict`` of all parameters and persistent buffers by dotted path.

        Values share memory with the module and are detached, unless ``keep_vars``. destination: a dict to fill;
        prefix: what every key begins with.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination, f"{prefix}{name}.", keep_vars)
        for hook in self._state_dict_hooks.values():
            if hook(self, destination, prefix, local) is not None:
                raise RuntimeError("state_dict: a post-hook must change the dict in place and return None")
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add this module's own entries."""
        for name, t in self._saved():
            destination[prefix + name] = t if keep_vars else detach(t)
        if _overrides(self, "get_extra_state"):
            destination[prefix + EXTRA] = self.get_extra_state()

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """This module's own parameters and persistent buffers, by name."""
        for name, t in self._parameters.items():
            if t is not None:
                yield name, t
        for name, t in self._buffers.items():
            if t is not None and name not in self._non_persistent_buffers_set:
                yield name, t

    def get_extra_state(self) -> Any:
        """Define this (and ``set_extra_state``) to keep something that is no tensor in the ``state_dict``."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take back what ``get_extra_state`` gave."""
        raise NotImplementedError(f"{type(self).__name__} defines no set_extra_state()")

    # ---- loading ------------------------------------------------------------------------------------------------------
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values (tensors or arrays) into the parameters and buffers of the same dotted paths.

        strict: raise for missing and unexpected keys, which are returned otherwise.
        assign: take the given tensors over, with their memory and dtype, instead of copying.
        Raises ``RuntimeError`` listing everything that does not fit; then nothing has been changed (except that a
        module with load post-hooks, which may edit the two lists, is loaded before they are judged).
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        loader = _Loader(state_dict, assign)
        loader.visit(self, loader.source, "")
        found = IncompatibleKeys(loader.missing, loader.unexpected)
        judge_first = strict and not loader.post_hooks
        _refuse(self, (_key_messages(found) if judge_first else []) + loader.errors)
        loader.commit()
        for module, hook in loader.post_hooks:
            if hook(module, found) is not None:
                raise RuntimeError("load_state_dict: a post-hook must change its argument in place and return None")
        _refuse(self, _key_messages(found) if strict else [])
        return found

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take this module's own entries (not those of modules below it) from ``state_dict``, for subclasses to override.

        What fits is written when everything has been compared. Entries may be renamed or dropped in ``state_dict``.
        local_metadata: the ``version`` that the entries were written by, where it is known.
        """
        loader = local_metadata.get(_LOADER) or _Loader({}, local_metadata.get("assign_to_params_buffers", False))
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = dict(self._saved())
        for name, t in own.items():
            if prefix + name in state_dict:
                loader.compare(self, name, t, prefix + name, state_dict[prefix + name], error_msgs)
            elif strict:
                missing_keys.append(prefix + name)
        if _overrides(self, "set_extra_state"):
            if prefix + EXTRA in state_dict:
                loader.extras.append((self, state_dict[prefix + EXTRA]))
            elif strict:
                missing_keys.append(prefix + EXTRA)
            own[EXTRA] = None  # type: ignore[assignment]
        if strict:
            unexpected_keys += [
                key
                for key in state_dict
                if key.startswith(prefix) and not self._asks_for(key[len(prefix) :].split(".", 1), own)
            ]
        if _LOADER not in local_metadata:
            loader.commit()

    def _asks_for(self, parts: list[str], own: dict) -> bool:
        return parts[0] in (own if len(parts) == 1 else self._modules)

    # ---- hooks --------------------------------------------------------------------------------------------------------
    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before this module is saved."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after this module and those below it are saved."""
        return add_hook(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook`` before this module is loaded; it may change the (copied) dict and append to the lists.

        Its arguments are module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs.
        """
        return add_hook(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may remove keys from the two lists."""
        return add_hook(self._load_state_dict_post_hooks, hook)


def _parameterless(key: str, value: Any) -> bool:
    """An entry of ``dict(tree.paths(params))`` for a layer without parameters."""
    return isinstance(value, dict) and not value and not key.endswith(EXTRA)


_LOADER = "funcnn.loader"  # in the metadata that ``_load_from_state_dict`` is given: who writes


class _Loader:
    """One ``load_state_dict`` in progress: what will be written, and what does not fit."""

    def __init__(self, state_dict: Mapping[str, Any], assign: bool):
        given = [(k, v) for k, v in state_dict.items() if not _parameterless(k, v)]
        self.source = OrderedDict(given)  # pre-hooks may rename keys in it
        self.metadata = getattr(state_dict, "_metadata", {})
        self.assign = assign
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.errors: list[str] = []
        self.writes: list[tuple[Any, str, Tensor, Tensor]] = []  # module, name, old, new
        self.extras: list[tuple[Any, Any]] = []
        self.post_hooks: list[tuple[Any, Callable]] = []

    def visit(self, module: Any, given: dict, prefix: str) -> None:
        """Compare a module and those below it with the values under their prefixes."""
        local = {**self.metadata.get(prefix[:-1], {}), "assign_to_params_buffers": self.assign, _LOADER: self}
        module._load_from_state_dict(given, prefix, local, True, self.missing, self.unexpected, self.errors)
        for name, child in module._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                self.visit(child, OrderedDict((k, v) for k, v in given.items() if k.startswith(below)), below)
        self.post_hooks += [(module, hook) for hook in module._load_state_dict_post_hooks.values()]

    def compare(self, module: Any, name: str, t: Tensor, key: str, given: Any, errors: list[str]) -> None:
        """Note that ``given`` is to be written to ``t``, or why it cannot be."""
        try:
            value = _as_value(given)
        except TypeError as error:
            errors.append(f'While copying the parameter named "{key}", expected a tensor or an array but {error}.')
            return
        if t.ndim == 0 and tuple(value.shape) == (1,):  # what was written before there were 0-d tensors
            value = select(value, 0, 0)
        if tuple(value.shape) != tuple(t.shape):
            errors.append(
                f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
                f"the shape in current model is {t.shape}."
            )
        elif self.assign:
            self.writes.append((module, name, t, self._taken_over(t, value)))
        elif ctx.stage is None and is_concrete(t._v) and not writeable(t._v):
            errors.append(f"While copying the parameter named {key!r}: its memory is read-only; use assign=True.")
        else:
            self.writes.append((module, name, t, value))

    def _taken_over(self, t: Tensor, value: Tensor) -> Tensor:
        if not isinstance(t, Parameter):
            return value
        if not isinstance(value, Parameter):
            return Parameter(value, t.requires_grad)
        value.requires_grad_(t.requires_grad)
        return value

    def commit(self) -> None:
        """Write what was compared."""
        with running(ctx.top, False):
            for module, name, t, value in self.writes:
                if self.assign:
                    table = module._parameters if name in module._parameters else module._buffers
                    table[name] = value
                else:
                    mutation.assign(t, cast(value, t._v.dtype), "copy_")
        for module, state in self.extras:
            module.set_extra_state(state)


def _as_value(value: Any) -> Tensor:
    """A tensor, an array, or anything that NumPy takes as one. Raises ``TypeError``."""
    if isinstance(value, Tensor):
        return value
    if not hasattr(value, "__array__"):
        raise TypeError(f"received {type(value).__name__}")
    return to_tensor(np.asarray(value))


def _overrides(module: Any, method: str) -> bool:
    return getattr(type(module), method) is not getattr(Stateful, method)


def _key_messages(found: IncompatibleKeys) -> list[str]:
    named = (("Missing", found.missing_keys), ("Unexpected", found.unexpected_keys))
    return [
        f"{what} key(s) in state_dict: {', '.join(chr(34) + key + chr(34) for key in keys)}. "
        for what, keys in named
        if keys
    ]


def _refuse(module: Any, messages: list[str]) -> None:
    if messages:
        listed = "\n\t".join(messages)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{listed}")
