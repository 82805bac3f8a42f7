"""Movement: the same elements under another shape, mostly without copying; clone and detach. Made of ``base.structure``."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import is_concrete
from funcnn.core.context import ctx
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import layout
from funcnn.core.tensor import Loan, Tensor, alias
from funcnn.ops.base.dims import normalize_dim, numel, size_args
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import clone_p, expand_p, permute_p, reshape_p, slice_p, stop_gradient_p

# ---- reshape ----------------------------------------------------------------------------------------------------------


def reshape(input: Any, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1. A view where memory allows."""
    x = input if isinstance(input, Tensor) else to_tensor(input)
    sizes = size_args(shape)
    if -1 in sizes:
        known = numel(tuple(s for s in sizes if s != -1))
        if sizes.count(-1) > 1 or known == 0 or x._v.size % known:
            raise ShapeError(f"reshape: shape {sizes} does not fit the {x._v.size} elements of shape {tuple(x.shape)}")
        sizes = tuple(x._v.size // known if s == -1 else s for s in sizes)
    elif min(sizes, default=0) < 0:
        raise ShapeError(f"reshape: sizes must not be negative, got {sizes}")
    return reshape_p(x, shape=sizes)


def view(input: Tensor, *shape: Any) -> Tensor:
    """As ``reshape``, but never a copy: raises ``ShapeError`` where the strides do not allow a view.

    With a dtype of the same item size, the same bits read as that dtype is not offered.
    """
    out = reshape(input, *shape)
    if out._view is None and out._v.size:
        raise ShapeError(
            f"view: a tensor of shape {tuple(input.shape)} with strides {input.stride()} cannot be seen as shape "  # type: ignore[attr-defined]
            f"{tuple(out.shape)} without copying; use reshape(), or contiguous() first"
        )
    return out


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` merged into one; a 0-d tensor becomes 1-d."""
    x = input if isinstance(input, Tensor) else to_tensor(input)
    rank = len(x._v.shape)
    start, end = normalize_dim("flatten", start_dim, rank), normalize_dim("flatten", end_dim, rank)
    if start > end:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    shape = x._v.shape
    merged = (*shape[:start], numel(shape[start : end + 1]), *shape[end + 1 :])
    return x if merged == shape else reshape_p(x, shape=merged)


def ravel(input: Any) -> Tensor:
    """All elements in one dimension: a view of what is contiguous, else a copy."""
    x = to_tensor(input)
    return reshape(contiguous(x), (x._v.size,))


def unflatten(input: Any, dim: int, sizes: Any) -> Tensor:
    """Dimension ``dim`` split into ``sizes``, one of which may be -1."""
    x = to_tensor(input)
    dim = normalize_dim("unflatten", dim, x.ndim)
    shape = x._v.shape
    sizes = tuple(int(s) for s in sizes)
    if -1 in sizes:
        known = numel(tuple(s for s in sizes if s != -1))
        sizes = tuple((shape[dim] // known if known else 0) if s == -1 else s for s in sizes)
    if numel(sizes) != shape[dim]:
        raise ShapeError(f"unflatten: sizes {sizes} do not multiply to dimension {dim} of shape {shape}")
    return reshape_p(x, shape=(*shape[:dim], *sizes, *shape[dim + 1 :]))


def squeeze(input: Any, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1, or those of them named by ``dim``."""
    x = to_tensor(input)
    shape = x._v.shape
    listed = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    drop = {normalize_dim("squeeze", d, x.ndim) for d in listed}
    return reshape_p(x, shape=tuple(s for i, s in enumerate(shape) if not (i in drop and s == 1)))


def unsqueeze(input: Any, dim: int) -> Tensor:
    """With a dimension of size 1 inserted at ``dim``."""
    x = to_tensor(input)
    dim = normalize_dim("unsqueeze", dim, x.ndim + 1)
    shape = x._v.shape
    return reshape_p(x, shape=(*shape[:dim], 1, *shape[dim:]))


# ---- permute ----------------------------------------------------------------------------------------------------------


def permute(input: Any, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    x = to_tensor(input)
    listed = size_args(dims)
    order = tuple(normalize_dim("permute", d, x.ndim) for d in listed)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute: {listed} does not name each of the {x.ndim} dimensions of {tuple(x.shape)} once")
    return permute_p(x, dims=order)


def transpose(input: Any, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    x = input if isinstance(input, Tensor) else to_tensor(input)
    rank = len(x._v.shape)
    a, b = normalize_dim("transpose", dim0, rank), normalize_dim("transpose", dim1, rank)
    order = list(range(rank))
    if order:
        order[a], order[b] = order[b], order[a]
    return permute_p(x, dims=tuple(order))


swapaxes = transpose


def t(input: Any) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are."""
    x = to_tensor(input)
    if x.ndim > 2:
        raise ShapeError(
            f"t: expected at most 2 dimensions, got shape {tuple(x.shape)}; use .mT or transpose(dim0, dim1)"
        )
    return permute_p(x, dims=tuple(range(x.ndim))[::-1])


def movedim(input: Any, source: Any, destination: Any) -> Tensor:
    """Dimensions ``source`` moved to ``destination``, the others keeping their order."""
    x = to_tensor(input)
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        raise ShapeError(f"movedim: source {source} and destination {destination} differ in length")
    sources = tuple(normalize_dim("movedim", d, x.ndim) for d in sources)
    targets = tuple(normalize_dim("movedim", d, x.ndim) for d in targets)
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise ShapeError(f"movedim: a dimension appears twice in {source} or {destination}")
    rest = iter(d for d in range(x.ndim) if d not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return permute_p(x, dims=tuple(placed[d] if d in placed else next(rest) for d in range(x.ndim)))


# ---- expand -----------------------------------------------------------------------------------------------------------


def expand(input: Any, *sizes: Any) -> Tensor:
    """Dimensions of size 1 repeated to ``sizes`` without copying; -1 keeps a size, new dimensions come first."""
    x = to_tensor(input)
    listed = size_args(sizes)
    lead = len(listed) - x.ndim
    if lead < 0 or any(s == -1 for s in listed[:lead]):
        raise ShapeError(f"expand: sizes {listed} for shape {tuple(x.shape)}: too few, or -1 for a new dimension")
    return expand_p(x, shape=tuple(x._v.shape[i - lead] if s == -1 else s for i, s in enumerate(listed)))


def expand_as(input: Any, other: Tensor) -> Tensor:
    """``input`` expanded to the shape of ``other``."""
    return expand(input, other._v.shape)


def broadcast_to(input: Any, size: Any) -> Tensor:
    """As ``expand``."""
    return expand(input, tuple(size))


# ---- slice ------------------------------------------------------------------------------------------------------------


def slice_dim(x: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Tensor:
    """``x[start:stop:step]`` along one dimension, for bounds already within range and ``step`` positive."""
    if x._view is not None and not x._view.detached:
        cut = _slice_of_expanded(x, dim, start, stop, step)
        if cut is not None:
            return cut
    shape = x._v.shape
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[dim], stops[dim], steps[dim] = start, stop, step
    return slice_p(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _slice_of_expanded(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor | None:
    """A slice of an expanded (and perhaps permuted) tensor, taken before expanding: so it can be written if it can be at all.

    None for any other tensor.
    """
    view = x._view
    base = None if view is None or view.detached else view.source()
    if view is None or base is None or base.requires_grad != x.requires_grad:
        return None
    if view.prim is permute_p:
        dims = view.params["dims"]
        cut = _slice_of_expanded(base, dims[dim], start, stop, step)
        return None if cut is None else permute_p(cut, dims=dims)
    if view.prim is not expand_p:
        return None
    shape, inner = list(x._v.shape), dim - (x.ndim - base.ndim)
    if inner >= 0 and base._v.shape[inner] == shape[dim]:
        base = slice_dim(base, inner, start, stop, step)
    shape[dim] = max(0, -(-(stop - start) // step))
    return expand_p(base, shape=tuple(shape))


def narrow(input: Any, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of dimension ``dim`` from ``start`` on. Raises ``IndexError``."""
    x = to_tensor(input)
    dim = normalize_dim("narrow", dim, x.ndim)
    size = x._v.shape[dim]
    first = start + size if start < 0 else start
    if length < 0 or not 0 <= first <= size - length:
        raise IndexError(f"narrow: start {start} and length {length} do not fit dimension {dim} of size {size}")
    return slice_dim(x, dim, first, first + length)


def select(input: Any, dim: int, index: int) -> Tensor:
    """The slice at ``index`` of dimension ``dim``, without that dimension. Raises ``IndexError``."""
    x = to_tensor(input)
    if x.ndim == 0:
        raise IndexError("select: a 0-d tensor cannot be indexed; use .item() for its number")
    dim = normalize_dim("select", dim, x.ndim)
    size = x._v.shape[dim]
    if not -size <= index < size:
        raise IndexError(f"select: index {index} is out of range for dimension {dim} of size {size}")
    first = int(index) % size
    cut = slice_dim(x, dim, first, first + 1)
    shape = x._v.shape
    return reshape_p(cut, shape=shape[:dim] + shape[dim + 1 :])


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself where its memory is in row-major order, else a copy that is."""
    if layout(input).flags.c_contiguous:
        return input
    return clone(input)


# ---- clone and detach -------------------------------------------------------------------------------------------------
def clone(input: Tensor) -> Tensor:
    """A copy with its own memory; gradients pass."""
    return clone_p(to_tensor(input))


def apart(out: Tensor, input: Tensor) -> Tensor:
    """``out``, or a copy of it where it shares the memory of ``input``: the result of an operation that promises a copy."""
    return clone(out) if _root(out) is _root(input) else out


def _root(t: Tensor) -> Tensor:
    while t._view is not None and (base := t._view.source()) is not None:
        t = base
    return t


def stop_gradient(input: Any) -> Tensor:
    """``input``, as a constant for every gradient."""
    return detach(to_tensor(input))


def detach(input: Tensor) -> Tensor:
    """The same values (and memory) without the history: ``backward`` and ``grad`` stop here."""
    view = input._view
    traced = ctx.stage is not None or not is_concrete(input._v)
    saved, ctx.grad = ctx.grad, False
    try:
        if view is not None and not view.detached and traced and type(view) is not Loan:
            base = view.source()
            assert base is not None, "only a detached alias can lose its base"
            return view.prim(detach(base), **view.params)  # so that writes reach the base
    finally:
        ctx.grad = saved
    return same_numbers(input)


def same_numbers(input: Tensor) -> Tensor:
    """A detached alias of the tensor itself, also where that is a view of another one."""
    saved, ctx.grad = ctx.grad, False
    try:
        out = stop_gradient_p(input)
    finally:
        ctx.grad = saved
    return alias(out, input, stop_gradient_p, {}, detached=True)
