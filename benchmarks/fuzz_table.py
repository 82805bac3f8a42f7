"""The operations that ``fuzz_programs`` draws from: one line each, so that the table grows with the library.

``op(name, takes, run, *parameters)``: ``takes`` names what each tensor must be, ``run(m, *tensors, *parameters)`` is the call
on either library, and each parameter is a function ``(draw, tensors) -> value``, drawn once a program.

What a tensor must be: a kind (``any``, ``num``, ``float``, ``int``, ``bool``), then after a colon ``like`` (the first one's
shape), ``fits`` (broadcasts to the first one's shape), ``pairs`` (broadcasts with it), ``d1``, ``d2``, ``d3`` (at least so
many dimensions) or ``inner`` (a right factor of a product with the first).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

OPS: list[Op] = []


@dataclass(frozen=True)
class Op:
    """One line of the table."""

    name: str
    takes: tuple[str, ...]
    run: Callable
    parameters: tuple[Callable, ...]
    writes: bool = False


class Unfit(Exception):
    """The drawn tensors do not suit the operation; another is drawn."""


def op(name: str, takes: str, run: Callable, *parameters: Callable) -> None:
    """Add a line; a name that ends in ``_`` or is ``set`` writes to its first tensor."""
    writes = name.split(" ")[0].endswith("_") or name.startswith("set")
    OPS.append(Op(name, tuple(takes.split()), run, parameters, writes))


# ---- parameters ---------------------------------------------------------------------------------------------------------
def dim(draw: Random, tensors: list) -> int:
    """A dimension of the first tensor, counted from either end."""
    rank = tensors[0].dim() or 1
    return draw.randrange(-rank, rank)


def new_dim(draw: Random, tensors: list) -> int:
    """A place for a new dimension."""
    rank = tensors[0].dim() + 1
    return draw.randrange(-rank, rank)


def dims(draw: Random, tensors: list) -> Any:
    """None, a dimension, or several."""
    rank = tensors[0].dim()
    if rank == 0 or draw.random() < 0.3:
        return None
    return tuple(draw.sample(range(rank), draw.randint(1, rank)))


def flag(draw: Random, tensors: list) -> bool:
    """True or False."""
    return draw.random() < 0.5


def number(draw: Random, tensors: list) -> Any:
    """A Python number of the tensor's category."""
    kind = str(tensors[0].dtype)
    if "float" in kind:
        return draw.choice([0.0, 1.0, -0.5, 2.0, 0.1, 3])
    return draw.choice([True, False]) if "bool" in kind else draw.choice([0, 1, 2, -1, 3])


def divisor(draw: Random, tensors: list) -> Any:
    """A Python number that is not zero."""
    return draw.choice([2, 3, -2] if "float" not in str(tensors[0].dtype) else [0.5, -2.0, 3, 0.1])


def order(draw: Random, tensors: list) -> tuple:
    """A permutation of the dimensions."""
    return tuple(draw.sample(range(tensors[0].dim()), tensors[0].dim()))


def shape(draw: Random, tensors: list) -> tuple:
    """Another shape for the same elements."""
    count = tensors[0].numel()
    sizes = [d for d in range(1, count + 1) if count and count % d == 0] or [0]
    first = draw.choice(sizes)
    rest = count // first if first else 1
    return draw.choice([(first, rest), (count,), (first, -1) if count else (0, 1), (1, count), (count, 1, 1)])


def wider(draw: Random, tensors: list) -> tuple:
    """A shape to expand to."""
    own = [draw.choice([1, 2, 3]) if s == 1 else s for s in tensors[0].shape]
    return tuple(draw.choice([[], [1], [2]]) + own)


def counts(draw: Random, tensors: list) -> tuple:
    """How often to repeat each dimension."""
    return tuple(draw.choice([1, 1, 2]) for _ in tensors[0].shape)


def widths(draw: Random, tensors: list) -> tuple:
    """Padding of some trailing dimensions, negative widths included."""
    pairs = draw.randint(0, tensors[0].dim())
    listed = []
    for i in range(pairs):
        size = tensors[0].shape[-1 - i]
        listed += [draw.choice([0, 0, 1, 2, -1 if size > 1 else 0]), draw.choice([0, 0, 1])]
    return tuple(listed)


