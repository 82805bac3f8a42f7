"""The recorded graph: one Node for each primitive application that gradients flow through.

``loss.backward()`` and ``fn.grad`` build and walk the same nodes; they differ in whose boxes the nodes hold.
"""

from __future__ import annotations

import weakref
from itertools import count
from typing import Any

import numpy as np

from funcnn.core.aval import Missing, is_concrete
from funcnn.core.context import Scope, ctx
from funcnn.core.device import copied, device_of
from funcnn.core.errors import GradientError
from funcnn.core.tensor import Cell, Tensor, as_of, version, wrap

_sequence = count()
_ndarray = np.ndarray


class Node:
    """A primitive application: what its vjp rule needs, and where each input's cotangent goes.

    ``edges`` holds for each input None, ``(node, slot)``, or the leaf itself (a Tensor, or a tape's mark of an input).
    ``count``: how many outputs there are.
    """

    __slots__ = ("__weakref__", "count", "edges", "ins", "outs", "params", "path", "prim", "rebuild", "seq", "versions")

    def __init__(self, prim: Any, params: dict, ins: tuple[Tensor, ...], edges: Any = None, outs: list | None = None):
        """edges: of user-level tensors, unless a tape gives its own. outs: user-level outputs, which learn what made them."""
        self.prim, self.params = prim, params
        self.outs: tuple | None = None
        self.seq = next(_sequence)
        self.rebuild = False
        self.path = ctx.path if Scope.wanted else ""
        kept: list = []
        if "i" in prim.keeps:
            for t in ins:
                kept.append(0 if t._cell is None else t._cell.version)
            self.ins: Any = ins
            self.versions: Any = kept
        else:
            for t in ins:
                value = t._v
                kept.append((value.shape, value.dtype) if type(value) is _ndarray else _known(value))
            self.ins, self.versions = kept, None
        if edges is None:
            edges = []
            for t in ins:
                node = t._node
                edges.append((node, t._slot) if node is not None else t if t._rg else None)
        self.edges = edges
        self.count = 1 if outs is None else len(outs)
        if outs is not None:
            if "o" in prim.keeps:
                self._keep_outputs(outs)
            for slot, out in enumerate(outs):
                if out._v.dtype.kind == "f":
                    out._node, out._slot = self, slot

    @property
    def name(self) -> str:
        """Returns PyTorch's style of name, ``AddBackward0``."""
        name = self.prim.recorded or self.prim.name
        return "".join(part.capitalize() for part in name.split("_")) + "Backward0"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def _keep_outputs(self, results: list[Tensor]) -> None:
        """Saves the outputs of a user-level operation without a reference cycle: fresh boxes on the same storage."""
        saved = []
        for result in results:
            if result._cell is None:
                result._cell = Cell()
            box = wrap(result._v)
            box._cell = result._cell
            saved.append((box, box._cell.version))
        self.outs, self.rebuild = tuple(saved), True

    def arguments(self) -> list[Tensor]:
        """Returns the inputs for the vjp rule; one that was overwritten since stands there as a value that may not be read."""
        if self.ins is None:
            raise GradientError(
                f"backward: the saved values of {self.prim.name} were freed by an earlier backward(); "
                "call that one with retain_graph=True to go through the graph twice"
            )
        if self.versions is None:
            message, unread = f"{self.prim.name}: its vjp reads an input that the primitive does not keep", []
            for known in self.ins:
                unread.append(wrap(Missing(message, *known)))
            return unread
        given = []
        for t, seen in zip(self.ins, self.versions, strict=True):
            cell = t._cell
            given.append(t if seen == (0 if cell is None else cell.version) else self._lost(t, seen))
        return given

    def results(self, graph: bool) -> Any:
        """Returns the outputs for the vjp rule (connected to the graph when that is recorded), or None if not kept."""
        if self.outs is None:
            return None
        outs = []
        for slot, (box, seen) in enumerate(self.outs):
            if version(box) != seen:
                box = self._lost(box, seen)
            outs.append(self._connected(box, slot) if self.rebuild and graph else box)
        return outs if self.prim.multiple else outs[0]

    def _connected(self, box: Tensor, slot: int) -> Tensor:
        fresh = wrap(box._v)
        if box._v.dtype.kind == "f":
            fresh._node, fresh._slot = self, slot
        return fresh

    def _lost(self, box: Tensor, seen: int) -> Tensor:
        """Returns what stands for a value that was overwritten."""
        message = (
            f"backward: a value of shape {tuple(box._v.shape)} that {self.prim.name} needs for its gradient was "
            f"overwritten by an in-place operation (version {version(box)}, expected {seen}); "
            "use the out-of-place form, or .clone() first"
        )
        return wrap(Missing(message, as_of(box, seen)._v.shape, box._v.dtype, device_of(box._v)))

    def save(self, cell: Cell) -> None:
        """Copies what is kept of a storage that is about to be written."""
        if self.versions is not None and self.ins is not None:
            kept = [_copied(box, seen, cell) for box, seen in zip(self.ins, self.versions, strict=True)]
            self.ins, self.versions = tuple([box for box, _ in kept]), tuple([seen for _, seen in kept])
        if self.outs is not None:
            self.outs = tuple([_copied(box, seen, cell) for box, seen in self.outs])

    def free(self) -> None:
        """Drops the saved values, after a backward pass that is not to be repeated."""
        self.ins = self.outs = None


def _known(value: Any) -> tuple:
    return value.shape, value.dtype, device_of(value)


def _copied(box: Tensor, seen: int, cell: Cell) -> tuple[Tensor, int]:
    """Returns a copy of a kept value and its version; the value itself if it is of another storage, a leaf or lost already."""
    if box._cell is not cell or box._rg or version(box) != seen:
        return box, seen
    value = box._v if ctx.stage is None else ctx.stage.read(box)
    copy = wrap(copied(value) if is_concrete(value) else value)
    copy._node, copy._slot = box._node, box._slot
    return copy, 0


def rescue(t: Tensor) -> Tensor:
    """Makes an in-place write to anything that the derivative of ``t`` reads keep a copy of it first; returns ``t``.

    For operations that are more often followed by such a write than not, or whose derivative reads less in PyTorch.
    """
    node = t._node
    if node is not None and ctx.top is None:
        reader = weakref.ref(node)
        for box in node.ins if node.versions is not None else ():
            _enlist(box, reader)
        for box, _ in node.outs or ():
            _enlist(box, reader)
    return t


def _enlist(box: Tensor, reader: Any) -> None:
    cell = box._cell
    if cell is None:
        cell = box._cell = Cell()
    cell.readers = [reader, *(other for other in cell.readers if other() is not None)] if cell.readers else [reader]


def before_write(cell: Cell) -> None:
    """Lets the nodes that asked for it copy what they keep of a storage."""
    readers, cell.readers = cell.readers or (), None
    for reader in readers:
        node = reader()
        if node is not None:
            node.save(cell)
