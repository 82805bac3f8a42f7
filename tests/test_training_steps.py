"""What training steps of four well-known networks use: a kernel of ours stands beside each function of NumPy.

LeNet (LeCun et al., 1998), a ResNet (He et al., 2016), a tagger by an LSTM, a GPT (Radford et al., 2019), all of small sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim
from funcnn.core import primitive
from funcnn.core.primitive import Primitive

BY_BLAS = {"matmul", "linear"}  # the products, whose kernels are in the table of cases, too


def lenet() -> nn.Module:
    """Two convolutions, each with a pool, and three linear layers, for 28 x 28 digits."""
    features = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Dropout(0.2), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*features, nn.Flatten(), *head)


class Residual(nn.Module):
    """The basic block: two 3 x 3 convolutions beside the identity, or beside a 1 x 1 convolution where sizes change."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        same = stride == 1 and channels == out
        self.downsample = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Any) -> Any:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet() -> nn.Module:
    """The eighteen layers of ResNet-18, with an eighth of its channels."""
    stem = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [(8, 8, 1), (8, 16, 2), (16, 32, 2), (32, 64, 2)]
    blocks = [block for i, o, s in widths for block in (Residual(i, o, s), Residual(o, o, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Tagger(nn.Module):
    """Words, an LSTM over them, a tag for each."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.tags = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        return self.tags(self.lstm(self.words(x))[0]).flatten(0, 1)


class Block(nn.Module):
    """Causal attention of two heads and a multilayer perceptron, each after a norm and beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(0.1)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        batch, length, width = x.shape
        heads = (t.view(batch, length, 2, width // 2).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(width, 2))
        y = (
            F.scaled_dot_product_attention(*heads, is_causal=True)
            .transpose(1, 2)
            .contiguous()
            .view(batch, length, width)
        )
        x = x + self.drop(self.out(y))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Embeddings of words and positions, two blocks, and a head that shares the words' embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 16), nn.Embedding(8, 16)
        self.blocks, self.norm, self.head = (
            nn.Sequential(Block(16), Block(16)),
            nn.LayerNorm(16),
            nn.Linear(16, 20, bias=False),
        )
        self.head.weight = self.words.weight

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.blocks(self.words(x) + self.positions(fn.arange(x.shape[1]))))).flatten(0, 1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "LeNet": (lenet, fn.ones(3, 1, 28, 28)),
    "ResNet": (resnet, fn.ones(3, 3, 32, 32)),
    "tagger": (Tagger, fn.tensor(np.arange(12).reshape(2, 6))),
    "GPT": (GPT, fn.tensor(np.arange(16).reshape(2, 8))),
}


def steps(make: Callable[[], nn.Module], x: Any) -> None:
    """A step of SGD and one of AdamW, with the gradient's norm held."""
    model = make()
    for optimizer in (optim.SGD(model.parameters(), 0.01, momentum=0.9), optim.AdamW(model.parameters(), 1e-3)):
        optimizer.zero_grad()
        y = model(x)
        F.cross_entropy(y, fn.arange(y.shape[0]) % y.shape[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def used(make: Callable[[], nn.Module], x: Any) -> set[Primitive]:
    """The primitives that are evaluated in the steps."""
    seen: set[Primitive] = set()

    def around(prim: Primitive, values: list, params: dict, where: Any) -> list:
        seen.add(prim)
        return primitive.evaluate(prim, values, params, where, True)

    primitive.around[id(seen)] = around
    try:
        steps(make, x)
    finally:
        primitive.around.pop(id(seen))
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_every_host_function_of_a_training_step_has_a_kernel_beside_it(name: str) -> None:
    prims = used(*NETWORKS[name])
    assert len(prims) > 10 and any(prim.name == "cross_entropy_grad" for prim in prims)
    lacking = {
        prim.name: [way.reason for way in prim.on["cpu"]]
        for prim in prims
        if prim.on.get("cpu") and all(way.reason is not None for way in prim.on["cpu"])
    }
    assert not lacking
    forced = {way.name for prim in prims - {p for p in prims if p.name in BY_BLAS} for way in prim.on.get("cpu", ())}
    assert "kernel" in forced


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_by_kernels_learns_what_one_by_choice_does(name: str) -> None:
    make, x = NETWORKS[name]

    def learned() -> list[np.ndarray]:
        fn.manual_seed(0)
        model = make()
        optimizer = optim.SGD(model.parameters(), 0.01)
        y = model(x)
        F.cross_entropy(y, fn.arange(y.shape[0]) % y.shape[1]).backward()
        optimizer.step()
        return [p.detach().numpy() for p in model.parameters()]

    by_choice = learned()
    with fn.prefer("kernel"):
        by_kernels = learned()
    for one, two in zip(by_choice, by_kernels, strict=True):
        np.testing.assert_allclose(one, two, 1e-4, 1e-6)
