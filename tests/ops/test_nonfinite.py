"""NaN and infinities go where PyTorch lets them go: one bad number among the inputs or the cotangents of an operation.

Each row of the tables is a function of a namespace (funcnn or torch) and tensors. Values and gradients must be NaN, +inf
and -inf in the same places as PyTorch's, and agree elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import funcnn
from funcnn.core import tree

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel

BAD = [np.nan, np.inf, -np.inf]
IMAGE = (2, 3, 6, 7)


def f(name: str, **options: Any) -> Callable:
    """The function ``nn.functional.name`` with these options."""
    return lambda lib, *tensors: getattr(lib.nn.functional, name)(*tensors, **options)


def conv(name: str, *options: Any) -> Callable:
    """A convolution with bias; options: stride, padding, and so on by position."""
    return lambda lib, *tensors: getattr(lib.nn.functional, name)(*tensors, *options)


def norm(name: str, *args: Any, **options: Any) -> Callable:
    """A normalization with weight and bias, or those that it has, after some arguments."""
    return lambda lib, x, *affine: getattr(lib.nn.functional, name)(x, *args, *affine, **options)


def batch_norm(training: bool) -> Callable:
    """Batch normalization with running statistics of 0 and 1."""

    def run(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
        mean, var = lib.zeros(3, dtype=x.dtype), lib.ones(3, dtype=x.dtype)
        return lib.nn.functional.batch_norm(x, mean, var, weight, bias, training)

    return run


def entropy(lib: Any, x: Any) -> Any:
    """Cross-entropy with classes, one of them ignored."""
    return lib.nn.functional.cross_entropy(x, lib.tensor([1, 0, -100, 4]), reduction="sum")


def embedding(lib: Any, table: Any) -> Any:
    """Rows of a table, one of them twice."""
    return lib.nn.functional.embedding(lib.tensor([[3, 1], [0, 3]]), table)


def attention(**options: Any) -> Callable:
    """Scaled dot product attention; a fourth tensor is the mask."""
    return lambda lib, *tensors: lib.nn.functional.scaled_dot_product_attention(*tensors, **options)


def recurrent(name: str) -> Callable:
    """A recurrent layer over a sequence from given states."""

    def run(lib: Any, x: Any, *rest: Any) -> Any:
        *state, w, u, b, c = rest
        first = tuple(state) if name == "lstm" else state[0]
        return getattr(lib, name)(x, first, [w, u, b, c], True, 1, 0.0, False, False, False)

    return run


def gates(n: int, states: int = 1) -> list[tuple]:
    """The shapes of a recurrent layer's input, states and parameters."""
    return [(3, 2, 4), *[(1, 2, 5)] * states, (5 * n, 4), (5 * n, 5), (5 * n,), (5 * n,)]


