"""The kernels that are measured, each written once for both libraries, since funcnn mirrors PyTorch's names.

A row is a function of a library (``funcnn`` or ``torch``) that gives a ``Case``. Shapes are (N, C, H, W) -> out channels, then
kernel ``k``, stride ``s``, padding ``p``, output padding ``op``. Numbers have the library's default type; the worker sets it.

Flops are those of the direct method, multiplication and addition counted as two; a backward pass does twice the
forward's. Bytes are the least that must move: inputs once, results once; backward reads what it needs of
the inputs and the cotangent, and writes one gradient for each input. Passes that a cache could hold are not counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

Row = Callable[[Any], "Case"]


@dataclass(frozen=True)
class Phase:
    """Something to time: a call, the flops it does and the bytes it moves at least."""

    call: Callable[[], Any]
    flops: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Case:
    """A row in one library: its forward pass, timed without recording, and forward and backward together, or a step.

    lost: the largest error of the output against float64, as a share of its largest number; for convolutions.
    """

    forward: Phase | None = None
    train: Phase | None = None
    lost: Callable[[], float] | None = None


def size(*tensors: Any) -> int:
    """The bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def leaf(lib: Any, *shape: int) -> Any:
    """Normal numbers that want a gradient."""
    return lib.randn(*shape, requires_grad=True)


def differentiable(
    lib: Any, function: Callable[[], Any], leaves: Sequence[Any], flops: float = 0, reads: int = -1, saved: int = -1
) -> Case:
    """Both passes of a function: ``reads`` bytes in the forward (-1: all leaves), ``saved`` in the backward (-1: ``reads``)."""
    reads = size(*leaves) if reads < 0 else reads
    saved = reads if saved < 0 else saved
    with lib.no_grad():
        y = result(function())
        dy = lib.randn(*y.shape) if y.shape else lib.randn(1).reshape(())

    def train() -> None:
        for one in leaves:
            one.grad = None
        result(function()).backward(dy)

    moved = reads + size(y)
    both = moved + saved + size(dy) + size(*leaves)
    return Case(Phase(function, flops, moved), Phase(train, 3 * flops, both))


def result(y: Any) -> Any:
    """The first of several results: a sequence layer gives its last state too."""
    return y[0] if isinstance(y, tuple) else y


