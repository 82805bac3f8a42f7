"""Every kernel gives the same bits on one thread and on two: chunks are cut by shape, and no sum depends on who adds it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim
from funcnn.kernels.cpu.recurrent import launch as recurrent
from funcnn.kernels.cpu.threads import number as threads
from funcnn.warmup.programs import DTYPES, PROGRAMS
from tests.plain import surrounded

pytestmark = [
    pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="plain Python runs on one thread"),
    pytest.mark.skipif(threads.available() < 2, reason="needs two CPUs"),
]


def _numbers(leaves: Iterable, outs: Any) -> list[np.ndarray]:
    """Values, and the gradients of a weighted sum of them."""
    made = [t for t in fn.tree.leaves(outs) if t.requires_grad]
    sum(((t * fn.rand_like(t)).sum() for t in made), fn.tensor(0.0)).backward()
    return [t.detach().numpy() for t in made] + [t.grad.numpy() for t in leaves]


def _of(function: Callable, *shapes: tuple) -> Callable[[str], list]:
    """A program: a function of random tensors, forward and backward."""

    def program(dtype: str) -> list:
        leaves = [fn.rand(*shape, dtype=getattr(fn, dtype)).requires_grad_() for shape in shapes]
        return _numbers(leaves, function(*leaves))

    return program


def _module(make: Callable, shape: tuple) -> Callable[[str], list]:
    """A program: a module and its parameters, forward and backward."""

    def program(dtype: str) -> list:
        module, x = make().to(getattr(fn, dtype)), fn.rand(*shape, dtype=getattr(fn, dtype)).requires_grad_()
        return _numbers([x, *module.parameters()], module(x))

    return program


def _trained(make: Callable, *shapes: tuple) -> Callable[[str], list]:
    """A program: two steps of an optimizer."""

    def program(dtype: str) -> list:
        weights = [nn.Parameter(fn.rand(*shape, dtype=getattr(fn, dtype))) for shape in shapes]
        optimizer = make(weights)
        for _ in range(2):
            for w in weights:
                w.grad = fn.rand_like(w)
            optimizer.step()
        return [w.detach().numpy() for w in weights]

    return program


RECURRENT = {f"{mode}_{way}" for mode in ("lstm", "gru", "rnn") for way in ("forward", "backward")} | {
    "pack_forward",
    "pack_backward",
}
IMAGE = (4, 16, 40, 40)
LARGER: dict[str, Callable[[str], list]] = {  # the kernels of which ``PROGRAMS`` has but one chunk
    "matrix product": _of(F.linear, (300, 300), (300, 300), (300,)),
    "convolution": _of(lambda x, w, b: F.conv2d(x, w, b, 2, 1), (4, 3, 80, 80), (16, 3, 5, 5), (16,)),
    "convolution of many images": _of(
        lambda x, w: F.conv2d(x, w, None, (2, 1), 1, (1, 2)), (16, 8, 200, 200), (4, 8, 2, 2)
    ),
    "direct convolution": _of(lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 2), (16, 8, 6, 6), (12, 4, 2, 2)),
    "1 x 1 convolution": _of(F.conv2d, IMAGE, (32, 16, 1, 1), (32,)),
    "1 x 1 convolution, strided": _of(lambda x, w: F.conv2d(x, w, None, 2), IMAGE, (32, 16, 1, 1)),
    "3 x 3 convolution": _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1), IMAGE, (32, 16, 3, 3), (32,)),
    "depthwise convolution": _of(lambda x, w, b: F.conv2d(x, w, b, 1, 1, 1, 16), IMAGE, (16, 1, 3, 3), (16,)),
    "transposed convolution": _of(lambda x, w: F.conv_transpose2d(x, w, stride=2), IMAGE, (16, 8, 3, 3)),
    "max pooling": _of(lambda x: F.max_pool2d(x, 3, 2, 1), (8, 16, 56, 56)),
    "average pooling": _of(lambda x: F.avg_pool2d(x, 3, 2, 1), (8, 16, 56, 56)),
    "adaptive pooling": _of(lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, 3)), (8, 16, 56, 56)),
    "batch normalization": _module(lambda: nn.BatchNorm2d(16), (8, 16, 56, 56)),
    "batch normalization, evaluation": _module(lambda: nn.BatchNorm2d(16).eval(), (8, 16, 56, 56)),
    "layer normalization": _module(lambda: nn.LayerNorm(256), (512, 256)),
    "RMS normalization": _module(lambda: nn.RMSNorm(256), (512, 256)),
    "group normalization": _module(lambda: nn.GroupNorm(4, 16), (8, 16, 56, 56)),
    "instance normalization": _module(lambda: nn.InstanceNorm2d(16, affine=True), (8, 16, 56, 56)),
    "local response normalization": _of(lambda x: F.local_response_norm(x, 3), (8, 16, 56, 56)),
    "softmax": _of(lambda x: (F.softmax(x, 1), F.log_softmax(x, 1), fn.logsumexp(x, 1)), (512, 300)),
    "softmax of short rows": _of(lambda x: (F.softmax(x, 1), F.log_softmax(x, 1), fn.logsumexp(x, 1)), (9001, 17)),
    "softmax over channels": _of(lambda x: (F.softmax(x, 1), F.log_softmax(x, 1)), (4, 20, 60, 60)),
    "cross-entropy": _of(lambda x: F.cross_entropy(x, fn.arange(512) % 300), (512, 300)),
    "LSTM": _module(lambda: nn.LSTM(20, 130), (3, 20, 20)),
    "LSTM, one example": _module(lambda: nn.LSTM(20, 200), (4, 1, 20)),
    "GRU": _module(lambda: nn.GRU(20, 130), (3, 20, 20)),
    "RNN": _module(lambda: nn.RNN(20, 300), (3, 20, 20)),
    "attention": _of(F.scaled_dot_product_attention, *[(2, 4, 256, 32)] * 3),
    "causal attention": _of(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), *[(2, 4, 256, 32)] * 3),
    "embedding": _of(lambda table: F.embedding(fn.arange(4000) * 7 % 9000, table), (9000, 128)),
    "interpolation": _of(lambda x: F.interpolate(x, size=(90, 70), mode="bilinear"), IMAGE),
    "grid_sample": _of(lambda x, grid: F.grid_sample(x, grid, align_corners=False), IMAGE, (4, 50, 60, 2)),
    "unfold": _of(lambda x: F.unfold(x, 3), IMAGE),
    "fold": _of(lambda x: F.fold(x, (40, 40), 2, stride=2), (4, 64, 400)),
    "Adam": _trained(lambda weights: optim.Adam(weights), (500, 600), (70, 800)),
}


@pytest.fixture(autouse=True)
def never_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the work, kernels run on as many threads as they are allowed."""
    monkeypatch.setattr(threads, "NANOSECONDS_FOR_THREADS", 0)
    monkeypatch.setattr(threads, "_chosen", 0)
    monkeypatch.setattr(recurrent, "NANOSECONDS_FOR_SHARING", 0)


