"""Walking a Module tree: its parameters, buffers and submodules, by iteration and by dotted path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from funcnn.core.context import below, ctx
from funcnn.core.tensor import Tensor


class Traversal:
    """The part of Module that knows the tree below it. Dotted paths are the keys of ``state_dict``."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]

    # ---- iteration ----------------------------------------------------------------------------------------------------
    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """``(path, module)`` for this module (path ``prefix``) and all below it, parents first.

        memo: modules to leave out; those given are added to it. remove_duplicate: give a shared module only once.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Any]:
        """This module and all below it, a shared one once."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """``(name, module)`` of the direct submodules, a shared one once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Any]:
        """The direct submodules."""
        return (child for _, child in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in owners:
            for name, t in getattr(module, table).items():
                if t is None or id(t) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(t))
                yield (f"{path}.{name}" if path else name), t

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """``(path, parameter)``; ``recurse``: also those of submodules; a shared one once unless asked otherwise."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """The parameters, a shared one once: what an optimizer takes."""
        return (t for _, t in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """``(path, buffer)``, as ``named_parameters``."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, a shared one once."""
        return (t for _, t in self.named_buffers(recurse=recurse))

    def apply(self, fn: Callable[[Any], Any]) -> Any:
        """Call ``fn`` on every submodule, children first, and on this module; return it."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _path_in_call(self) -> str:
        """The dotted path from the outermost module that is being called to this one, which it is about to call."""
        if ctx.module is None:
            return ctx.path
        for name, module in ctx.module.named_modules():
            if module is self:
                return below(name)
        return below(type(self).__name__)

    # ---- by path ------------------------------------------------------------------------------------------------------
    def get_submodule(self, target: str) -> Any:
        """The module at a dotted path; this one for ``""``. Raises ``AttributeError``."""
        module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Traversal):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Any, strict: bool = False) -> None:
        """Put ``module`` at a dotted path; the parent must exist, and with ``strict`` also a module to replace.

        Raises ``ValueError`` for an empty path or something that is no module, ``AttributeError`` for a missing parent.
        """
        parent_path, _, name = target.rpartition(".")
        if not name:
            raise ValueError("set_submodule: cannot set the submodule without a target name")
        if not isinstance(module, Traversal):
            raise ValueError(f"set_submodule: expected a Module for `{target}`, got {type(module).__name__}")
        parent = self.get_submodule(parent_path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Traversal):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Any:
        """The parameter at a dotted path. Raises ``AttributeError``."""
        return self._find(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Any:
        """The buffer at a dotted path. Raises ``AttributeError``."""
        return self._find(target, "_buffers", "a buffer")

    def _find(self, target: str, table: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        found = getattr(module, table).get(name)
        if found is None:
            raise AttributeError(f"`{name}` is not {what}")
        return found
