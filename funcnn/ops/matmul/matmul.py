"""Matrix products: one batched primitive under ``matmul``, ``einsum`` and the rest, and ``linear`` with its bias."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.matmul import launch as cpu
from funcnn.ops.base import costs
from funcnn.ops.base.batching import aligned, all_batched
from funcnn.ops.base.dims import broadcast, normalize_dim, numel
from funcnn.ops.base.promote import operand, require_same_dtype, to_tensor
from funcnn.ops.base.structure import unbroadcast
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.math import relu, relu_grad_p
from funcnn.ops.movement.triangle import diagonal
from funcnn.ops.movement.triangle import trace as trace
from funcnn.ops.movement.views import expand, permute, reshape, transpose, unsqueeze
from funcnn.ops.reduce.sums import sum as sum_


def _matmul_shape(x: Any, y: Any) -> tuple:
    require_same_dtype("matmul", x, y)
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul: shapes {tuple(x.shape)} and {tuple(y.shape)} do not fit: {x.shape[-1]} columns meet {y.shape[-2]} rows"
        )
    lead = broadcast("matmul", tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    return (Aval((*lead, x.shape[-2], y.shape[-1]), x.dtype),)


def _matmul_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    x, y = ins
    return (
        lambda: unbroadcast(_product(g, transpose(y, -2, -1)), x._v.shape),
        lambda: _right_grad(g, x, y),
    )


def _right_grad(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x' g, as one tall product where ``y`` is a single matrix."""
    if y.ndim == 2 and x.ndim > 2:
        rows = (-1, x._v.shape[-1]) if x._v.size else (numel(tuple(x._v.shape[:-1])), x._v.shape[-1])
        x, g = reshape(x, rows), reshape(g, (rows[0], g._v.shape[-1]))
    return unbroadcast(_product(transpose(x, -2, -1), g), y._v.shape)


def _matmul_batch(n: int, ins: list, batched: list) -> Tensor:
    return _product(*aligned(ins, batched))


def _product(x: Tensor, y: Tensor) -> Tensor:
    """The primitive, with a batch of row blocks against one matrix folded into a single product."""
    if y.ndim == 2 and x.ndim > 2 and x._v.size and x._v.shape[-1] == y._v.shape[0]:
        *lead, k = x._v.shape
        return reshape(rescue(matmul_p(reshape(x, (-1, k)), y)), (*lead, y._v.shape[1]))
    return matmul_p(x, y)


matmul_p = Primitive("matmul", _matmul_shape, cpu=cpu.matmul, vjp=_matmul_vjp, batch=_matmul_batch, flops=costs.product)


# ---- linear -------------------------------------------------------------------------------------------------------------
def _linear_shape(x: Any, w: Any, *bias: Any) -> tuple:
    require_same_dtype("linear", x, w, *bias)
    for b in bias:
        if tuple(b.shape) not in ((w.shape[0],), (1,)):
            raise ShapeError(f"linear: expected a bias of shape ({w.shape[0]},), got {tuple(b.shape)}")
    return (Aval((*x.shape[:-1], w.shape[0]), x.dtype),)


def _rows(t: Tensor) -> Tensor:
    """(*, k) as (rows, k)."""
    *lead, k = t._v.shape
    return t if len(lead) == 1 else reshape(t, (numel(tuple(lead)), k))


def _linear_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    x, w = ins[:2]
    return (
        lambda: _product(g, w) if len(g._v.shape) > 1 else reshape(matmul_p(_rows(g), w), x._v.shape),
        lambda: matmul_p(transpose(_rows(g), 0, 1), _rows(x)),
        *[lambda: unbroadcast(g, b._v.shape) for b in ins[2:]],
    )


def _linear_batch(n: int, ins: list, batched: list) -> Tensor:
    """Another leading dimension of the input; weights of their own for each are a batched product."""
    if not any(batched[1:]):
        return linear_p(*ins)
    x, w, *bias = all_batched(n, ins, batched)
    lead = x._v.shape[1:-1]
    y = matmul_p(reshape(x, (n, numel(tuple(lead)), x._v.shape[-1])), transpose(w, 1, 2))
    for b in bias:
        y = add(y, unsqueeze(b, 1))
    return reshape(y, (n, *lead, w._v.shape[1]))


