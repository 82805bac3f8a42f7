"""Small programs that between them call every CPU kernel, forward and backward; a test checks that none is left out.

Each takes a dtype. Sizes are the smallest at which an operation prefers its kernel to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim
from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.reduce.runs import Scalars
from funcnn.kernels.cpu.vector import peak as limits
from funcnn.ops.base.registry import OPERATIONS

DTYPES = ("float32", "float64")


def _leaf(dtype: str, *shape: int) -> Any:
    return fn.rand(*shape, dtype=getattr(fn, dtype)).mul(0.8).add(0.1).requires_grad_()


def _both_ways(y: Any) -> list:
    """Run backward from everything that is differentiable, with cotangents that are not all ones; the numbers it made."""
    outs = [t for t in fn.tree.leaves(y) if isinstance(t, fn.Tensor)]
    live = [t for t in outs if t.requires_grad]
    total = sum(((t * fn.rand_like(t)).sum() for t in live[1:]), (live[0] * fn.rand_like(live[0])).sum())
    total.backward()
    return outs


def _of(function: Callable, *shapes: tuple) -> Callable[[str], list]:
    """A program that runs a function of random tensors forward and backward; its results and gradients."""

    def program(dtype: str) -> list:
        fn.manual_seed(0)
        leaves = [_leaf(dtype, *shape) for shape in shapes]
        outs = _both_ways(function(*leaves))
        return [t.detach().numpy() for t in outs] + [t.grad.numpy() for t in leaves if t.grad is not None]

    return program


def _by(name: str, program: Callable[[str], list]) -> Callable[[str], list]:
    """A program whose operations are computed by the implementation of a name where it applies."""

    def preferring(dtype: str) -> list:
        with fn.prefer(name):
            return program(dtype)

    return preferring


def _module(make: Callable, *shapes: tuple) -> Callable[[str], list]:
    """The same for a module and its parameters."""

    def program(dtype: str) -> list:
        fn.manual_seed(0)
        module = make().to(getattr(fn, dtype))
        leaves = [_leaf(dtype, *shape) for shape in shapes]
        outs = _both_ways(module(*leaves))
        return [t.detach().numpy() for t in outs] + [p.grad.numpy() for p in module.parameters()]

    return program


def _trained(make: Callable) -> Callable[[str], list]:
    """Two steps of an optimizer."""

    def program(dtype: str) -> list:
        fn.manual_seed(0)
        weights = [nn.Parameter(_leaf(dtype, 3, 4).detach()), nn.Parameter(_leaf(dtype, 5).detach())]
        optimizer = make(weights)
        for _ in range(2):
            for w in weights:
                w.grad = fn.rand_like(w)
            optimizer.step()
        return [w.detach().numpy() for w in weights]

    return program


ELEMENTS_FOR_KERNEL = 1 << 20  # elements from which elementwise operations and reductions leave NumPy
CURVES: list[Callable] = [
    F.relu, F.gelu, F.silu, F.mish, F.elu, F.selu, F.celu, F.softplus, F.leaky_relu, F.hardswish, F.hardsigmoid, F.hardtanh,
    F.relu6, F.logsigmoid, F.softsign, F.tanhshrink, F.softshrink, F.hardshrink,
]  # fmt: skip
OTHER_REDUCTIONS = (fn.var, fn.std, fn.logsumexp)


def _differentiable() -> list[tuple[Callable, Any]]:
    """Lists the differentiable operations that are declared by scalar functions, and those."""
    made = [(operation.function, getattr(operation.function, "primitive", None)) for operation in OPERATIONS.values()]
    return [(function, prim.scalar) for function, prim in made if prim is not None and prim.vjp is not None]


def _declared(inputs: int) -> list[Callable]:
    """Lists the elementwise operations of so many inputs."""
    elementwise = [(function, scalar) for function, scalar in _differentiable() if callable(scalar)]
    return [function for function, scalar in elementwise if len(signature(scalar).parameters) == inputs]


def _reductions() -> list[Callable]:
    """Lists the reductions."""
    return [function for function, scalar in _differentiable() if isinstance(scalar, Scalars)] + list(OTHER_REDUCTIONS)


def _elementwise(functions: list[Callable], inputs: int = 1) -> Callable[[str], list]:
    """A program that runs functions of so many large arrays."""

    def program(dtype: str) -> list:
        leaves = [_leaf(dtype, ELEMENTS_FOR_KERNEL) for _ in range(inputs)]
        return [t.detach().numpy() for function in functions for t in _both_ways(function(*leaves))]

    return program


def _scalars(dtype: str) -> list:
    x = _leaf(dtype, ELEMENTS_FOR_KERNEL)
    made = [
        x + 1,
        1 - x,
        x * 2,
        x / 3,
        2 / x,
        x**2,
        x**3,
        x**0.5,
        2**x,
        fn.clamp(x, 0.2, 0.7),
        fn.maximum(x, fn.zeros_like(x)),
    ]
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _vectors(dtype: str) -> list:
    x, row, column = (
        _leaf(dtype, 1024, ELEMENTS_FOR_KERNEL >> 10),
        _leaf(dtype, ELEMENTS_FOR_KERNEL >> 10),
        _leaf(dtype, 1024, 1),
    )
    made = [x + row, x - row, x * row, x / row, x * column, row + x, fn.where(x > row, x, 0.5), x.t().contiguous()]
    made += [F.prelu(x, row), F.prelu(x, row[:1]), column.expand(x.shape).contiguous()]
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _reduced(dtype: str) -> list:
    x = _leaf(dtype, 16, 1 << 8, 1 << 8)
    made = [reduced(x, dim) for reduced in _reductions() for dim in ((0,), (1,), (2,), (0, 2))]
    made += [fn.sum(x), fn.mean(x), fn.norm(x, dim=1), fn.amax(x, (0, 1, 2)), fn.cumsum(x, 2), fn.cumprod(x, 1)]
    made += [fn.sum(x.permute(2, 1, 0), 1), fn.topk(x, 5, 2), fn.topk(x, 2, 0)]
    return [
        fn.argmax(x, 1).numpy(),
        fn.count_nonzero(x, 1).numpy(),
        *(t.detach().numpy() for y in made for t in _both_ways(y)),
    ]


def _random(dtype: str) -> list:
    kind = getattr(fn, dtype)
    fn.manual_seed(0)
    drawn = [
        fn.rand(ELEMENTS_FOR_KERNEL, dtype=kind),
        fn.randn(ELEMENTS_FOR_KERNEL, dtype=kind),
        fn.rand(7, dtype=kind),
        fn.randn(7, dtype=kind),
    ]
    dropped = F.dropout(_leaf(dtype, ELEMENTS_FOR_KERNEL), 0.3), F.dropout(_leaf(dtype, 30), 0.3)
    more = [fn.randint(0, 9, (50,)), fn.randint(0, 9, (ELEMENTS_FOR_KERNEL,)), fn.randperm(40), fn.bernoulli(drawn[2])]
    return [t.numpy() for t in drawn + more] + [t.detach().numpy() for y in dropped for t in _both_ways(y)]


def _moved(dtype: str) -> list:
    """Copies of strided regions of elements of every size, and keys made of keys."""
    made, keys = [], fn.random.split(fn.random.key(0), 3)
    with fn.prefer("kernel"):
        for kind in (dtype, "uint8" if dtype == "float32" else "float16"):
            x = fn.ones(3, 4, dtype=getattr(fn, kind))
            made += [fn.flip(x, (0,)), F.pad(x, (1, 1)), x.clone(), fn.vmap(fn.random.fold_in)(keys, fn.arange(3))]
        made.append(fn.jit(lambda: fn.arange(3) if dtype == "float32" else fn.arange(0.0, 3.0, dtype=fn.float64))())
    return [t.numpy() for t in made]


def _class_losses(dtype: str) -> list:
    target = fn.tensor([0, 2, 1, -100, 3])
    x = _leaf(dtype, 5, 4)
    spatial, places = _leaf(dtype, 2, 4, 3), fn.tensor([[0, 1, 2], [3, 2, 1]])
    made = [
        F.cross_entropy(x, target), F.cross_entropy(x, target, label_smoothing=0.1), F.cross_entropy(spatial, places),
        F.nll_loss(F.log_softmax(x, 1), target), F.softmax(x, 1), F.softmax(spatial, 1), F.log_softmax(spatial, 1),
        fn.logsumexp(x, 1), fn.logsumexp(spatial, 1),
    ]  # fmt: skip
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _pooled(x: Any) -> tuple:
    with fn.no_grad():
        values = F.max_pool2d(x, 3, 2, 1)
    return F.max_pool2d(x, 3, 2, 1), values, F.avg_pool2d(x, 3, 2, 1)


def _large_planes(dtype: str) -> list:
    """Planes for which tables do not pay: their rows, and windows one by one."""
    made = []
    for way in ("rows", "windows"):
        with fn.prefer(way):
            made += _of(_pooled, (2, 3, 8, 8))(dtype)
    return made


def _unpooled(dtype: str) -> list:
    x = _leaf(dtype, 2, 3, 8, 8)
    y, where = F.max_pool2d(x, 2, return_indices=True)
    made = [F.max_unpool2d(y, where, 2), F.adaptive_max_pool2d(x, 3), F.fractional_max_pool2d(x, 2, output_size=3)]
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _embedded(dtype: str) -> list:
    table, index = _leaf(dtype, 20, 8), fn.tensor([[1, 2, 1], [0, 19, 3]])
    made = [F.embedding(index, table), F.embedding(index, table, padding_idx=1)]
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _indexed(dtype: str) -> list:
    x, i, j = _leaf(dtype, 6, 9), fn.tensor([0, 5, 5]), fn.tensor([1, 8, 0])
    mask = fn.tensor(np.arange(54).reshape(6, 9) % 2 == 0)
    across = fn.tensor(np.arange(54).reshape(6, 9) % 7)
    made = [
        x[i],
        x[i, j],
        fn.gather(x, 1, across),
        x[mask],
        x.masked_scatter(mask, x.reshape(-1)),
        fn.index_put(x, (i,), x[:3]),
    ]
    same = [t.detach().numpy() for y in made for t in _both_ways(y)]
    still, short = x.detach(), x.detach().half()
    same += [
        still.scatter(1, across, still, reduce="multiply").numpy(),
        short[i].numpy(),
        fn.zeros(3, 0)[i[:1]].numpy(),
    ]
    same += [fn.index_put(mask, (i,), mask[:3], accumulate=True).numpy()]
    same += [mask.scatter(1, across, mask, reduce="multiply").numpy(), F.one_hot(i, 7).numpy()]
    unused = fn.jit(lambda x, mask: (x.masked_scatter(mask, x.reshape(-1)), x)[1])
    return [*same, unused(still, mask).numpy()]


def _looked_at(dtype: str) -> list:
    p = _leaf(dtype, 4, 5).detach().sigmoid()
    losses = [F.binary_cross_entropy(p, p), F.nll_loss(p, fn.tensor([0, 4, 2, 1]))]
    drawn = [fn.bernoulli(p), fn.normal(p, p), fn.multinomial(p, 2)]
    return [t.numpy() for t in (*losses, *drawn)]


def _resized(dtype: str) -> list:
    x = _leaf(dtype, 2, 3, 6, 7)
    made = [F.interpolate(x, size=(9, 4), mode=mode) for mode in ("nearest", "bilinear", "bicubic", "area")]
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _sampled(dtype: str) -> list:
    x, grid = _leaf(dtype, 2, 3, 6, 7), _leaf(dtype, 2, 4, 5, 2)
    solid, around = _leaf(dtype, 2, 3, 4, 5, 6), _leaf(dtype, 2, 2, 3, 4, 3)
    made = [F.grid_sample(x, grid, mode, align_corners=False) for mode in ("bilinear", "nearest", "bicubic")]
    made.append(F.grid_sample(solid, around, "bilinear", align_corners=False))
    made.append(
        F.grid_sample(_leaf(dtype, 2, 8, 3, 3), grid, align_corners=False)
    )  # channels enough to lie side by side
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _attended(dtype: str) -> list:
    q, k, v, mask = (_leaf(dtype, *shape) for shape in ((2, 2, 70, 16), (2, 2, 90, 16), (2, 2, 90, 16), (70, 90)))
    attend = F.scaled_dot_product_attention
    made = [
        attend(q, k, v), attend(q, k, v, attn_mask=mask), attend(q, k, v, attn_mask=mask.detach() > 0.3),
        attend(q, k, v, is_causal=True), attend(q, k, v, dropout_p=0.2),
    ]  # fmt: skip
    return [t.detach().numpy() for y in made for t in _both_ways(y)]


def _limits(dtype: str) -> list:
    """The kernels by which the profiler measures the machine."""
    rows, columns = tile_shape(np.dtype(dtype).itemsize)
    a, b, c = np.ones(rows, dtype), np.ones(columns, dtype), np.zeros(rows * columns, dtype)
    limits.multiply(a, b, c, 1, columns, c.size, 1, 1, 1)
    source, target = np.ones(8, np.float32), np.zeros(8, np.float32)
    limits.copy(source, target, 8, 1, 1)
    return [c, target]


PROGRAMS: dict[str, Callable[[str], list]] = {
    "operations of one tensor": _elementwise(_declared(1)),
    "activations": _elementwise(CURVES),
    "GELU by tanh": _of(lambda x: F.gelu(x, "tanh"), (ELEMENTS_FOR_KERNEL,)),
    "operations of two tensors": _elementwise(_declared(2), 2),
    "arithmetic with numbers": _scalars,
    "arithmetic with vectors": _vectors,
    "reductions": _reduced,
    "random numbers": _random,
    "copies": _moved,
    "softmax and cross-entropy": _class_losses,
    "matrix product": _of(lambda x, w, b: F.linear(x, w, b), (256, 256), (256, 256), (256,)),
    "convolution": _of(lambda x, w, b: F.conv2d(x, w, b, 2, 1), (2, 3, 9, 9), (8, 3, 3, 3), (8,)),
    "convolution of many images": _of(  # too large for the direct kernels
        lambda x, w: F.conv2d(x, w, None, (2, 1), 1, (1, 2)), (16, 8, 200, 200), (4, 8, 2, 2)
    ),
    "steps over a kernel": _by("gather", _of(lambda x, w: F.conv2d(x, w, None, 3), (1, 2, 7, 7), (2, 2, 2, 2))),
    "direct convolution": _by("direct", _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1), (9, 2, 6, 6), (4, 2, 2, 2), (4,))),
    "1 x 1 convolution": _of(lambda x, w, b: F.conv2d(x, w, b), (2, 16, 8, 8), (16, 16, 1, 1), (16,)),
    "strided 1 x 1 convolution": _of(lambda x, w, b: F.conv2d(x, w, b, 2), (2, 16, 8, 8), (16, 16, 1, 1), (16,)),
    "3 x 3 convolution": _by(
        "winograd", _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1), (2, 4, 8, 8), (4, 4, 3, 3), (4,))
    ),
    "convolution of few pixels": _by(
        "few", _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1), (1, 16, 4, 4), (9, 16, 3, 3), (9,))
    ),
    "depthwise convolution": _by(
        "depthwise", _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1, groups=8), (2, 8, 8, 8), (8, 1, 3, 3), (8,))
    ),
    "depthwise convolution of small planes": _by(
        "channels", _of(lambda x, w, b: F.conv2d(x, w, b, 2, 1, groups=16), (2, 16, 8, 8), (16, 1, 3, 3), (16,))
    ),
    "convolution of infinities": _of(lambda x, w, b: F.conv2d(x / 0, w / 0, b, 2, 1), (2, 3, 9, 9), (4, 3, 3, 3), (4,)),
    "transposed convolution": _of(lambda x, w: F.conv_transpose2d(x, w, stride=2), (16, 4, 5, 5), (4, 3, 3, 3)),
    "max pooling": _of(_pooled, (2, 3, 8, 8)),
    "average pooling": _of(lambda x: F.avg_pool2d(x, 3, 2, 1), (2, 3, 8, 8)),
    "pooling of large planes": _large_planes,
    "adaptive pooling": _of(lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, 3)), (2, 3, 8, 8)),
    "power pooling": _of(lambda x: F.lp_pool2d(x, 2, 2), (2, 3, 8, 8)),
    "unpooling": _unpooled,
    "batch normalization": _module(lambda: nn.BatchNorm2d(4), (3, 4, 5, 5)),
    "batch normalization, short runs": _module(lambda: nn.BatchNorm1d(4), (3, 4, 5)),
    "batch normalization, evaluation": _module(lambda: nn.BatchNorm2d(4).eval(), (3, 4, 5, 5)),
    "layer normalization": _module(lambda: nn.LayerNorm(20), (6, 20)),
    "group normalization": _module(lambda: nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "instance normalization": _module(lambda: nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 5)),
    "RMS normalization": _module(lambda: nn.RMSNorm(20), (6, 20)),
    "local response normalization": _of(lambda x: F.local_response_norm(x, 3), (2, 6, 5, 5)),
    "LSTM": _module(lambda: nn.LSTM(5, 8, bidirectional=True), (6, 3, 5)),
    "LSTM, one example": _module(lambda: nn.LSTM(5, 8), (6, 1, 5)),
    "GRU": _module(lambda: nn.GRU(5, 8), (6, 3, 5)),
    "RNN": _module(lambda: nn.RNN(5, 8), (6, 3, 5)),
    "attention": _attended,
    "embedding": _embedded,
    "indexing": _indexed,
    "values that are looked at": _looked_at,
    "interpolation": _resized,
    "grid_sample": _sampled,
    "unfold and fold": _of(
        lambda x: (F.unfold(x, 3), F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)), (2, 3, 8, 8)
    ),
    "SGD": _trained(lambda weights: optim.SGD(weights, 0.1, momentum=0.9)),
    "Adam": _trained(lambda weights: optim.Adam(weights)),
    "machine limits": _limits,
}