def whole(low: int, high: int) -> Callable:
    """A number in a range."""
    return lambda draw, tensors: draw.randint(low, high)


def one_of(*choices: Any) -> Callable:
    """One of these."""
    return lambda draw, tensors: draw.choice(choices)


def at(draw: Random, tensors: list) -> Any:
    """A basic index: ints, slices, None and an ellipsis."""
    items: list = []
    for size in tensors[0].shape:
        kind = draw.random()
        if kind < 0.25 and size:
            items.append(draw.randrange(-size, size))
        elif kind < 0.6:
            items.append(
                slice(draw.choice([None, 0, 1, -2]), draw.choice([None, 2, -1, size]), draw.choice([None, 1, 2]))
            )
        elif kind < 0.7:
            items += [None, slice(None)]
        else:
            items.append(slice(None))
    if draw.random() < 0.3:
        items = [*items[: draw.randint(0, len(items))], Ellipsis]
    return tuple(items)


def picks(draw: Random, tensors: list) -> list:
    """Positions along the first dimension, repeated ones included."""
    size = tensors[0].shape[0] if tensors[0].dim() else 0
    if not size:
        raise Unfit
    return [draw.randrange(-size, size) for _ in range(draw.randint(0, 3))]


def distinct(draw: Random, tensors: list) -> list:
    """Distinct positions along the first dimension."""
    size = tensors[0].shape[0] if tensors[0].dim() else 0
    if not size:
        raise Unfit
    return draw.sample(range(size), draw.randint(1, size))


def cut(draw: Random, tensors: list) -> tuple:
    """(dim, start, length) within the tensor."""
    if not tensors[0].dim():
        raise Unfit
    axis = draw.randrange(tensors[0].dim())
    start = draw.randint(0, tensors[0].shape[axis])
    return axis, start, draw.randint(0, tensors[0].shape[axis] - start)


def place(draw: Random, tensors: list) -> tuple:
    """(dim, index) of one slice."""
    if not tensors[0].dim():
        raise Unfit
    axis = draw.randrange(tensors[0].dim())
    if not tensors[0].shape[axis]:
        raise Unfit
    return axis, draw.randrange(-tensors[0].shape[axis], tensors[0].shape[axis])


def windows(draw: Random, tensors: list) -> tuple:
    """(dim, size, step) of sliding windows."""
    if not tensors[0].dim():
        return 0, 1, 1
    axis = draw.randrange(tensors[0].dim())
    return axis, draw.randint(0, tensors[0].shape[axis]), draw.randint(1, 3)


def two_dims(draw: Random, tensors: list) -> tuple:
    """Two dimensions that differ."""
    return tuple(draw.sample(range(tensors[0].dim()), 2))


# ---- elementwise ----------------------------------------------------------------------------------------------------------
for _name in ("add", "sub", "mul"):
    op(_name, "num num:pairs", lambda m, x, y, _n=_name: getattr(m, _n)(x, y))
    op(f"{_name} number", "num", lambda m, x, k, _n=_name: getattr(m, _n)(x, k), number)
    op(f"{_name}_", "num num:fits", lambda m, x, y, _n=_name: getattr(x, _n + "_")(y if y is x else y.clone()))
    op(f"{_name}_ number", "num", lambda m, x, k, _n=_name: getattr(x, _n + "_")(k), number)
op("add alpha", "num num:pairs", lambda m, x, y, k: m.add(x, y, alpha=k), whole(-2, 300))
op("div", "num num:pairs", lambda m, x, y: x / y)
op("div number", "num", lambda m, x, k: x / k, divisor)
op("div_ number", "float", lambda m, x, k: x.div_(k), divisor)
op("number div", "num", lambda m, x, k: k / x, number)
op("div mode", "num", lambda m, x, k, mode: m.div(x, k, rounding_mode=mode), divisor, one_of("floor", "trunc"))
op("remainder", "num", lambda m, x, k: m.remainder(x, k) + 0, divisor)  # zeros of one sign
op("pow number", "float", lambda m, x, k: x**k, one_of(2, 3, 1.0, 2.0, 0))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    op(_name, "num num:pairs", lambda m, x, y, _n=_name: getattr(m, _n)(x, y))
    op(f"{_name} number", "num", lambda m, x, k, _n=_name: getattr(m, _n)(x, k), number)