def conv(shape: tuple[int, ...], out: int, kernel: int, transposed: bool = False, **options: int) -> Row:
    """A convolution with bias of as many dimensions as the shape has after channels."""
    name = f"conv{'_transpose' * transposed}{len(shape) - 2}d"

    def row(lib: Any) -> Case:
        groups, taps = options.get("groups", 1), (kernel,) * (len(shape) - 2)
        weight = (shape[1], out // groups, *taps) if transposed else (out, shape[1] // groups, *taps)
        leaves = leaf(lib, *shape), leaf(lib, *weight), leaf(lib, out)
        function = lambda: getattr(lib.nn.functional, name)(*leaves, **options)

        def lost() -> float:
            exact = getattr(lib.nn.functional, name)(*(one.double() for one in leaves), **options)
            return float(abs(function().double() - exact).max() / abs(exact).max())

        with lib.no_grad():
            pixels = prod(shape if transposed else function().shape)
        return replace(differentiable(lib, function, leaves, 2 * pixels * prod(weight[1:])), lost=lost)

    return row


def pool(name: str, shape: tuple[int, ...], *args: Any) -> Row:
    """A pooling operation, whose backward pass needs no input again."""

    def row(lib: Any) -> Case:
        x = leaf(lib, *shape)
        return differentiable(lib, lambda: getattr(lib.nn.functional, name)(x, *args), [x], saved=0)

    return row


def elementwise(name: str, *shape: int, **options: Any) -> Row:
    """An operation on one tensor that keeps its shape."""

    def row(lib: Any) -> Case:
        x = leaf(lib, *shape)
        of = lib.nn.functional if hasattr(lib.nn.functional, name) else lib
        return differentiable(lib, lambda: getattr(of, name)(x, **options), [x])

    return row


def tanh(lib: Any) -> Case:
    """The hyperbolic tangent of 16M elements; PyTorch's functional form of it is gone."""
    x = leaf(lib, 1 << 24)
    return differentiable(lib, lambda: lib.tanh(x), [x])


def norm(name: str, shape: tuple[int, ...], *args: Any, weights: tuple[int, ...] = (), **options: Any) -> Row:
    """A normalization; ``weights`` is how many there are of each name in ``weight, bias``."""

    def row(lib: Any) -> Case:
        x, given = leaf(lib, *shape), dict(zip(("weight", "bias"), (leaf(lib, n) for n in weights), strict=False))
        if name == "batch_norm":
            given |= {"running_mean": lib.zeros(shape[1]), "running_var": lib.ones(shape[1])}
        leaves = [x, *(w for w in given.values() if w.requires_grad)]
        return differentiable(lib, lambda: getattr(lib.nn.functional, name)(x, *args, **given, **options), leaves)

    return row


def reduction(name: str, shape: tuple[int, ...], dim: Any) -> Row:
    """A reduction over ``dim``."""

    def row(lib: Any) -> Case:
        x = leaf(lib, *shape)
        saved = 0 if name in ("sum", "mean") else -1
        return differentiable(lib, lambda: getattr(lib, name)(x, dim), [x], x.numel(), saved=saved)

    return row


def cross_entropy(lib: Any) -> Case:
    """The mean cross-entropy of 4096 rows with 1000 classes."""
    x, target = leaf(lib, 4096, 1000), lib.randint(0, 1000, (4096,))
    return differentiable(lib, lambda: lib.nn.functional.cross_entropy(x, target), [x], reads=size(x, target))


def linear(rows: int, inputs: int, outputs: int) -> Row:
    """A linear layer with bias."""

    def row(lib: Any) -> Case:
        leaves = leaf(lib, rows, inputs), leaf(lib, outputs, inputs), leaf(lib, outputs)
        return differentiable(lib, lambda: lib.nn.functional.linear(*leaves), leaves, 2 * rows * inputs * outputs)

    return row


def embedding(lib: Any) -> Case:
    """20 x 35 rows of a table of 10000 x 128; the gradient is the whole table."""
    table, index = leaf(lib, 10000, 128), lib.randint(0, 10000, (20, 35))
    picked = index.numel() * 128 * table.element_size()
    function = lambda: lib.nn.functional.embedding(index, table)
    return differentiable(lib, function, [table], reads=picked + size(index), saved=size(index))


def picked(name: str, *shape: int, index: tuple[int, ...], dim: int = 0) -> Row:
    """What ``gather`` or ``index_select`` picks at random places along a dimension; the gradient adds it there."""

    def row(lib: Any) -> Case:
        x, places = leaf(lib, *shape), lib.randint(0, shape[dim], index)
        taken = places.numel() * (x.numel() // shape[dim] if name == "index_select" else 1) * x.element_size()
        moved = taken + size(places)
        return differentiable(lib, lambda: getattr(lib, name)(x, dim, places), [x], reads=moved, saved=size(places))

    return row


def added(name: str, *shape: int, count: int) -> Row:
    """``scatter_add`` along dimension 0 with an index for each element, or ``index_put`` that adds whole rows."""

    def row(lib: Any) -> Case:
        x, source = leaf(lib, *shape), leaf(lib, count, *shape[1:])
        if name == "scatter_add":
            places = lib.randint(0, shape[0], (count, *shape[1:]))
            function = lambda: lib.scatter_add(x, 0, places, source)
        else:
            places = lib.randint(0, shape[0], (count,))
            function = lambda: lib.index_put(x, (places,), source, accumulate=True)
        return differentiable(lib, function, [x, source], reads=size(x, source, places), saved=size(places))

    return row


def recurrent(name: str, gates: int, steps: int, batch: int, inputs: int, hidden: int) -> Row:
    """One layer over a whole sequence (steps, batch, inputs)."""

    def row(lib: Any) -> Case:
        layer, x = getattr(lib.nn, name)(inputs, hidden), leaf(lib, steps, batch, inputs)
        flops = 2 * steps * batch * gates * hidden * (inputs + hidden)
        return differentiable(lib, lambda: layer(x), [x, *layer.parameters()], flops)

    return row


def attention(lib: Any) -> Case:
    """Softmax attention without a mask: batch 8, 4 heads, 512 queries and keys of 64."""
    leaves = [leaf(lib, 8, 4, 512, 64) for _ in range(3)]
    function = lambda: lib.nn.functional.scaled_dot_product_attention(*leaves)
    return differentiable(lib, function, leaves, 4 * 8 * 4 * 512 * 512 * 64)


def adam(**options: Any) -> Row:
    """A step over 100 tensors of mixed sizes, 5M numbers: four reads and three writes of each. Options are PyTorch's."""

    def row(lib: Any) -> Case:
        parameters = [leaf(lib, n) for _ in range(25) for n in (100, 1000, 49_000, 150_000)]
        for one in parameters:
            one.grad = lib.randn(*one.shape)
        optimizer = lib.optim.Adam(parameters, **(options if lib.__name__ == "torch" else {}))
        return Case(forward=Phase(optimizer.step, 0, 7 * size(*parameters)))

    return row


def interpolate(shape: tuple[int, ...], factor: float, mode: str) -> Row:
    """Each side of images grows or shrinks by a factor."""

    def row(lib: Any) -> Case:
        x = leaf(lib, *shape)
        return differentiable(
            lib, lambda: lib.nn.functional.interpolate(x, scale_factor=factor, mode=mode), [x], saved=0
        )

    return row


def grid_sample(lib: Any) -> Case:
    """Bilinear samples at random places."""
    x, grid = leaf(lib, 8, 32, 64, 64), (lib.rand(8, 64, 64, 2) * 2 - 1).requires_grad_(True)
    return differentiable(lib, lambda: lib.nn.functional.grid_sample(x, grid, align_corners=False), [x, grid])


def max_unpool(lib: Any) -> Case:
    """What 2 x 2 max pooling took, put back."""
    F = lib.nn.functional
    with lib.no_grad():
        pooled, index = F.max_pool2d(lib.randn(16, 64, 112, 112), 2, return_indices=True)
    x = pooled.detach().requires_grad_(True)
    return differentiable(lib, lambda: F.max_unpool2d(x, index, 2), [x], reads=size(x, index), saved=size(index))


def lenet(lib: Any) -> Any:
    """LeNet-5 with ReLU and max pooling for 1 x 32 x 32 images."""
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(576, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def lenet_step(lib: Any, x: Any, target: Any) -> Callable[[], Any]:
    """A training step of LeNet: forward, cross-entropy, backward, Adam."""
    model = lenet(lib)
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> Any:
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    return step


def training(batch: int, jit: bool = False) -> Row:
    """LeNet's training step on a batch; ``jit`` compiles it in funcnn and leaves PyTorch eager."""

    def row(lib: Any) -> Case:
        step = lenet_step(lib, lib.randn(batch, 1, 32, 32), lib.randint(0, 10, (batch,)))
        return Case(train=Phase(lib.jit(step) if jit and lib.__name__ == "funcnn" else step))

    return row


def ensemble(lib: Any) -> Case:
    """A step of Adam for each of 64 small CNNs on the same 16 images, mapped over the models.

    In funcnn the whole step is mapped and compiled; PyTorch's optimizers are not for vmap, so there it maps the gradients and
    then takes one step with the stacked parameters.
    """
    nn, cross_entropy, ours = lib.nn, lib.nn.functional.cross_entropy, lib.__name__ == "funcnn"
    x, target = lib.randn(16, 1, 14, 14), lib.randint(0, 10, (16,))
    models = [
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
        )
        for _ in range(64)
    ]  # fmt: skip
    if ours:
        net, _, empty = nn.pure(models[0])
        optimizer = lib.optim.adam(1e-3)
        held = {"p": lib.tree.map(lambda *t: lib.stack(t), *[nn.pure(model)[1] for model in models])}
        held["s"] = lib.vmap(optimizer.init)(held["p"])

        def one(params: Any, state: Any) -> tuple:
            value, grads = lib.value_and_grad(lambda p: cross_entropy(net(p, empty, x)[0], target))(params)
            return value, *optimizer.update(grads, state, params)

        run = lib.jit(lib.vmap(one))

        def step() -> Any:
            value, held["p"], held["s"] = run(held["p"], held["s"])
            return value

        return Case(train=Phase(step))
    stacked, _ = lib.func.stack_module_state(models)
    adam = lib.optim.Adam(stacked.values(), lr=1e-3)
    of_one = lambda p: cross_entropy(lib.func.functional_call(models[0], p, (x,)), target)
    gradients = lib.func.vmap(lib.func.grad(of_one))

    def step_of_torch() -> Any:
        for name, g in gradients({name: p.detach() for name, p in stacked.items()}).items():
            stacked[name].grad = g
        adam.step()

    return Case(train=Phase(step_of_torch))


MAIN: dict[str, Row] = {
    "conv2d 16x64x56x56 -> 64 k3 p1": conv((16, 64, 56, 56), 64, 3, padding=1),
    "conv2d 16x128x28x28 -> 128 k3 p1": conv((16, 128, 28, 28), 128, 3, padding=1),
    "conv2d 16x256x14x14 -> 256 k3 p1": conv((16, 256, 14, 14), 256, 3, padding=1),
    "conv2d 16x512x7x7 -> 512 k3 p1": conv((16, 512, 7, 7), 512, 3, padding=1),
    "conv2d 16x3x224x224 -> 64 k7 s2 p3": conv((16, 3, 224, 224), 64, 7, stride=2, padding=3),
    "conv2d 16x64x56x56 -> 256 k1": conv((16, 64, 56, 56), 256, 1),
    "conv2d 64x1x28x28 -> 6 k5": conv((64, 1, 28, 28), 6, 5),
    "conv2d 32x6x14x14 -> 16 k5": conv((32, 6, 14, 14), 16, 5),
    "conv2d depthwise 32x128x28x28 k3 p1": conv((32, 128, 28, 28), 128, 3, padding=1, groups=128),
    "conv2d depthwise 8x64x28x28 k3 s3 p1": conv((8, 64, 28, 28), 64, 3, stride=3, padding=1, groups=64),
    "conv2d depthwise 8x512x7x7 k7 p3": conv((8, 512, 7, 7), 512, 7, padding=3, groups=512),
    "conv2d 1x512x7x7 -> 512 k3 p1": conv((1, 512, 7, 7), 512, 3, padding=1),
    "conv2d 8x64x28x28 -> 64 k4 s4": conv((8, 64, 28, 28), 64, 4, stride=4),
    "conv2d grouped (4) 16x128x28x28 k3 p1": conv((16, 128, 28, 28), 128, 3, padding=1, groups=4),
    "conv2d dilated (2) 16x64x28x28 k3 p2": conv((16, 64, 28, 28), 64, 3, padding=2, dilation=2),
    "conv1d 16x64x1024 -> 128 k5": conv((16, 64, 1024), 128, 5),
    "conv3d 4x16x16x32x32 -> 32 k3": conv((4, 16, 16, 32, 32), 32, 3),
    "conv_transpose2d 4x256x32x32 -> 128 k3 s2 p1 op1":
        conv((4, 256, 32, 32), 128, 3, True, stride=2, padding=1, output_padding=1),
    "conv_transpose1d 8x256x512 -> 128 k8 s4": conv((8, 256, 512), 128, 8, True, stride=4),
    "max_pool2d 16x64x112x112 k3 s2 p1": pool("max_pool2d", (16, 64, 112, 112), 3, 2, 1),
    "avg_pool2d 16x64x112x112 k3 s2 p1": pool("avg_pool2d", (16, 64, 112, 112), 3, 2, 1),
    "adaptive_avg_pool2d 16x512x7x7 -> 1": pool("adaptive_avg_pool2d", (16, 512, 7, 7), 1),
    "batch_norm 16x64x56x56, training": norm("batch_norm", (16, 64, 56, 56), weights=(64, 64), training=True),
    "layer_norm 4096x768": norm("layer_norm", (4096, 768), (768,), weights=(768, 768)),
    "group_norm (32) 16x256x28x28": norm("group_norm", (16, 256, 28, 28), 32, weights=(256, 256)),
    "instance_norm 4x64x128x128": norm("instance_norm", (4, 64, 128, 128)),
    "softmax 4096x1000": elementwise("softmax", 4096, 1000, dim=-1),
    "cross_entropy 4096x1000": cross_entropy,
    "gelu 16M": elementwise("gelu", 1 << 24),
    "silu 16M": elementwise("silu", 1 << 24),
    "tanh 16M": tanh,
    "linear 64x1024 -> 1024": linear(64, 1024, 1024),
    "linear 512x4096 -> 1024": linear(512, 4096, 1024),
    "embedding 10000x128, 20x35 indices": embedding,
    "lstm seq 35 batch 20, 128 -> 256": recurrent("LSTM", 4, 35, 20, 128, 256),
    "lstm seq 128 batch 1, 64 -> 128": recurrent("LSTM", 4, 128, 1, 64, 128),
    "attention batch 8, 4 heads, 512x64": attention,
    "adam 100 tensors, 5M": adam(),
}  # fmt: skip

EXTRA: dict[str, Row] = {
    "adam 100 tensors, 5M, torch fused=True": adam(fused=True),
    "LeNet step, batch 32, eager": training(32),
    "LeNet step, batch 32, jit": training(32, jit=True),
    "LeNet step, batch 64, eager": training(64),
    "LeNet step, batch 64, jit": training(64, jit=True),
    "64 small CNNs by vmap, Adam step": ensemble,
    "interpolate bilinear 8x64x56x56 x2": interpolate((8, 64, 56, 56), 2, "bilinear"),
    **{
        f"interpolate {mode} {'x'.join(map(str, shape))} x{factor}": interpolate(shape, factor, mode)
        for mode, shape, factor in (
            ("nearest", (8, 32, 28, 28), 2),
            ("nearest", (8, 32, 28, 28), 3),
            ("nearest", (16, 128, 7, 7), 2),
            ("bilinear", (8, 32, 28, 28), 1.5),
            ("bilinear", (8, 32, 28, 28), 0.5),
            ("bicubic", (8, 32, 28, 28), 2),
        )
    },
    "grid_sample 8x32x64x64": grid_sample,
    "unfold 16x32x28x28 k3 p1": pool("unfold", (16, 32, 28, 28), 3, 1, 1),
    "fold 16x288x784 -> 28x28 k3 p1": pool("fold", (16, 288, 784), (28, 28), 3, 1, 1),
    "local_response_norm 16x64x28x28 size 5": elementwise("local_response_norm", 16, 64, 28, 28, size=5),
    "gru seq 35 batch 20, 128 -> 256": recurrent("GRU", 3, 35, 20, 128, 256),
    "rnn seq 35 batch 20, 128 -> 256": recurrent("RNN", 1, 35, 20, 128, 256),
    "max_unpool2d 16x64x56x56 k2": max_unpool,
    "gather 1000x1000 along 1": picked("gather", 1000, 1000, index=(1000, 1000), dim=1),
    "gather 1000x1000 along 0": picked("gather", 1000, 1000, index=(1000, 1000)),
    "index_select 64x512x64, 100 along 1": picked("index_select", 64, 512, 64, index=(100,), dim=1),
    "index_select 50000x64, 8192 along 0": picked("index_select", 50000, 64, index=(8192,)),
    "scatter_add 1000x1000 along 0": added("scatter_add", 1000, 1000, count=1000),
    "scatter_add 1M": added("scatter_add", 1_000_000, count=1_000_000),
    "index_put 50000x64, 8192 rows added": added("index_put", 50000, 64, count=8192),
    "max_pool1d 8x64x1024 k3 s3": pool("max_pool1d", (8, 64, 1024), 3, 3),
    "max_pool1d 8x64x1024 k8 s8": pool("max_pool1d", (8, 64, 1024), 8, 8),
    "avg_pool1d 8x64x1024 k4 s4": pool("avg_pool1d", (8, 64, 1024), 4, 4),
    "max_pool2d 16x512x7x7 k2 s2": pool("max_pool2d", (16, 512, 7, 7), 2, 2),
    "max_pool2d 16x512x7x7 k7": pool("max_pool2d", (16, 512, 7, 7), 7),
    "max_pool2d 16x64x7x7 k3 s3": pool("max_pool2d", (16, 64, 7, 7), 3, 3),
    "avg_pool2d 16x64x7x7 k3 s3": pool("avg_pool2d", (16, 64, 7, 7), 3, 3),
    "avg_pool2d 16x64x7x7 k2 s2": pool("avg_pool2d", (16, 64, 7, 7), 2, 2),
    "avg_pool2d 8x64x64x64 k8 s8": pool("avg_pool2d", (8, 64, 64, 64), 8, 8),
    "avg_pool1d 8x64x1024 k8 s8": pool("avg_pool1d", (8, 64, 1024), 8, 8),
    "adaptive_avg_pool2d 16x64x7x7 -> 3": pool("adaptive_avg_pool2d", (16, 64, 7, 7), 3),
    "adaptive_max_pool2d 16x64x28x28 -> 5": pool("adaptive_max_pool2d", (16, 64, 28, 28), 5),
    "dropout 4M": elementwise("dropout", 1 << 22, p=0.5),
    **{
        f"{name} {'x'.join(map(str, shape))} over {str(dim).replace(' ', '')}": reduction(name, shape, dim)
        for name in ("sum", "mean", "var", "amax")
        for shape, dim in (((16, 64, 56, 56), (0, 2, 3)), ((4096, 1000), 1))
    },
    "rms_norm 4096x768": norm("rms_norm", (4096, 768), (768,), weights=(768,)),
    **{f"{name} 8192x17": elementwise(name, 8192, 17, dim=-1) for name in ("softmax", "log_softmax")},
    **{f"{name} 8192x17": norm(name, (8192, 17), (17,)) for name in ("layer_norm", "rms_norm")},
    **{
        f"{name} {'x'.join(map(str, shape))} over {str(dim).replace(' ', '')}": reduction(name, shape, dim)
        for name in ("sum", "amax")
        for shape, dim in (((16, 64, 28, 28), 1), ((16, 64, 28, 28), (1, 3)), ((1000, 777), 0), ((20_000, 17), 1))
    },
    **{
        f"{name} 1000x777 along {dim}": elementwise(name, 1000, 777, dim=dim)
        for name in ("cumsum", "cumprod")
        for dim in (0, 1)
    },
}

ROWS = {**MAIN, **EXTRA}
