"""Pytrees: nested dicts, lists, tuples, named tuples, None and registered classes, with tensors (or anything) as leaves.

Dict order is kept as it stands, so that a rebuilt parameter tree has the key order of a ``state_dict``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from funcnn.core.errors import ShapeError


class TreeDef(NamedTuple):
    """The structure of a pytree: hashable, comparable, able to rebuild the tree."""

    kind: Any
    keys: tuple
    children: tuple[TreeDef, ...]

    def unflatten(self, leaves: Iterable) -> Any:
        """Returns the tree with these leaves, in flattening order."""
        return self._build(iter(leaves))

    def _build(self, leaves) -> Any:
        kind = self.kind
        if kind is LEAF:
            return next(leaves)
        parts = []
        for child in self.children:
            parts.append(next(leaves) if child.kind is LEAF else child._build(leaves))
        if kind is tuple:
            return tuple(parts)
        return dict(zip(self.keys, parts, strict=True)) if kind is dict else _REGISTRY[kind][1](kind, self.keys, parts)

    @property
    def num_leaves(self) -> int:
        return 1 if self.kind is LEAF else sum(child.num_leaves for child in self.children)


class LEAF:
    """The kind of a leaf's TreeDef."""


_LEAF = TreeDef(LEAF, (), ())
_REGISTRY: dict[Any, tuple[Callable, Callable]] = {
    dict: (lambda d: (tuple(d), list(d.values())), lambda kind, keys, parts: dict(zip(keys, parts, strict=True))),
    list: (lambda x: ((), x), lambda kind, keys, parts: parts),
    tuple: (lambda x: ((), x), lambda kind, keys, parts: tuple(parts)),
    type(None): (lambda x: ((), ()), lambda kind, keys, parts: None),
}
_REGISTRY[OrderedDict] = (_REGISTRY[dict][0], lambda kind, keys, parts: OrderedDict(zip(keys, parts, strict=True)))


def register(cls: type, flatten: Callable, unflatten: Callable) -> None:
    """Makes ``cls`` a pytree node: ``flatten(x) -> (keys, children)``, ``unflatten(cls, keys, children) -> x``."""
    _REGISTRY[cls] = (flatten, unflatten)


def _rules(x) -> tuple[Callable, Callable] | None:
    kind = type(x)
    if kind not in _REGISTRY and isinstance(x, tuple) and hasattr(x, "_fields"):
        register(kind, lambda t: ((), t), lambda cls, keys, parts: cls(*parts))
    return _REGISTRY.get(kind)


def flatten(tree) -> tuple[list, TreeDef]:
    """Leaves in order, and the structure."""
    leaves: list = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree, leaves: list) -> TreeDef:
    kind, keys, parts = type(tree), (), tree
    if kind is dict:
        keys, parts = tuple(tree), tree.values()
    elif kind is not tuple:
        rules = _rules(tree)
        if rules is None:
            leaves.append(tree)
            return _LEAF
        keys, parts = rules[0](tree)
    children = []
    for part in parts:
        if type(part) in _REGISTRY or isinstance(part, tuple):
            children.append(_flatten(part, leaves))
        else:
            leaves.append(part)
            children.append(_LEAF)
    return TreeDef(kind, keys, tuple(children))


def leaves(tree) -> list:
    """Returns the leaves of a tree in order."""
    found: list = []
    _flatten(tree, found)
    return found


def unflatten(treedef: TreeDef, leaves: Iterable) -> Any:
    """Returns the tree of this structure with these leaves."""
    return treedef.unflatten(leaves)


def flatten_as(treedef: TreeDef, tree, what: str = "tree") -> list:
    """Returns the subtrees of ``tree`` at the leaves of ``treedef``; dicts match by key. Raises ``ShapeError`` on a mismatch."""
    out: list = []
    _flatten_as(treedef, tree, out, what)
    return out


def _flatten_as(treedef: TreeDef, tree, out: list, what: str) -> None:
    if treedef.kind is LEAF:
        out.append(tree)
        return
    parts: Any = None
    if issubclass(treedef.kind, dict):
        if isinstance(tree, dict) and set(tree) == set(treedef.keys):
            parts = [tree[key] for key in treedef.keys]
    else:
        rules = _rules(tree)
        parts = rules[0](tree)[1] if rules and type(tree) is treedef.kind else None
    if parts is None or len(parts) != len(treedef.children):
        raise ShapeError(f"{what}: expected a {treedef.kind.__name__} with {_about(treedef)}, got {_describe(tree)}")
    for child, part in zip(treedef.children, parts, strict=True):
        _flatten_as(child, part, out, what)


def _about(treedef: TreeDef) -> str:
    return f"keys {list(treedef.keys)}" if treedef.keys else f"{len(treedef.children)} entries"


def _describe(tree) -> str:
    return f"a dict with keys {list(tree)}" if isinstance(tree, dict) else f"a {type(tree).__name__}"


def map(f: Callable, tree, *rest) -> Any:
    """Maps ``f`` over the leaves of ``tree`` and the matching subtrees of ``rest``."""
    parts, treedef = flatten(tree)
    columns = [flatten_as(treedef, other, "tree.map") for other in rest]
    return treedef.unflatten([f(*row) for row in zip(parts, *columns, strict=True)])


def walk(tree, keys: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yields ``(keys, leaf)`` for each leaf in order: a dict's keys, positions in a list or a tuple.

    A registered class counts by its keys, if they are as many as its children.
    """
    rules = _rules(tree)
    if rules is None:
        yield keys, tree
        return
    names, parts = rules[0](tree)
    for name, part in zip(names if len(names) == len(parts) else range(len(parts)), parts, strict=True):
        yield from walk(part, (*keys, name))


class Paths(list):
    """Lists ``(dotted path, leaf)`` pairs. ``dict(...)`` of them holds the empty dicts and sequences as well, which have no leaf.

    So they are a ``state_dict`` to who goes through them, and ``nest`` gives back the tree that they were taken from.
    """

    def __init__(self, entries: list[tuple[str, Any]]):
        super().__init__(pair for pair in entries if not _hollow(pair[1]))
        self._entries = dict(entries)

    def keys(self) -> Iterable[str]:
        """Returns the paths, those of empty ones included."""
        return self._entries.keys()

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key] if isinstance(key, str) else super().__getitem__(key)


def _hollow(part: Any) -> bool:
    return isinstance(part, (dict, list, tuple)) and not part


def paths(tree, prefix: str = "") -> Paths:
    """Returns ``(dotted path, leaf)`` pairs of a tree: the keys of a ``state_dict``. Lists and tuples count by position."""
    return Paths([(f"{prefix}.{path}" if prefix and path else prefix or path, leaf) for path, leaf in _entries(tree)])


def _entries(tree) -> Iterator[tuple[str, Any]]:
    rules = None if tree is None else _rules(tree)
    names, parts = ((), ()) if rules is None else rules[0](tree)
    if rules is None:
        yield "", tree
    for name, part in zip(names if len(names) == len(parts) else range(len(parts)), parts, strict=True):
        if _hollow(part):
            yield str(name), part
        for path, leaf in _entries(part):
            yield f"{name}.{path}" if path else str(name), leaf


def nest(flat: Any) -> dict:
    """Returns the inverse of ``paths``: dotted keys (a dict, or pairs) to nested dicts; positions become keys, too."""
    tree: dict = {}
    for path, leaf in dict(flat).items():
        *parents, last = path.split(".")
        at = tree
        for key in parents:
            at = at.setdefault(key, {})
        at[last] = leaf
    return tree
