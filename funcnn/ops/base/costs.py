"""What operations cost by their shapes: rules of flops and bytes, which primitives declare (``Primitive.flops``, ``.bytes``).

Conventions. A multiply-add is 2 flops, whatever instruction does it; an algorithm that needs fewer multiplications
(Winograd) is charged those of the definition, so its rate may pass the machine's. Adding, comparing, dividing and square
roots are 1 flop; elementwise functions say what theirs takes, by a polynomial of single precision. Index arithmetic and moving
numbers are none. Bytes are those of every input read once and every output written once; elements repeated by broadcasting
count once, views cost nothing, and gathering reads what it gathers, not all it could have.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

EXP_FLOPS, LOG_FLOPS, TANH_FLOPS, TRIG_FLOPS, ERF_FLOPS = 16, 20, 24, 24, 30

Rule = Callable[[list, list, dict], float]  # (inputs, outputs, parameters) -> flops, or bytes


def each(flops: float) -> Rule:
    """So many flops for each number of the largest array: of reductions the input, of most others the output."""
    return lambda ins, outs, params: flops * max(a.size for a in (*ins, *outs))


def none(ins: list, outs: list, params: dict) -> float:
    return 0.0


# ---- products -----------------------------------------------------------------------------------------------------------
def convolution(ins: list, outs: list, params: dict) -> float:
    """x (N, C, *S), w (K, C/g, *A) to y (N, K, *O): each number of y sums C/g prod(A) products."""
    y, w = outs[0], ins[1]
    bias = y.size if len(ins) > 2 else 0
    return 2.0 * y.size * prod(w.shape[1:]) + bias


def convolution_input_grad(ins: list, outs: list, params: dict) -> float:
    dy, w = ins[0], ins[1]
    bias = outs[0].size if len(ins) > 2 else 0
    return 2.0 * dy.size * prod(w.shape[1:]) + bias


def convolution_weight_grad(ins: list, outs: list, params: dict) -> float:
    dy, dw = ins[1], outs[0]
    return 2.0 * dy.size * prod(dw.shape[1:])


def product(ins: list, outs: list, params: dict) -> float:
    """(..., M, L) and (..., L, N): 2 L for each number that comes out; an added bias 1."""
    bias = outs[0].size if len(ins) > 2 else 0
    return 2.0 * outs[0].size * (ins[0].shape[-1] if ins[0].shape else 1) + bias


def recurrence(gates: int, each: float) -> Rule:
    """Products (N, I) (I, gates H) and (N, H) (H, gates H) for each step, besides ``each`` flops for each number of a gate.

    Inputs begin with x (T, N, I) and the weights (gates H, I).
    """

    def rule(ins: list, outs: list, params: dict) -> float:
        (*lead, steps, n, inputs), rows = ins[0].shape, ins[1].shape[-2]
        return prod(lead) * steps * n * rows * (2.0 * (inputs + rows // gates) + each)

    return rule


def recurrence_grad(gates: int, each: float) -> Rule:
    """A product (N, gates H) (gates H, H) for each step, besides ``each`` flops for each number of a gate."""

    def rule(ins: list, outs: list, params: dict) -> float:
        *lead, steps, n, hidden = ins[0].shape
        return prod(lead) * steps * n * gates * hidden * (2.0 * hidden + each)

    return rule


def recurrence_weights(ins: list, outs: list, params: dict) -> float:
    """The gates' gradients (T N, gates H) with x (T N, I) and the states (T N, H), and their sums."""
    return ins[0].size * 2.0 * (ins[-3].shape[-1] + ins[-2].shape[-1]) + (len(ins) - 3) * ins[0].size


def twice(rule: Rule) -> Rule:
    return lambda ins, outs, params: 2.0 * rule(ins, outs, params)


def attention(first: int, products: tuple[int, int]) -> Rule:
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
def window(ins: list, outs: list, params: dict) -> float:
    """One flop for each number in each window; ``size`` is the window, else the ratio of the sizes stands for it."""
    small, large = sorted((ins[0].size, outs[0].size))
    size = params.get("size")
    return float(small * prod(size)) if isinstance(size, tuple) and "stride" in params else float(large)


def resized(ins: list, outs: list, params: dict) -> float:
    """Along each axis in turn a weighted sum of 2 (linear) or 4 (cubic) numbers."""
    taps = {"nearest": 0, "linear": 2, "cubic": 4}
    sums = sum(next((n for kind, n in taps.items() if kind in str(axis[0])), 0) for axis in params.get("axes", ()))
    return 2.0 * sums * max(ins[0].size, outs[0].size)


def sampled(ins: list, outs: list, params: dict) -> float:
    """A weighted sum of ``taps`` numbers in each dimension of the grid, for each output; the other way for a gradient."""
    grid = ins[-1]
    channels = ins[0].shape[1]
    return 2.0 * grid.size / grid.shape[-1] * channels * params.get("taps", 2) ** grid.shape[-1]


def sorting(ins: list, outs: list, params: dict) -> float:
    """A sort: n log2 n comparisons along the axis."""
    axis = params.get("dim", params.get("axis", -1))
    n = ins[0].shape[axis] if ins[0].shape and isinstance(axis, int) else max(ins[0].size, 1)
    return float(ins[0].size * max(1, n - 1).bit_length())


def decomposition(ins: list, outs: list, params: dict) -> float:
    """A thin singular value decomposition of (..., M, N): 6 M N K + 20 K^3, K the smaller side (Golub and Van Loan)."""
    *lead, m, n = ins[0].shape
    k = min(m, n)
    return prod(lead) * (6.0 * m * n * k + 20.0 * k**3)


# ---- bytes --------------------------------------------------------------------------------------------------------------
def gathered(ins: list, outs: list, params: dict) -> float:
    """As many bytes read as written, and the indices."""
    return 2.0 * outs[0].nbytes + sum(a.nbytes for a in ins[1:])