for _name in ("maximum", "minimum", "fmax", "fmin"):
    op(_name, "num num:pairs", lambda m, x, y, _n=_name: getattr(m, _n)(x, y))
for _name in ("logical_and", "logical_or", "logical_xor"):
    op(_name, "any any:pairs", lambda m, x, y, _n=_name: getattr(m, _n)(x, y))
for _name in (
    "exp",
    "tanh",
    "sigmoid",
    "relu",
    "sin",
    "cos",
    "erf",
    "square",
    "neg",
    "abs",
    "sign",
    "floor",
    "round",
    "trunc",
):
    op(_name, "num", lambda m, x, _n=_name: getattr(m, _n)(x))
for _name in ("sigmoid_", "tanh_", "relu_", "neg_", "square_", "abs_", "sin_", "cos_"):
    op(_name, "float", lambda m, x, _n=_name: getattr(x, _n)())
for _name in ("isnan", "isinf", "isfinite", "logical_not"):
    op(_name, "any", lambda m, x, _n=_name: getattr(m, _n)(x))
for _name, _type in (
    ("float", "float32"),
    ("double", "float64"),
    ("long", "int64"),
    ("int", "int32"),
    ("byte", "uint8"),
    ("bool", "bool"),
):
    op(f"to {_type}", "any", lambda m, x, _n=_name: getattr(x, _n)())
op("positive", "num", lambda m, x: m.positive(x))
op("reciprocal", "float", lambda m, x: m.reciprocal(x))
op("sqrt of abs", "float", lambda m, x: (x.abs() + 0.5).sqrt())
op("log of abs", "float", lambda m, x: (x.abs() + 0.5).log())
op("clamp", "num", lambda m, x, low, high: x.clamp(low, high), one_of(None, -1, 0), one_of(1, 2))
op("clamp_", "num", lambda m, x, low, high: x.clamp_(low, high), one_of(None, -1, 0), one_of(1, 2))
op("clamp tensors", "float float:fits", lambda m, x, y: x.clamp(min=y))
op("lerp", "float float:like", lambda m, x, y, k: m.lerp(x, y, k), one_of(0.25, 0.75, 1.0))
op("where", "bool num:pairs num:like", lambda m, c, x, y: m.where(c, x, y))
op("where number", "num", lambda m, x, k: m.where(x > 0, x, k), number)
op("isclose", "num num:like", lambda m, x, y: m.isclose(x, y))
op("addcmul", "float float:like", lambda m, x, y: x + 2 * x * y)
op("bitwise_and", "int int:pairs", lambda m, x, y: x & y)
op("bitwise_not", "int", lambda m, x: ~x)

# ---- views ------------------------------------------------------------------------------------------------------------------
op("reshape", "any", lambda m, x, s: x.reshape(s), shape)
op("flatten", "any", lambda m, x: x.flatten())
op("ravel", "any", lambda m, x: x.ravel())
op("t", "any", lambda m, x: x.t() if x.dim() <= 2 else x.mT)
op("transpose", "any:d2", lambda m, x, d: x.transpose(*d), two_dims)
op("permute", "any", lambda m, x, d: x.permute(d), order)
op("movedim", "any:d2", lambda m, x, d: m.movedim(x, *d), two_dims)
op("expand", "any", lambda m, x, s: x.expand(s), wider)
op("select", "any:d1", lambda m, x, p: x.select(*p), place)
op("narrow", "any:d1", lambda m, x, c: x.narrow(*c), cut)
op("getitem", "any", lambda m, x, i: x[i], at)
op("unsqueeze", "any", lambda m, x, d: x.unsqueeze(d), new_dim)
op("squeeze", "any", lambda m, x: x.squeeze())
op("squeeze dim", "any", lambda m, x, d: x.squeeze(d), dim)
op("diagonal", "any:d2", lambda m, x, k, d: x.diagonal(k, *d), whole(-2, 2), two_dims)
op("unfold", "any", lambda m, x, w: x.unfold(*w), windows)
op("split", "any:d1", lambda m, x, k: x.split(k)[0], whole(1, 2))
op("chunk", "any:d1", lambda m, x, k: x.chunk(k)[-1], whole(1, 3))
op("unbind", "any:d1", lambda m, x: x.unbind()[0])
op("detach", "any", lambda m, x: x.detach())
op("contiguous", "any", lambda m, x: x.contiguous())
op("t_", "any", lambda m, x: x.t_())
op("transpose_", "any:d2", lambda m, x, d: x.transpose_(*d), two_dims)
op("squeeze_", "any", lambda m, x: x.squeeze_())
op("unsqueeze_", "any", lambda m, x, d: x.unsqueeze_(d), new_dim)

