"""Hooks of a Module: functions run before and after ``forward``, and the handles that remove them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from funcnn.kernels.interrupts import Leaving, in_c

_ids = count()


class RemovableHandle(Leaving):
    """What registering a hook returns: ``remove()`` takes the hook away, and so does leaving a ``with`` block."""

    def __init__(self, hooks: OrderedDict):
        self.hooks = weakref.ref(hooks)
        self.id = next(_ids)
        while self.id in hooks:  # a module from a pickle brings ids of another process
            self.id = next(_ids)

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        hooks = self.hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        hooks = self.hooks()
        self.close = in_c() if hooks is None else in_c(partial(hooks.pop, self.id, None))
        return self


def add_hook(hooks: OrderedDict, hook: Any, prepend: bool = False) -> RemovableHandle:
    """Put a hook behind (``prepend``: before) those that are there."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


class Hooks:
    """The part of Module that registers hooks around ``forward`` and calls them."""

    # Each holds (hook, with_kwargs) by id.
    _forward_pre_hooks: OrderedDict[int, tuple[Callable, bool]]
    _forward_hooks: OrderedDict[int, tuple[Callable, bool]]
    forward: Callable

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, unless None, replaces ``args``.

        with_kwargs: call ``hook(module, args, kwargs)``, which returns None or ``(args, kwargs)``.
        prepend: run it before the hooks registered so far.
        """
        return add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, unless None, replaces ``output``.

        with_kwargs: call ``hook(module, args, kwargs, output)``.
        prepend: run it before the hooks registered so far.
        """
        return add_hook(self._forward_hooks, (hook, with_kwargs), prepend)

    def _call_hooked(self, args: tuple, kwargs: dict) -> Any:
        """``forward`` between its hooks."""
        for hook, with_kwargs in tuple(self._forward_pre_hooks.values()):
            if with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = _args_and_kwargs(changed)
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*args, **kwargs)
        for hook, with_kwargs in tuple(self._forward_hooks.values()):
            changed = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            if changed is not None:
                output = changed
        return output


def _args_and_kwargs(changed: Any) -> tuple[tuple, dict]:
    if not (isinstance(changed, tuple) and len(changed) == 2):
        raise RuntimeError(f"forward pre-hook with kwargs: must return None or a tuple (args, kwargs), got {changed!r}")
    return changed
