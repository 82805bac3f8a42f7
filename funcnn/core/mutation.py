"""In-place writes: what a box, its aliases and its recorded history become when its value is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from funcnn.core.aval import Missing, Tracer, is_concrete
from funcnn.core.context import ctx, running
from funcnn.core.device import copied, copy_into, writeable
from funcnn.core.errors import DTypeError, GradientError, ShapeError, TracerError
from funcnn.core.graph import Node, before_write
from funcnn.core.interpreter import BoxTracer, without_history
from funcnn.core.tensor import Cell, Loan, Tensor, inheriting, refresh, version, wrap

_LEAF = (
    "a leaf tensor that requires grad cannot be changed in place while recording; use `with no_grad():`, or a .clone()"
)


def assign(t: Tensor, new: Tensor, name: str) -> Tensor:
    """Gives ``t`` the value (and, when recording, the history) of ``new``, of the same shape and dtype; returns ``t``.

    Concrete memory is overwritten, so every alias sees it; a traced value is replaced, and the bases of a view are
    rebuilt around it. ``name`` is the in-place operation, for errors.
    """
    if new._view is not None:
        refresh(new)
    _refuse(t, new, name)
    assert not (ctx.grad and new._rg), f"{name}: a leaf's history would be lost; write a copy of it"
    if t._view is not None:
        _renew(t)
    if t._cell is not None and t._cell.readers is not None:
        before_write(t._cell)
    if ctx.grad:
        _preserve(t, new)
    if t._cell is None:  # before the memory is written: then no interrupt comes between that and the count
        t._cell = Cell()
    _store(t, new)
    t._cell.version += 1
    if ctx.grad:
        t._node, t._slot = new._node, new._slot
    if t._view is not None:
        t._view.version = t._cell.version
        _write_back(t)
    return t


def restructure(t: Tensor, view: Callable[[Tensor], Tensor], name: str) -> Tensor:
    """Lets ``t`` become the view ``view(t)`` of what it was, its memory as it is; returns ``t``.

    What was a view of ``t`` goes on being one of what it was: a box that takes its place as the base of those views.
    """
    if isinstance(t._v, Missing):
        raise TracerError(t._v.owner)
    if ctx.grad and _wants_grad(t):
        raise GradientError(f"{name}: {_LEAF}")
    if ctx.stage is not None:
        ctx.stage.restructure(t)
    refresh(t)
    if t._cell is not None and t._cell.readers is not None:
        before_write(t._cell)
    old = wrap(t._v)
    old._node, old._slot, old._cell, old._view, old._born = t._node, t._slot, t._cell, t._view, t._born
    new = view(old)
    if new is old:
        return t
    t._past = [*(t._past or ()), (old, version(old))]
    t._v, t._node, t._slot, t._view = new._v, new._node, new._slot, new._view
    t._cell = old._cell or Cell()
    t._cell.version += 1  # what was recorded with the old shape must notice
    if t._view is not None:
        t._view.version = t._cell.version
    return t


def rebound(t: Tensor, shared: Tensor) -> bool:
    """Lets a traced ``t`` be an alias of the tensor that ``shared`` is a detached alias of, its history as it is.

    What was a view of ``t`` goes on being one of what it was. False, with nothing done, where ``t`` stands for a tensor from
    outside, whose memory no trace can change, or is not like the other.
    """
    mine, its = t._v, shared._v
    if is_concrete(mine) or type(t._view) is Loan or (ctx.stage is not None and ctx.stage.kept(t) is not None):
        return False
    if (mine.shape, mine.dtype) != (its.shape, its.dtype) or _depth(shared) > max(_depth(t), t._born):
        return False
    old = wrap(mine)
    old._node, old._slot, old._cell, old._view, old._born = t._node, t._slot, t._cell, t._view, t._born
    t._past = [*(t._past or ()), (old, version(old))]
    t._v, t._cell, t._view = inheriting(t, shared), shared._cell, shared._view
    assert t._cell is not None and t._view is not None
    t._cell.version = max(t._cell.version, version(old)) + 1  # what was recorded with the old values must notice
    t._view.version = t._cell.version
    return True


def overwritten(boxes: Iterable[Tensor]) -> None:
    """Notes that a kernel has changed the memory of boxes, which records nothing and is neither traced nor read-only."""
    for t in boxes:
        if t._view is not None:
            _renew(t)
        cell = t._cell
        if cell is None:
            cell = t._cell = Cell()
        cell.version += 1
        if t._view is not None:
            t._view.version = cell.version
            _write_back(t)


def _refuse(t: Tensor, new: Tensor, name: str) -> None:
    if isinstance(t._v, Missing):
        raise TracerError(t._v.owner)
    if t._v.shape != new._v.shape:
        raise ShapeError(
            f"{name}: a result of shape {tuple(new._v.shape)} does not fit a tensor of {tuple(t._v.shape)}"
        )
    if t._v.dtype != new._v.dtype:
        raise DTypeError(f"{name}: a result of dtype {new._v.dtype} cannot be stored in a tensor of {t._v.dtype}")
    if ctx.grad and _wants_grad(t):
        raise GradientError(f"{name}: {_LEAF}")
    if isinstance(new._v, Tracer) and _depth(new) > max(_depth(t), t._born):
        raise TracerError(_outlives(name, new))
    if ctx.stage is None and not isinstance(t._v, Tracer) and not writeable(t._v) and t._v.size:
        raise ShapeError(f"{name}: the memory is read-only (expanded, or from a read-only array); use .clone() first")


def _outlives(name: str, new: Tensor) -> str:
    return (
        f"{name}: a tensor made outside {new._v.owner.name} would be overwritten by a value traced inside it; "
        "return the value (has_aux=True in grad) instead"
    )


def _wants_grad(t: Tensor) -> bool:
    """Whether a write to ``t`` would change a leaf that wants a gradient: itself or, for a view, one of its bases."""
    while not _is_wanted(t) and t._view is not None and not t._view.detached:
        base = t._view.source()
        assert base is not None
        t = base
    return _is_wanted(t)


def _is_wanted(t: Tensor) -> bool:
    return t._rg or (isinstance(t._v, BoxTracer) and t._v.leaf)


def _preserve(t: Tensor, new: Tensor) -> None:
    """Lets the operation that overwrites its own input keep the old value, where its derivative reads inputs.

    It stands in the graph of ``backward`` and in that of every ``fn.grad`` around.
    """
    maker: Tensor | None = new
    while maker is not None:
        if maker._node is not None:
            _keep_old(maker._node, t)
        value = maker._v
        maker = None
        if isinstance(value, BoxTracer):
            maker = value.value
            if value.node is not None:
                _keep_old(value.node, t)


def _keep_old(node: Node, t: Tensor) -> None:
    if node.versions is None:
        return
    current = [box is t and seen == version(t) for box, seen in zip(node.ins, node.versions, strict=True)]
    if not any(current):
        return
    value = t._v if ctx.stage is None else ctx.stage.read(t)
    old = wrap(copied(value) if is_concrete(value) else value)
    old._node, old._slot = t._node, t._slot
    node.ins = tuple([old if same else box for box, same in zip(node.ins, current, strict=True)])
    node.versions = tuple([0 if same else seen for seen, same in zip(node.versions, current, strict=True)])


def _depth(t: Tensor) -> int:
    return t._v.owner.depth if isinstance(t._v, Tracer) else 0


def _store(t: Tensor, new: Tensor) -> None:
    if not ctx.grad and (isinstance(t._v, BoxTracer) or isinstance(new._v, BoxTracer)):  # as an array keeps its node
        new = wrap(inheriting(t, new))
    if ctx.stage is not None and _depth(new) == 0:
        ctx.stage.write(t, new)
        return
    if not isinstance(t._v, Tracer) and not isinstance(new._v, Tracer):
        if ctx.top is not None and _lies_in_traced(t):
            t._v = copied(new._v)  # the memory is that of a value which a derivative may read
            return
        if t._v.size:  # what is empty may be read-only
            try:
                copy_into(t._v, new._v)
            except (
                BaseException
            ):  # an interrupt, when the memory is written: what was recorded with the old value must notice
                t._cell.version += 1  # type: ignore[union-attr]
                raise
        return
    t._v = new._v.copied() if isinstance(new._v, BoxTracer) else new._v


def _lies_in_traced(t: Tensor) -> bool:
    """Whether an array inside a transformation came, as a view or detached, out of a traced value: for the function they share
    no memory then."""
    at: Tensor | None = t
    while at is not None and at._view is not None:
        at = at._view.source()
        if at is not None and isinstance(at._v, Tracer):
            return True
    return False


def _store_number(base: Tensor, t: Tensor) -> None:
    """Stores the value of ``t``, a detached alias, whose history is none of its base's business."""
    value = inheriting(base, wrap(without_history(t)))
    if isinstance(value, BoxTracer):
        base._v = value
    else:
        _store(base, wrap(value))