Q, PLACES = (1, 2, 5, 4), (2, 3, 4, 2)
ROWS: dict[str, tuple[Callable, list[tuple]]] = {
    "conv1d": (conv("conv1d", 2, 1), [(2, 3, 9), (4, 3, 3), (4,)]),
    "conv2d": (conv("conv2d", 2, 1), [IMAGE, (4, 3, 3, 3), (4,)]),
    "conv2d, Winograd": (conv("conv2d", 1, 1), [(2, 16, 7, 9), (16, 16, 3, 3), (16,)]),
    "conv2d, 1 x 1": (conv("conv2d"), [IMAGE, (4, 3, 1, 1), (4,)]),
    "conv2d, dilated": (conv("conv2d", 1, 2, 2), [IMAGE, (4, 3, 3, 3), (4,)]),
    "conv2d, groups": (conv("conv2d", 1, 0, 1, 2), [(2, 4, 6, 7), (6, 2, 2, 3), (6,)]),
    "conv2d, depthwise": (conv("conv2d", 1, 1, 1, 8), [(2, 8, 6, 7), (8, 1, 3, 3), (8,)]),
    "conv3d": (conv("conv3d", 2), [(1, 2, 4, 5, 5), (3, 2, 3, 3, 3), (3,)]),
    "conv_transpose1d": (conv("conv_transpose1d", 2), [(2, 3, 6), (3, 4, 4), (4,)]),
    "conv_transpose2d": (conv("conv_transpose2d", 2, 1, 1), [IMAGE, (3, 4, 3, 3), (4,)]),
    "max_pool2d": (f("max_pool2d", kernel_size=3, stride=2, padding=1), [IMAGE]),
    "max_pool1d": (f("max_pool1d", kernel_size=2), [(2, 3, 40)]),
    "avg_pool2d": (f("avg_pool2d", kernel_size=3, stride=2, padding=1), [IMAGE]),
    "avg_pool3d": (f("avg_pool3d", kernel_size=2), [(1, 2, 4, 4, 5)]),
    "adaptive_avg_pool2d": (f("adaptive_avg_pool2d", output_size=(1, 1)), [IMAGE]),
    "adaptive_avg_pool2d, 4 x 3": (f("adaptive_avg_pool2d", output_size=(4, 3)), [IMAGE]),
    "adaptive_max_pool2d": (f("adaptive_max_pool2d", output_size=(4, 3)), [IMAGE]),
    "lp_pool2d": (f("lp_pool2d", norm_type=2, kernel_size=2), [IMAGE]),
    "batch_norm": (batch_norm(True), [IMAGE, (3,), (3,)]),
    "batch_norm, evaluation": (batch_norm(False), [IMAGE, (3,), (3,)]),
    "layer_norm": (norm("layer_norm", (7,)), [IMAGE, (7,), (7,)]),
    "rms_norm": (norm("rms_norm", (7,)), [IMAGE, (7,)]),
    "group_norm": (norm("group_norm", 2), [(2, 4, 3, 5), (4,), (4,)]),
    "instance_norm": (norm("instance_norm", None, None), [IMAGE, (3,), (3,)]),
    "local_response_norm": (f("local_response_norm", size=3), [(2, 6, 4)]),
    "softmax": (f("softmax", dim=1), [(4, 9)]),
    "softmax over channels": (f("softmax", dim=1), [IMAGE]),
    "log_softmax": (f("log_softmax", dim=1), [(4, 9)]),
    "log_softmax over channels": (f("log_softmax", dim=1), [IMAGE]),
    "logsumexp": (lambda lib, x: lib.logsumexp(x, 1), [(4, 9)]),
    "cross_entropy": (entropy, [(4, 5)]),
    "lstm": (recurrent("lstm"), gates(4, 2)),
    "gru": (recurrent("gru"), gates(3)),
    "rnn_tanh": (recurrent("rnn_tanh"), gates(1)),
    "rnn_relu": (recurrent("rnn_relu"), gates(1)),
    "attention": (attention(), [Q, Q, Q]),
    "attention, causal": (attention(is_causal=True), [Q, Q, Q]),
    "attention, masked": (attention(), [Q, Q, Q, (5, 5)]),
    "embedding": (embedding, [(5, 4)]),
    "interpolate, nearest": (f("interpolate", scale_factor=2), [IMAGE]),
    "interpolate, bilinear": (f("interpolate", size=(9, 5), mode="bilinear"), [IMAGE]),
    "interpolate, bicubic": (f("interpolate", size=(9, 5), mode="bicubic"), [IMAGE]),
    "interpolate, trilinear": (f("interpolate", size=(3, 4, 2), mode="trilinear"), [(1, 2, 4, 3, 5)]),
    "grid_sample": (f("grid_sample", align_corners=False), [IMAGE, PLACES]),
    "grid_sample, border": (f("grid_sample", padding_mode="border", align_corners=True), [IMAGE, PLACES]),
    "grid_sample, nearest": (f("grid_sample", mode="nearest", align_corners=False), [IMAGE, PLACES]),
    "grid_sample, bicubic": (f("grid_sample", mode="bicubic", align_corners=False), [IMAGE, PLACES]),
    "unfold": (f("unfold", kernel_size=3, padding=1), [IMAGE]),
    "fold": (f("fold", output_size=(4, 5), kernel_size=2), [(2, 8, 12)]),
    "linear": (f("linear"), [(6, 9), (8, 9), (8,)]),
    "linear, large": (f("linear"), [(70, 90), (80, 90), (80,)]),
    "matmul": (lambda lib, a, b: lib.matmul(a, b), [(2, 5, 6), (2, 6, 4)]),
    "sum": (lambda lib, x: (lib.sum(x, 0), lib.sum(x, 1), lib.sum(x)), [(5, 40)]),
    "mean": (lambda lib, x: (lib.mean(x, 0), lib.mean(x, 1)), [(5, 40)]),
    "prod": (lambda lib, x: (lib.prod(x, 0), lib.prod(x, 1)), [(4, 6)]),
    "var": (lambda lib, x: (lib.var(x, 0), lib.var(x, 1)), [(5, 40)]),
    "std": (lambda lib, x: (lib.std(x, 0), lib.std(x, 1)), [(5, 40)]),
    "amax": (lambda lib, x: (lib.amax(x, 0), lib.amin(x, 1)), [(5, 40)]),
    "max": (lambda lib, x: (*lib.max(x, 1), *lib.min(x, 0)), [(5, 40)]),
    "cumsum": (lambda lib, x: lib.cumsum(x, 1), [(3, 8)]),
}
CURVES = """relu gelu silu mish elu selu celu softplus leaky_relu hardswish hardsigmoid hardtanh relu6 logsigmoid softsign
    tanhshrink softshrink hardshrink""".split()
