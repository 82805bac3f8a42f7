"""What operations cost by their shapes: flops and bytes, one rule a family.

The costs of a primitive are its own: those that it declares (``Primitive(flops=..., bytes=...)``), or, for the primitives of
``funcnn.ops``, those of the tables below, where each has a rule. Somebody else's primitive of the same name has nothing to
do with them: without a declaration it is charged 1 flop for each element of its first output, when it handles floating-point
numbers.

Conventions. A multiply-add is 2 flops, whatever instruction does it; an algorithm that needs fewer multiplications
(Winograd) is charged those of the definition, so its rate may pass the machine's. Adding, comparing, dividing and square
roots are 1 flop; elementwise functions say what theirs takes, by a polynomial of single precision. Index arithmetic and moving
numbers are none. Bytes are those of every input read once and every output written once; numbers repeated by broadcasting
count once, views cost nothing, and gathering reads what it gathers, not all it could have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.core.primitive import Primitive
from funcnn.kernels.cpu.build.facts import NO_FACTS, evaluated, given_by_name
from funcnn.ops.elementwise.math import EXP_FLOPS, LOG_FLOPS, TANH_FLOPS, TRIG_FLOPS


class Array(NamedTuple):
    """What a rule knows of an array; ``nbytes`` without what broadcasting repeats."""

    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int

    @property
    def size(self) -> int:
        """How many numbers."""
        return prod(self.shape)


def facts(arrays: list) -> tuple:
    """Shape, dtype and bytes of the first, of the second and so on, in one plain tuple."""
    found: list = []
    for a in arrays:
        found += (a.shape, a.dtype, a.nbytes if 0 not in a.strides else _real(a))
    return tuple(found)


def arrays(found: tuple) -> list[Array]:
    """What ``facts`` were noted of."""
    return [Array(*found[i : i + 3]) for i in range(0, len(found), 3)]


def _real(array: np.ndarray) -> int:
    """The bytes without what broadcasting repeats."""
    real = prod([n for n, stride in zip(array.shape, array.strides, strict=True) if stride])
    return real * array.itemsize if array.size else 0


Rule = Callable[[list, list, dict], float]  # (inputs, outputs, parameters) -> flops, or bytes


def _each(flops: float) -> Rule:
    """So many flops for each number of the largest array: of reductions the input, of most others the output."""
    return lambda ins, outs, params: flops * max(a.size for a in (*ins, *outs))


def _none(ins: list, outs: list, params: dict) -> float:
    return 0.0


# ---- products -----------------------------------------------------------------------------------------------------------
def _conv(ins: list, outs: list, params: dict) -> float:
    """x (N, C, *S), w (K, C/g, *A) to y (N, K, *O): each number of y sums C/g prod(A) products."""
    y, w = outs[0], ins[1]
    bias = y.size if len(ins) > 2 else 0
    return 2.0 * y.size * prod(w.shape[1:]) + bias


def _conv_input_grad(ins: list, outs: list, params: dict) -> float:
    dy, w = ins[0], ins[1]
    bias = outs[0].size if len(ins) > 2 else 0
    return 2.0 * dy.size * prod(w.shape[1:]) + bias


def _conv_weight_grad(ins: list, outs: list, params: dict) -> float:
    dy, dw = ins[1], outs[0]
    return 2.0 * dy.size * prod(dw.shape[1:])


def _matmul(ins: list, outs: list, params: dict) -> float:
    """(..., M, L) and (..., L, N): 2 L for each number that comes out; an added bias 1."""
    bias = outs[0].size if len(ins) > 2 else 0
    return 2.0 * outs[0].size * (ins[0].shape[-1] if ins[0].shape else 1) + bias


def _recurrent(gates: int, each: float) -> Rule:
    """Products (N, I) (I, gates H) and (N, H) (H, gates H) for each step, besides ``each`` flops for each number of a gate.

    Inputs begin with x (T, N, I) and the weights (gates H, I).
    """

    def rule(ins: list, outs: list, params: dict) -> float:
        (*lead, steps, n, inputs), rows = ins[0].shape, ins[1].shape[-2]
        return prod(lead) * steps * n * rows * (2.0 * (inputs + rows // gates) + each)

    return rule


def _recurrent_grad(gates: int, each: float) -> Rule:
    """A product (N, gates H) (gates H, H) for each step, besides ``each`` flops for each number of a gate."""

    def rule(ins: list, outs: list, params: dict) -> float:
        *lead, steps, n, hidden = ins[0].shape
        return prod(lead) * steps * n * gates * hidden * (2.0 * hidden + each)

    return rule


def _recurrent_weights(ins: list, outs: list, params: dict) -> float:
    """The gates' gradients (T N, gates H) with x (T N, I) and the states (T N, H), and their sums."""
    return ins[0].size * 2.0 * (ins[-3].shape[-1] + ins[-2].shape[-1]) + (len(ins) - 3) * ins[0].size