linear_p = Primitive(
    "linear",
    _linear_shape,
    cpu=cpu.linear,
    vjp=_linear_vjp,
    batch=_linear_batch,
    absorbs=lambda then, params: (linear_relu_p, params) if then is relu.primitive else None,  # type: ignore[attr-defined]
    flops=costs.product,
)
linear_relu_p = Primitive(  # what a compiler makes of the two
    "linear_relu",
    _linear_shape,
    cpu=cpu.linear_relu,
    vjp=lambda g, ins, o: _linear_vjp(relu_grad_p(g, o), ins, o),
    batch=lambda n, ins, batched: relu(_linear_batch(n, ins, batched)),
    keeps="io",
    flops=costs.product,
)


def matmul(input: Any, other: Any) -> Tensor:
    """The matrix product of the last two dimensions, others broadcast; vectors as rows on the left, columns on the right.

    Raises ``ShapeError`` when inner sizes differ, ``DTypeError`` when dtypes do.
    """
    x, y = to_tensor(input), to_tensor(other)
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            f"matmul: expected at least 1 dimension on both sides, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    left, right = x.ndim == 1, y.ndim == 1
    if left and right:
        return dot(x, y)
    if left:
        x = unsqueeze(x, 0)
    if right:
        y = unsqueeze(y, -1)
    out = _product(x, y)
    if x.ndim != y.ndim or left or right:
        rescue(out)
    if not (left or right):
        return out
    shape = out._v.shape
    return reshape(out, (*shape[:-2], shape[-1]) if left else shape[:-1])


def _ranked(name: str, x: Any, y: Any, a: int, b: int) -> tuple[Tensor, Tensor]:
    x, y = operand(name, x), operand(name, y)
    if x.ndim != a or y.ndim != b:
        raise ShapeError(f"{name}: expected {a}-d and {b}-d tensors, got {tuple(x.shape)} and {tuple(y.shape)}")
    return x, y


def mm(input: Any, mat2: Any) -> Tensor:
    """The product of two matrices."""
    return matmul_p(*_ranked("mm", input, mat2, 2, 2))


def bmm(input: Any, mat2: Any) -> Tensor:
    """The products of two batches of matrices (B, n, k) and (B, k, m)."""
    x, y = _ranked("bmm", input, mat2, 3, 3)
    if x._v.shape[0] != y._v.shape[0]:
        raise ShapeError(f"bmm: batches differ: {tuple(x.shape)} and {tuple(y.shape)}")
    return matmul_p(x, y)


def mv(input: Any, vec: Any) -> Tensor:
    """A matrix times a vector."""
    return matmul(*_ranked("mv", input, vec, 2, 1))


def dot(input: Any, tensor: Any) -> Tensor:
    """The inner product of two vectors of one length."""
    x, y = _ranked("dot", input, tensor, 1, 1)
    if x._v.shape != y._v.shape:
        raise ShapeError(f"dot: lengths differ: {x._v.shape[0]} and {y._v.shape[0]}")
    return reshape(matmul_p(unsqueeze(x, 0), unsqueeze(y, 1)), ())


def outer(input: Any, vec2: Any) -> Tensor:
    """All products of the elements of two vectors."""
    x, y = _ranked("outer", input, vec2, 1, 1)
    return mul(unsqueeze(x, 1), y)


def inner(input: Any, other: Any) -> Tensor:
    """Sums of products over the last dimensions of both."""
    x, y = to_tensor(input), to_tensor(other)
    return mul(x, y) if x.ndim == 0 or y.ndim == 0 else tensordot(x, y, ([-1], [-1]))


def _added(name: str, input: Any, product: Tensor, beta: float, alpha: float) -> Tensor:
    """``beta * input + alpha * product``; with beta 0 the input is not read, so its NaN do not pass."""
    x, shape = to_tensor(input), product._v.shape
    require_same_dtype(name, x, product)
    if broadcast(name, x._v.shape, shape) != shape:
        raise ShapeError(f"{name}: an input of shape {tuple(x.shape)} does not broadcast to the product's {shape}")
    if beta == 0:
        return product if alpha == 1 else mul(product, alpha)
    return add(x if beta == 1 else mul(x, beta), product, alpha=alpha)