SMOOTH = """exp expm1 exp2 log log2 log10 log1p sqrt rsqrt sin cos tan sinh cosh tanh asinh acosh atanh asin acos atan
    sigmoid erf erfc erfinv reciprocal square neg abs sign floor""".split()
PAIRS = "add sub mul div maximum minimum pow logaddexp atan2 fmod remainder".split()


# PyTorch's float64 convolutions multiply weights by the zeros of the padding, oneDNN's float32 ones and ours do not.
SINGLE = [name for name in ROWS if name.startswith("conv")]
# An infinite number in a sum of products is inf or NaN by how the products are arranged: PyTorch's kernels differ too.
ARRANGED = [name for name in ROWS if "norm" in name or "attention" in name or "grid" in name]
ARRANGED += ["var", "std", "lp_pool2d"]
# PyTorch's fused kernel drops NaN scores and its plain one adds -inf to infinite ones: ours must agree with either.
CHOICES = {"attention": [nullcontext, lambda: sdpa_kernel(SDPBackend.MATH)]}
# PyTorch's rules divide by the input (prod), or by how many numbers are the largest, and NaN is none (amax).
FORWARD = ["prod", "amax"]


def both_ways(lib: Any, make: Callable, function: Callable, arrays: list[np.ndarray], spoil: Any, grads: bool) -> list:
    """A function's values, and the gradients from cotangents of which ``spoil`` makes the middle one of the first bad."""
    leaves = [make(array.copy()).requires_grad_() for array in arrays]
    outs = tree.leaves(function(lib, *leaves))
    values = [out.detach().numpy() for out in outs]
    if not grads:
        return values
    live = [out for out in outs if out.requires_grad]
    total = 0.0
    for k, out in enumerate(live):
        weights = np.random.default_rng(k).uniform(0.5, 1.5, tuple(out.shape)).astype(values[0].dtype)
        if spoil is not None and k == 0:
            weights.reshape(-1)[weights.size // 2] = spoil
        total = total + (out * make(weights)).sum()
    total.backward()
    return values + [
        np.zeros_like(a) if x.grad is None else x.grad.numpy() for a, x in zip(arrays, leaves, strict=True)
    ]


def unlike(mine: np.ndarray, theirs: np.ndarray, arranged: bool) -> str:
    """How many elements differ in kind as (ours, PyTorch's), or by more than 1e-4; nothing where none does."""
    assert mine.shape == theirs.shape
    kinds = [np.select([np.isnan(a), a == np.inf, a == -np.inf], [3, 1, 2], 0).ravel() for a in (mine, theirs)]
    if arranged:
        kinds = [np.minimum(kind, 1) for kind in kinds]
    names = ["finite", "inf", "-inf", "nan"]
    pairs = Counter((names[a], names[b]) for a, b in zip(*kinds, strict=True) if a != b)
    with np.errstate(all="ignore"):
        far = np.sum(abs(mine - theirs) > 1e-4 * (1 + abs(theirs)))
    found = [f"{count} x {pair}" for pair, count in pairs.items()] + [f"{far} are far"] * bool(far)
    return ", ".join(found)


def differences(name: str, function: Callable, arrays: list[np.ndarray], spoil: Any = None) -> list[str]:
    """Where funcnn's values and gradients are not PyTorch's."""
    grads, wanted = name not in FORWARD, [a.astype("float32") for a in arrays] if name in SINGLE else arrays
    arranged = name in ARRANGED and not any(np.isnan(a).any() for a in arrays) and not np.isnan(spoil or 0.0)
    with np.errstate(all="ignore"):
        got = both_ways(funcnn, funcnn.tensor, function, arrays, spoil, grads)
    found: list[str] = []
    for choice in CHOICES.get(name.split(",")[0], [nullcontext]):
        with choice():
            expected = both_ways(torch, torch.from_numpy, function, wanted, spoil, grads)
        pairs = enumerate(zip(got, expected, strict=True))
        found = [f"result {place}: {seen}" for place, pair in pairs if (seen := unlike(*pair, arranged))]
        if not found:
            break
    return found


def inputs(shapes: list[tuple], dtype: str) -> list[np.ndarray]:
    """Ordinary numbers."""
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.9, 0.9, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ROWS)
def test_one_bad_number(name: str, dtype: str) -> None:
    function, shapes = ROWS[name]
    found = []
    for bad in BAD:
        for place in range(len(shapes) - (PLACES in shapes)):  # PyTorch crashes where a grid is NaN
            arrays = inputs(shapes, dtype)
            arrays[place].reshape(-1)[arrays[place].size // 2] = bad
            found += [f"{bad} in input {place}: {seen}" for seen in differences(name, function, arrays)]
        spoilt = differences(name, function, inputs(shapes, dtype), bad) if name not in FORWARD else []
        found += [f"{bad} in a cotangent: {seen}" for seen in spoilt]
    assert not found, "\n" + "\n".join(found)


SATURATED = ["mish"]  # whose slope PyTorch computes as infinity times 0
POINTS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.3, -0.3, 7.0]