# ---- copies that look like views --------------------------------------------------------------------------------------------
op("clone", "any", lambda m, x: x.clone())
op("pad", "num", lambda m, x, w: m.nn.functional.pad(x, w), widths)
op("roll", "any", lambda m, x, k: m.roll(x, k), whole(-3, 3))
op("roll dim", "any:d1", lambda m, x, k, d: m.roll(x, k, d), whole(-3, 3), dim)
op("rot90", "any:d2", lambda m, x, k: m.rot90(x, k), whole(-1, 4))
op("flip", "any", lambda m, x, d: m.flip(x, (d,)) if x.dim() else x.clone(), dim)
op("repeat", "any", lambda m, x, c: x.repeat(c), counts)
op("tile", "any", lambda m, x, c: m.tile(x, c), counts)
op("repeat_interleave", "any", lambda m, x, k: m.repeat_interleave(x, k), whole(1, 2))
op("repeat_interleave dim", "any:d1", lambda m, x, k, d: m.repeat_interleave(x, k, d), whole(1, 2), dim)
op("cat", "any any:like", lambda m, x, y, d: m.cat([x, y], d), dim)
op("stack", "any any:like", lambda m, x, y, d: m.stack([x, y], d), new_dim)
op("tril", "any:d2", lambda m, x, k: m.tril(x, k), whole(-1, 1))
op("triu", "any:d2", lambda m, x, k: m.triu(x, k), whole(-1, 1))
op("diag", "any:d1", lambda m, x, k: m.diag(x if x.dim() < 3 else x.flatten(), k), whole(-1, 1))

# ---- reductions, scans, sorting -------------------------------------------------------------------------------------------
for _name in ("sum", "amax", "amin"):
    op(_name, "num", lambda m, x, d, k, _n=_name: getattr(m, _n)(x, d if d is not None else (), k), dims, flag)
op("mean", "float", lambda m, x, d, k: m.mean(x, d, k), dims, flag)
op("prod", "num", lambda m, x: m.prod(x))
op("prod dim", "num", lambda m, x, d, k: m.prod(x, d, k), dim, flag)
for _name in ("max", "min", "median", "cummax", "cummin"):
    op(f"{_name} dim", "num", lambda m, x, d, _n=_name: getattr(m, _n)(x, d)[0], dim)
op("kthvalue", "num", lambda m, x, d: m.kthvalue(x, 1, d)[0].detach(), dim)  # which of equals, it does not say
op("topk", "float", lambda m, x, d: m.topk(x, 1, d)[0].detach(), dim)
op("sort", "num", lambda m, x, d, k: m.sort(x, dim=d, descending=k, stable=True)[0], dim, flag)
op("argsort", "num", lambda m, x, d: m.argsort(x, dim=d, stable=True), dim)
for _name in ("argmax", "argmin"):
    op(_name, "num", lambda m, x, d, k, _n=_name: getattr(m, _n)(x, d, k), dim, flag)
for _name in ("any", "all"):
    op(_name, "any", lambda m, x, d, k, _n=_name: getattr(m, _n)(x, d, k), dim, flag)
