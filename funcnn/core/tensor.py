"""The Tensor: a box around a value, which is a NumPy array or a tracer. Its operations are attached by ``ops.tensor.methods``.

A box is what a user holds, mutates and differentiates; interpreters and rules see boxes too, made fresh for them.
Attributes that are rarely set live on the class until they are, which keeps making a box cheap.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from funcnn.core.aval import Missing, Tracer, is_concrete
from funcnn.core.context import ctx, running
from funcnn.core.device import device, device_of, devices, named
from funcnn.core.errors import DeviceError, DTypeError, GradientError, ShapeError, TracerError, user_line
from funcnn.core.size import Size

_new = object.__new__


class Cell:
    """A version counter, common to every box that aliases one storage; an in-place operation raises it.

    ``shared``: something besides one box sees the memory (a view, an array outside: ``exposed``), so writes must go there.
    ``readers``: weak references to nodes that copy what they keep of the storage before it is written (``graph.rescue``).
    """

    version: int = 0
    shared: bool = False
    exposed: bool = False
    readers: list | None = None


class View:
    """How an aliasing box was made from its base, so that writes reach the base and later reads see them.

    turn: how often the base had been given another shape in place (``mutation.restructure``) when the view was made.
    """

    __slots__ = ("base", "detached", "params", "prim", "turn", "version")

    def __init__(self, base: Any, prim: Any, params: dict, version: int, detached: bool, turn: int = 0):
        self.base, self.prim, self.params = base, prim, params
        self.version, self.detached, self.turn = version, detached, turn

    def source(self) -> Tensor | None:
        """Returns the base box; a detached alias on shared memory does not keep its base (and so its graph) alive."""
        base = self.base() if type(self.base) is weakref.ref else self.base
        past = None if base is None else base._past
        return base if past is None or self.turn == len(past) else past[self.turn][0]


class Loan(View):
    """The view of an argument that stands for it inside a transformation, until a value is written that is traced there."""

    __slots__ = ()


class Tensor:
    """A multi-dimensional array with PyTorch's methods; differentiable, and traceable by the transformations."""

    _v: Any
    _node: Any = None  # the Node that made this value, when it is recorded for backward()
    _slot: int = 0  # which output of that node
    _rg: bool = False  # a leaf that wants .grad
    _grad: Tensor | None = None
    _cell: Cell | None = None
    _view: View | None = None
    _past: list[tuple[Tensor, int]] | None = (
        None  # what stands for it before each change of shape in place; version then
    )
    _born: int = 0  # depth of the transformation inside which the box was made
    __array_priority__ = 1000
    __array_ufunc__ = None  # array + tensor is the tensor's business

    @property
    def shape(self) -> Size:
        """Returns the sizes, as a ``Size``."""
        return Size(self._v.shape)

    @property
    def dtype(self) -> np.dtype:
        """Returns the element type, a NumPy dtype."""
        return self._v.dtype

    @property
    def device(self) -> device:
        """Returns where the memory is, or will be if the tensor is traced."""
        return named(device_of(self._v))

    @property
    def ndim(self) -> int:
        """Returns the number of dimensions."""
        return len(self._v.shape)

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward()`` reaches this tensor."""
        if ctx.stage is not None and is_concrete(self._v):
            ctx.stage.reached(self)  # what the trace does may depend on the answer
        return self._rg or _settled(self)._node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Asks for (or gives up) gradients of this leaf, in place."""
        if requires_grad and self._v.dtype.kind != "f":
            raise DTypeError(f"requires_grad: only floating-point tensors can have gradients, got {self._v.dtype}")
        if self._node is not None:
            if not requires_grad:
                raise GradientError("requires_grad: can only be turned off for a leaf; use .detach() for this one")
            return self
        self._rg = bool(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return _settled(self)._node is None

    @property
    def grad_fn(self) -> Any:
        """Returns the recorded operation that made this tensor, or None."""
        return _settled(self)._node

    @property
    def grad(self) -> Tensor | None:
        """Returns the gradient gathered by ``backward()``, or None."""
        stage = ctx.stage
        return self._grad if stage is None else stage.read_grad(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise DTypeError(f"grad: expected a tensor or None, got {type(value).__name__}")
            if value._v.shape != self._v.shape or value._v.dtype != self._v.dtype:
                raise ShapeError(
                    f"grad: expected {self._v.dtype} of shape {tuple(self._v.shape)}, "
                    f"got {value._v.dtype} of shape {tuple(value._v.shape)}"
                )
        if ctx.stage is None:
            self._grad = value
        else:
            ctx.stage.write_grad(self, value)

    __hash__ = object.__hash__  # a tensor is a key by its identity, whatever ``==`` says

    def __bool__(self) -> bool:
        return bool(concrete(self, "bool() of", scalar=True))


def wrap(value: Any, cls: type = Tensor) -> Tensor:
    """Returns a fresh box around a value."""
    box: Tensor = _new(cls)
    box._v = value
    return box


def constant(array: np.ndarray) -> Tensor:
    """Returns a fresh box around data of the user's; under ``jit`` it is embedded in the program.

    What a rule needs by itself (zeros, a range, a number beside an operand) it makes by a primitive, on the operand's device.
    """
    if ctx.stage is not None:
        array = ctx.stage.constant(array)
    box = wrap(array)
    if ctx.top is not None:
        box._born = ctx.top.depth
    return box


def alias(
    box: Tensor, base: Tensor, prim: Any, params: dict, detached: bool = False, kind: type[View] = View
) -> Tensor:
    """Marks ``box`` as an alias of ``base``: a view made by ``prim``, or the same value without its history."""
    cell = base._cell
    if cell is None:
        cell = base._cell = Cell()
    cell.shared = True  # as ``share``
    box._cell = cell
    # A traced value shares no memory, and inside a transformation any may become one: there the base must be there to see.
    weak = detached and ctx.top is None and is_concrete(box._v)
    turn = 0 if base._past is None else len(base._past)
    box._view = kind(weakref.ref(base) if weak else base, prim, params, cell.version, detached, turn)
    return box


def share(box: Tensor) -> Cell:
    """Notes that something besides ``box`` sees its memory; returns its cell."""
    if box._cell is None:
        box._cell = Cell()
    box._cell.shared = True
    return box._cell


def version(box: Tensor) -> int:
    """Returns how many in-place operations the storage has seen."""
    return 0 if box._cell is None else box._cell.version


def as_of(box: Tensor, seen: int) -> Tensor:
    """Returns what stands for a box, whose shape may have been changed in place, as it was at a version."""
    return next((old for old, at in box._past or () if seen <= at), box)


def is_stale(box: Tensor) -> bool:
    """Whether the base of a traced view, or a sibling view, was written in place since it was last brought up to date."""
    view = box._view
    stale = view is not None and box._cell is not None and view.version != box._cell.version
    return stale and not is_concrete(box._v)


def refresh(box: Tensor) -> Tensor:
    """Brings a view up to date after its base, or a sibling view, was written in place."""
    view = box._view
    if view is None or box._cell is None or view.version == box._cell.version:
        return box
    if ctx.stage is not None and is_concrete(box._v):
        return box  # an outside box is not touched while tracing; the stage knows what its memory holds
    base = view.source()
    if base is not None and (base._cell is box._cell or not is_concrete(box._v)):  # else .data was rebound
        # A view takes its base's history on, also under no_grad; a detached alias never does, and keeps its own.
        saved, ctx.grad = ctx.grad, not view.detached
        try:
            fresh = view.prim(refresh(base), **view.params)
            if view.detached:
                box._v = inheriting(box, fresh)
            else:
                box._v, box._node, box._slot = fresh._v, fresh._node, fresh._slot
        finally:
            ctx.grad = saved
    view.version = box._cell.version
    return box


def inheriting(old: Tensor, new: Tensor) -> Any:
    """Returns the value of ``new`` with what is recorded about ``old``, at every level of transformations around."""
    was, now = old._v, new._v
    inner = isinstance(now, Tracer) and now.boxed
    if isinstance(was, Tracer) and was.boxed and not (inner and now.owner.depth > was.owner.depth):
        return was.replaced(new)  # type: ignore[attr-defined]  # boxed: a BoxTracer
    if not inner:
        return now
    held = wrap(was)  # as it is: an alias that lags behind is not to be brought up to date on the way
    held._node, held._slot = old._node, old._slot
    return now.grafted(held)


def _settled(box: Tensor) -> Tensor:
    """Returns a box with the history that it has by now: of a view, that of its base, which may have been written since."""
    view = box._view
    if view is not None and box._cell is not None and view.version != box._cell.version and ctx.top is None:
        with running(None, True):
            refresh(box)
    return box


def current(box: Tensor) -> Any:
    """Returns the value of a box as of now, to make another box around: a view may lag behind its base until it is read."""
    stage = ctx.stage
    if stage is None or (isinstance(box._v, Tracer) and box._v.owner is not stage):
        return refresh(box)._v
    return stage.read(box)


def refresh_all(results: list) -> None:
    """Brings the views among a function's results up to date, while its interpreter is still the current one."""
    for result in results:
        if isinstance(result, Tensor):
            refresh(result)


def concrete(box: Tensor, what: str, scalar: bool = False) -> np.ndarray:
    """Returns the elements in a box, for Python control flow, printing or NumPy. Raises ``TracerError`` for a traced value."""
    value = box._v
    if isinstance(value, Missing):
        raise TracerError(value.owner)
    if isinstance(value, Tracer) or ctx.stage is not None:
        name = "jit" if ctx.stage is not None else value.owner.name
        raise TracerError(
            f"{what} a traced tensor of shape {tuple(value.shape)} and dtype {value.dtype}: its numbers are not known "
            f"inside {name}. Use where()/clip() instead of if, compute it outside, or name the argument in static_argnums. "
            f"Asked for at {user_line()}"
        )
    if scalar and value.size != 1:
        raise ShapeError(
            f"{what} a tensor with {value.size} elements of shape {value.shape} is ambiguous; use any() or all()"
        )
    if type(value) is not np.ndarray:
        name = device_of(value)
        if scalar:
            return devices[name].copy_out(value)
        raise DeviceError(f"{what} a tensor on {name!r}, whose numbers are not on the host; use .cpu() first. "
                          f"Asked for at {user_line()}")  # fmt: skip
    return value