def check_elementwise(name: str, function: Callable, arrays: list[np.ndarray]) -> None:
    """Values as PyTorch's in float64, whose float32 has exceptions; gradients too, except where an input is NaN."""
    with np.errstate(all="ignore"):
        got = both_ways(funcnn, funcnn.tensor, function, arrays, None, True)
        expected = both_ways(torch, torch.from_numpy, function, [a.astype(float) for a in arrays], None, True)
    known = ~np.any([np.isnan(a) | (np.isinf(a) & (name in SATURATED)) for a in arrays], 0)
    found = [unlike(got[0], expected[0], False)]
    found += [unlike(mine[known], theirs[known], False) for mine, theirs in zip(got[1:], expected[1:], strict=True)]
    assert not any(found), found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [60, 1 << 20], ids=["by NumPy", "by kernels"])
@pytest.mark.parametrize("name", [*CURVES, *SMOOTH])
def test_functions_of_one(name: str, size: int, dtype: str) -> None:
    x = np.resize(np.array(POINTS, dtype), size)
    check_elementwise(name, lambda lib, x: getattr(lib.nn.functional if name in CURVES else lib, name)(x), [x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [100, 1 << 20], ids=["by NumPy", "by kernels"])
@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two(name: str, size: int, dtype: str) -> None:
    x, y = np.meshgrid(np.array(POINTS, dtype), np.array(POINTS, dtype))
    check_elementwise(name, lambda lib, x, y: getattr(lib, name)(x, y), [np.resize(a, size) for a in (x, y)])