def _recorded(program: Callable, dtype: str, count: int) -> tuple[list[np.ndarray], dict[str, set]]:
    """What a program gives on ``count`` threads, and the ``threads`` argument of each kernel that has one."""
    seen = defaultdict(set)

    def around(kernel: Any, args: tuple) -> Any:
        named = dict(zip(signature(kernel.function).parameters, args, strict=True))
        if "threads" in named:
            seen[kernel.__name__].add(named["threads"])
        return kernel.compiled(*args)

    fn.set_num_threads(count)
    fn.manual_seed(0)
    with surrounded(around):
        return [np.array(a) for a in program(dtype)], seen


def _check(program: Callable, dtype: str, alone: set) -> None:
    """The same bytes; and on two threads each kernel was once called for two, except those ``alone``."""
    one, serial = _recorded(program, dtype, 1)
    two, shared = _recorded(program, dtype, 2)
    assert all(used == {1} for used in serial.values()) and serial.keys() == shared.keys()
    assert all(2 in used for name, used in shared.items() if name not in alone), shared
    assert len(one) == len(two) > 0
    for place, (mine, other) in enumerate(zip(one, two, strict=True)):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        assert mine.tobytes() == other.tobytes(), f"result {place} differs by up to {abs(mine - other).max()}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_of_every_kernel(name: str, dtype: str) -> None:
    # a small recurrent layer is one block; the limits are measured on one thread here
    _check(PROGRAMS[name], dtype, RECURRENT | {"multiply", "copy"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LARGER)
def test_of_many_chunks(name: str, dtype: str) -> None:
    _check(LARGER[name], dtype, set())