def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * mat1 @ mat2``."""
    return _added("addmm", input, mm(mat1, mat2), beta, alpha)


def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * batch1 @ batch2`` for batches of matrices."""
    return _added("baddbmm", input, bmm(batch1, batch2), beta, alpha)


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """``input @ weight.T + bias``: (*, in) with weight (out, in) to (*, out). Raises ``ShapeError``, ``DTypeError``."""
    x = input if isinstance(input, Tensor) else operand("linear", input)
    w = weight if isinstance(weight, Tensor) else operand("linear", weight)
    rank = len(w._v.shape)
    if rank not in (1, 2) or not x._v.shape or x._v.shape[-1] != w._v.shape[-1]:
        raise ShapeError(
            f"linear: weight of shape {tuple(w.shape)} needs an input whose last size is {w._v.shape[-1] if rank else 0}, "
            f"got {tuple(x.shape)}"
        )
    if x._v.dtype != w._v.dtype:
        raise DTypeError(f"linear: input is {x.dtype} but weight is {w.dtype}; convert one with .to(dtype)")
    b = bias if bias is None or isinstance(bias, Tensor) else to_tensor(bias)
    if b is not None and b._v.dtype != x._v.dtype:
        raise DTypeError(f"linear: input is {x.dtype} but bias is {b.dtype}; convert one with .to(dtype)")
    if rank == 2 and (b is None or len(b._v.shape) == 1):
        return linear_p(x, w) if b is None else linear_p(x, w, b)
    y = matmul(x, transpose(w, 0, 1) if rank == 2 else w)
    if b is not None:
        if broadcast("linear", y._v.shape, b._v.shape) != y._v.shape:
            raise ShapeError(
                f"linear: bias of shape {tuple(b.shape)} does not broadcast to the output's {tuple(y.shape)}"
            )
        y = add(y, b)
    return y


def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """Sums of products over ``dims``: a number of last against first dimensions, or two lists that pair up."""
    a, b = to_tensor(a), to_tensor(b)
    if isinstance(dims, int) and not 0 <= dims <= min(a.ndim, b.ndim):
        raise ShapeError(f"tensordot: dims={dims} for tensors of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    pairs = (
        (list(range(a.ndim - dims, a.ndim)), list(range(dims))) if isinstance(dims, int) else [list(d) for d in dims]
    )
    left = [normalize_dim("tensordot", d, a.ndim) for d in pairs[0]]
    right = [normalize_dim("tensordot", d, b.ndim) for d in pairs[1]]
    sizes = [[t._v.shape[d] for d in ds] for t, ds in ((a, left), (b, right))]
    if sizes[0] != sizes[1]:
        raise ShapeError(f"tensordot: sizes {sizes[0]} of {tuple(a.shape)} meet {sizes[1]} of {tuple(b.shape)}")
    free_a, free_b = ([d for d in range(t.ndim) if d not in ds] for t, ds in ((a, left), (b, right)))
    shape_a, shape_b = ([t._v.shape[d] for d in ds] for t, ds in ((a, free_a), (b, free_b)))
    k = numel(tuple(sizes[0]))
    rows = reshape(permute(a, (*free_a, *left)), (numel(tuple(shape_a)), k))
    cols = reshape(permute(b, (*right, *free_b)), (k, numel(tuple(shape_b))))
    return reshape(matmul_p(rows, cols), (*shape_a, *shape_b))