def _twice(rule: Rule) -> Rule:
    return lambda ins, outs, params: 2.0 * rule(ins, outs, params)


def _attention(first: int, products: tuple[int, int]) -> Rule:
    """q (..., L, E), k (..., S, E), v (..., S, V), from input ``first`` on: products of 2 L S E and of 2 L S V, and softmax.

    Causal attention is charged the scores that it uses.
    """

    def rule(ins: list, outs: list, params: dict) -> float:
        q, k, v = ins[first : first + 3]
        (*lead, length, width), across = q.shape, k.shape[-2]
        scores = sum(min(i + 1, across) for i in range(length)) if params.get("causal") else length * across
        return prod(lead) * scores * (2.0 * (products[0] * width + products[1] * v.shape[-1]) + EXP_FLOPS + 4)

    return rule


# ---- windows ------------------------------------------------------------------------------------------------------------
def _window(ins: list, outs: list, params: dict) -> float:
    """One flop for each number in each window; ``size`` is the window, else the ratio of the sizes stands for it."""
    small, large = sorted((ins[0].size, outs[0].size))
    size = params.get("size")
    return float(small * prod(size)) if isinstance(size, tuple) and "stride" in params else float(large)


def _resized(ins: list, outs: list, params: dict) -> float:
    """Along each axis in turn a weighted sum of 2 (linear) or 4 (cubic) numbers."""
    taps = {"nearest": 0, "linear": 2, "cubic": 4}
    sums = sum(next((n for kind, n in taps.items() if kind in str(axis[0])), 0) for axis in params.get("axes", ()))
    return 2.0 * sums * max(ins[0].size, outs[0].size)


def _sampled(ins: list, outs: list, params: dict) -> float:
    """A weighted sum of ``taps`` numbers in each dimension of the grid, for each output; the other way for a gradient."""
    grid = ins[-1]
    channels = ins[0].shape[1]
    return 2.0 * grid.size / grid.shape[-1] * channels * params.get("taps", 2) ** grid.shape[-1]


def _logarithm(ins: list, outs: list, params: dict) -> float:
    """A sort: n log2 n comparisons along the axis."""
    axis = params.get("dim", params.get("axis", -1))
    n = ins[0].shape[axis] if ins[0].shape and isinstance(axis, int) else max(ins[0].size, 1)
    return float(ins[0].size * max(1, n - 1).bit_length())


def _decomposed(ins: list, outs: list, params: dict) -> float:
    """A thin singular value decomposition of (..., M, N): 6 M N K + 20 K^3, K the smaller side (Golub and Van Loan)."""
    *lead, m, n = ins[0].shape
    k = min(m, n)
    return prod(lead) * (6.0 * m * n * k + 20.0 * k**3)


FLOPS: dict[str, Rule] = {
    **dict.fromkeys(
        ("slice_put", "slice_place", "diagonal_put", "cat", "flip", "pad", "pad_sources", "index", "index_put", "gather", "clone",
         "to", "embedding", "one_hot", "where", "max_unpool", "masked_scatter", "masked_take", "windows_hold", "full", "eye",
         "iota", "random_split", "random_fold_in", "random_bits", "im2col", "bernoulli_slope", "interpolate_bytes"),
        _none,
    ),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "topk", "scatter", "embedding_grad", "fold", "windows_sum",
                     "adaptive_avg_pool", "adaptive_avg_pool_grad", "adaptive_max_pool", "fractional_max_pool",
                     "pool_scatter", "number_over"), _each(1)),
    **dict.fromkeys(("affine_scan", "affine_line", "extremum_grad", "random_uniform", "dropout"), _each(2)),
    "lerp": _each(3), "moments": _each(4), "running_statistics": _each(4),
    **dict.fromkeys(("bernoulli", "multinomial", "normal"), _each(2)),  # their parameters are compared, and no more
    "random_normal": _each(LOG_FLOPS + TRIG_FLOPS + 4),
    "conv": _conv, "conv_input_grad": _conv_input_grad, "conv_weight_grad": _conv_weight_grad,
    **dict.fromkeys(("matmul", "linear", "linear_relu"), _matmul), "svd": _decomposed,
    "argsort": _logarithm, "logcumsumexp": _each(LOG_FLOPS + EXP_FLOPS),
    "max_pool": _window, "avg_pool": _window, "avg_pool_grad": _window, "pool_gather": _none,
    **{f"{norm}_norm": _each(7) for norm in ("batch", "group", "layer", "rms", "local_response")},
    **{f"{norm}_norm_grad": _each(11) for norm in ("batch", "group", "layer", "rms", "local_response")},
    "batch_norm_evaluation": _each(7),
    "softmax": _each(EXP_FLOPS + 4), "log_softmax": _each(EXP_FLOPS + 4), "softmax_grad": _each(4),
    "log_softmax_grad": _each(EXP_FLOPS + 3), "logsumexp": _each(EXP_FLOPS + 2), "logsumexp_grad": _each(EXP_FLOPS + 2),
    "cross_entropy": _each(EXP_FLOPS + 4), "cross_entropy_grad": _each(EXP_FLOPS + 3),
    "nll_loss": lambda ins, outs, params: float(ins[1].size),
    "binary_cross_entropy": _each(2 * LOG_FLOPS + 4),
    "lstm": _recurrent(4, EXP_FLOPS + 4), "gru": _recurrent(3, EXP_FLOPS + 4), "rnn": _recurrent(1, TANH_FLOPS + 2),
    "lstm_grad": _recurrent_grad(4, 8), "gru_grad": _recurrent_grad(3, 8), "rnn_grad": _recurrent_grad(1, 4),
    "recurrent_weights": _recurrent_weights,
    "scaled_dot_product_attention": _attention(0, (1, 1)), "scaled_dot_product_attention_grad": _attention(1, (3, 2)),
    "interpolate": _resized, "grid_sample": _sampled, "grid_sample_image_grad": _sampled,
    "grid_sample_grid_grad": _twice(_sampled),
}  # fmt: skip