op("cumsum", "num", lambda m, x, d: m.cumsum(x, d), dim)
op("cumprod", "num", lambda m, x, d: m.cumprod(x, d), dim)
op("logsumexp", "float", lambda m, x, d: m.logsumexp(x, d), dim)
op("softmax", "float", lambda m, x, d: m.softmax(x, d), dim)
op("log_softmax", "float", lambda m, x, d: m.nn.functional.log_softmax(x, d), dim)
op("var", "float", lambda m, x, d: m.var(x, d, correction=0), dim)
op("nansum", "float", lambda m, x: m.nansum(x))
op("norm", "float", lambda m, x: (x * x + 1).sum().sqrt())
op("count_nonzero", "any", lambda m, x, d: m.count_nonzero(x, d), dim)

# ---- products ----------------------------------------------------------------------------------------------------------------
op("matmul", "float:d1 float:inner", lambda m, x, y: x @ y)
op("outer", "float:d1 float:d1", lambda m, x, y: m.outer(x.flatten(), y.flatten()))
op("vector @ batch", "float:d2 float:d2", lambda m, x, y: x.select(0, 0).flatten()[:1] @ y.flatten()[:2].reshape(1, -1))

# ---- indexing ------------------------------------------------------------------------------------------------------------------
op("gather", "any", lambda m, x, d: m.gather(x, d, m.zeros_like(x, dtype=m.int64)), dim)
op(
    "index_select",
    "any",
    lambda m, x, p: m.index_select(x, 0, m.tensor([abs(i) % x.shape[0] for i in p], dtype=m.int64)),
    picks,
)
op("index list", "any:d1", lambda m, x, p: x[p], picks)
op("index mask", "num:d1", lambda m, x: x[x > 0])
op("take", "any", lambda m, x, p: m.take(x, m.tensor([0] * len(p), dtype=m.int64)), picks)
op("masked_fill", "any", lambda m, x, k: x.masked_fill(x != 0, k), number)
op("masked_fill_", "any bool:fits", lambda m, x, c, k: x.masked_fill_(c, k), number)
op("masked_scatter_", "float float:like", lambda m, x, y: x.masked_scatter_(x > 0, y.clone()))
op(
    "index_fill_",
    "any:d1",
    lambda m, x, p, k: x.index_fill_(0, m.tensor([abs(i) % x.shape[0] for i in p], dtype=m.int64), k),
    picks,
    number,
)
op("index_add_", "num:d1", lambda m, x, p: x.index_add_(0, m.tensor(p), x[p].clone()), distinct)
op("index_copy_", "num:d1", lambda m, x, p: x.index_copy_(0, m.tensor(p), x[p].flip(0)), distinct)
op("scatter_", "num", lambda m, x, d, k: x.scatter_(d, m.zeros_like(x, dtype=m.int64), k), dim, number)
op(
    "scatter_add_",
    "float float:like",
    lambda m, x, y, d: x.scatter_add_(d, m.zeros_like(x, dtype=m.int64), y.clone()),
    dim,
)


def _like(x: Any, y: Any) -> Any:
    """``y`` without its history where ``x`` cannot have one."""
    return y if x.is_floating_point() else y.detach()


# ---- writes -------------------------------------------------------------------------------------------------------------------
op("fill_", "any", lambda m, x, k: x.fill_(k), number)
op("fill_ number", "any", lambda m, x, k: x.fill_(k), one_of(0.1, 2, True, 300, -1))
op("zero_", "any", lambda m, x: x.zero_())
op("copy_", "any any:fits", lambda m, x, y: x.copy_(_like(x, y)))
op("set number", "any", lambda m, x, i, k: x.__setitem__(i, k), at, number)
op("set slice", "any any", lambda m, x, y, i: x.__setitem__(i, y.detach().flatten()[0]), at)
op("set list", "any:d1", lambda m, x, p, k: x.__setitem__(p, k), picks, number)
op("set mask", "num", lambda m, x, k: x.__setitem__(x > 0, k), number)
op("set all", "any any:fits", lambda m, x, y: x.__setitem__(slice(None) if x.dim() else Ellipsis, _like(x, y)))
op("tril_", "num:d2", lambda m, x, k: x.tril_(k), whole(-1, 1))