# ---- einsum -----------------------------------------------------------------------------------------------------------
def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation: "bij,bjk->bik" and the like, with "..." for dimensions that broadcast.

    Repeated labels take diagonals; without "->" the output has the labels that occur once, sorted. Contracts from left
    to right. Raises ``ShapeError``, and ``ValueError`` for an equation that cannot be read.
    """
    if not isinstance(equation, str):
        raise TypeError(f"einsum: expected an equation such as 'ij,jk->ik' first, got {type(equation).__name__}")
    tensors = [
        to_tensor(t)
        for t in (operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands)
    ]
    inputs, output = _parse(equation.replace(" ", ""), tensors)
    if len(set(output)) != len(output):
        raise ShapeError(f"einsum: a label appears twice in the output of {equation!r}; each may stand there once")
    terms = [_single(labels, t) for labels, t in zip(inputs, tensors, strict=True)]
    while len(terms) > 1:
        later = set(output).union(*(labels for labels, _ in terms[2:]))
        terms[:2] = [_pair(terms[0], terms[1], later)]
    labels, out = _drop(terms[0][0], terms[0][1], set(output))
    missing = [c for c in output if c not in labels]
    if missing:
        raise ShapeError(f"einsum: output label {missing[0]!r} of {equation!r} is in no operand")
    return permute(out, [labels.index(c) for c in output]) if out.ndim else out


def _parse(equation: str, tensors: list[Tensor]) -> tuple[list[list[str]], list[str]]:
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum: {equation!r} has {len(terms)} terms for {len(tensors)} operands")
    widest = max((t.ndim - len(term.replace("...", "")) for term, t in zip(terms, tensors, strict=True) if "..." in term),
                 default=0)  # fmt: skip
    inputs = []
    for term, t in zip(terms, tensors, strict=True):
        extra = t.ndim - len(term.replace("...", ""))
        if extra < 0 or (extra and "..." not in term):
            raise ShapeError(f"einsum: term {term!r} does not fit a tensor of shape {tuple(t.shape)}")
        inputs.append(_letters(term, [f"_{widest - extra + i}" for i in range(extra)]))
    dots = [f"_{i}" for i in range(widest)]
    if arrow:
        return inputs, _letters(right, dots)
    seen = [c for labels in inputs for c in labels if not c.startswith("_")]
    return inputs, dots + sorted(c for c in set(seen) if seen.count(c) == 1)


def _letters(term: str, dots: list[str]) -> list[str]:
    head, found, tail = term.partition("...")
    labels = list(head) + (dots if found else []) + list(tail)
    if any(not (c.isalpha() or c.startswith("_")) for c in labels):
        raise ValueError(f"einsum: labels must be letters, got {term!r}")
    return labels


def _single(labels: list[str], t: Tensor) -> tuple[list[str], Tensor]:
    """Take the diagonal of every repeated label."""
    labels = list(labels)
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            if t._v.shape[i] != t._v.shape[j]:
                raise ShapeError(f"einsum: label {c!r} has sizes {t._v.shape[i]} and {t._v.shape[j]}")
            t = diagonal(t, 0, i, j)
            labels = [d for k, d in enumerate(labels) if k not in (i, j)] + [c]
    return labels, t


def _drop(labels: list[str], t: Tensor, wanted: set[str]) -> tuple[list[str], Tensor]:
    gone = tuple(i for i, c in enumerate(labels) if c not in wanted)
    return [c for c in labels if c in wanted], sum_(t, gone, dtype=t._v.dtype) if gone else t


def _pair(a: tuple, b: tuple, later: set[str]) -> tuple[list[str], Tensor]:
    """Contract two terms into one: labels are shared and kept (batch), shared and summed, or of one side only."""
    (la, ta), (lb, tb) = _drop(a[0], a[1], later | set(b[0])), _drop(b[0], b[1], later | set(a[0]))
    require_same_dtype("einsum", ta, tb)
    size = {c: t._v.shape[i] for labels, t in ((la, ta), (lb, tb)) for i, c in enumerate(labels)}
    for c in set(la) & set(lb):
        sa, sb = ta._v.shape[la.index(c)], tb._v.shape[lb.index(c)]
        if sa != sb and 1 not in (sa, sb):
            raise ShapeError(f"einsum: label {c!r} has sizes {sa} and {sb}")
        size[c] = sb if sa == 1 else sa
    both = [c for c in la if c in lb]
    batch, summed = [c for c in both if c in later], [c for c in both if c not in later]
    rows, cols = [c for c in la if c not in lb], [c for c in lb if c not in la]

    def matrix(labels: list, t: Tensor, left: list, right: list) -> Tensor:
        order = batch + left + right
        t = expand(permute(t, [labels.index(c) for c in order]), [size[c] for c in order]) if order else t
        return reshape(t, [size[c] for c in batch] + [numel(tuple(size[c] for c in part)) for part in (left, right)])

    out = matmul_p(matrix(la, ta, rows, summed), matrix(lb, tb, summed, cols))
    return batch + rows + cols, reshape(out, [size[c] for c in batch + rows + cols])