def is_ours(prim: Primitive) -> bool:
    """Whether a module of ``funcnn.ops`` declares a primitive; the tables' names mean these."""
    rule = prim.shape
    while isinstance(rule, partial):
        rule = rule.func
    home = getattr(rule, "__module__", "")
    return home.startswith("funcnn.ops.") and not home.startswith("funcnn.ops.custom.")  # what users declare is theirs


def of(prim: Primitive, ins: list[Array], outs: list[Array], params: dict) -> tuple[float, float]:
    """Returns the flops and the bytes of one application; a rule that raises costs a warning, and counts as none."""
    if prim.view is not None:
        return 0.0, 0.0
    rules = (prim.flops or partial(flops, prim), prim.bytes or partial(moved, prim))
    found = []
    for rule in rules:
        try:
            found.append(float(rule(ins, outs, params)))
        except Exception as error:
            warnings.warn(
                f"profile: the cost rule of {prim.name} raised {type(error).__name__}: {error}; it is charged nothing",
                stacklevel=2,
            )
            found.append(0.0)
    return found[0], found[1]


def flops(prim: Primitive, ins: list, outs: list, params: dict) -> float:
    """Returns the flops of a primitive that declares none. Raises ``LookupError`` for one of ours without a rule."""
    if not is_ours(prim):
        return float(outs[0].size) if outs and any(a.dtype.kind == "f" for a in (*ins, *outs)) else 0.0
    if prim.name not in FLOPS:
        raise LookupError("profiler.costs.FLOPS has no rule of that name")
    return FLOPS[prim.name](ins, outs, params)


# ---- bytes --------------------------------------------------------------------------------------------------------------
def _gathered(ins: list, outs: list, params: dict) -> float:
    """As many bytes read as written, and the indices."""
    return 2.0 * outs[0].nbytes + sum(a.nbytes for a in ins[1:])


BYTES: dict[str, Rule] = {"index": _gathered, "gather": _gathered, "embedding": _gathered, "pool_gather": _gathered}


def moved(prim: Primitive, ins: list, outs: list, params: dict) -> float:
    """Returns the bytes that a primitive reads and writes."""
    rule = BYTES.get(prim.name) if is_ours(prim) else None
    return float(sum(a.nbytes for a in (*ins, *outs))) if rule is None else rule(ins, outs, params)


# ---- kernels -----------------------------------------------------------------------------------------------------------
MOVERS = ("spread", "pack", "copy", "fill", "gather")  # kernels whose names begin so only move numbers


def of_kernel(kernel: Any, args: tuple) -> float:
    """The bytes that a kernel's own arguments tell: of its arrays, scratch included, and behind its tables of addresses."""
    tables = getattr(kernel, "facts", NO_FACTS).tables
    if not tables:
        return kernel_bytes(args)
    named = given_by_name(kernel, args)
    rows = [row for rule in tables.values() for row in evaluated(rule, named)]
    behind = sum(np.dtype(row.dtype).itemsize * sum(row.touched) for row in rows)
    return float(behind) + kernel_bytes(tuple(value for name, value in named.items() if name not in tables))


def kernel_bytes(args: tuple) -> float:
    """The bytes of a kernel's array arguments, scratch included, each array once."""
    total, stack, met = 0, list(args), set()
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, np.ndarray) and id(item) not in met:
            met.add(id(item))
            total += item.nbytes
    return float(total)