def _renew(t: Tensor) -> None:
    """Brings a view and its bases up to date before a write, also one that is not recorded: then only the write is new.

    Else they would count as up to date afterwards, with histories that lack what was written to their bases before.
    """
    at: Tensor | None = t
    while at is not None and at._view is not None:
        if at._cell is not None and at._view.version != at._cell.version:
            with running(ctx.top, True):
                refresh(at)
        at = at._view.source()


def _write_back(t: Tensor, history: bool = True) -> None:
    """Carries a write to a view on to its base: the value where memory is not shared, the history where one is kept.

    history: False beyond a detached alias, which carries none on.
    """
    view = t._view
    assert view is not None
    base = view.source()
    if base is None:
        return
    if isinstance(t._v, Tracer) and _depth(t) > max(_depth(base), base._born):
        if type(view) is not Loan:
            raise TracerError(_outlives("in-place", t))
        t._view = None
        return
    shared = is_concrete(base._v) and is_concrete(t._v) and not (ctx.top is not None and _lies_in_traced(t))
    if shared and base._cell is not t._cell:
        return  # the base lies elsewhere since: its .data was rebound
    if shared and ctx.stage is not None:
        return  # boxes from outside: the stage knows what their memory holds, and has refused histories among them
    if base._view is not None:  # as of before this write, which is added here: nothing else is to be taken on
        assert base._cell is not None
        base._view.version = base._cell.version
    history = history and ctx.grad and not view.detached
    if view.detached:
        if not shared:
            _store_number(base, t)
    elif not shared or (history and (t._node is not None or base._node is not None)):
        whole = view.prim.unview(base, t, **view.params)
        if not shared:
            _store(base, whole)
        if history:
            base._node, base._slot = whole._node, whole._slot
    if base._view is not None:
        _write_back(base, history)
