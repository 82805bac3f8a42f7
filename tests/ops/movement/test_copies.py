"""``copy``, ``deepcopy`` and ``pickle`` of tensors: shapes, layouts, flags, and what shares memory afterwards, as in PyTorch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn, optim
from funcnn.core.errors import GradientError

torch = pytest.importorskip("torch")
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle{p}": lambda t, p=p: pickle.loads(pickle.dumps(t, protocol=p)) for p in (0, 2, 4, 5)},
}
VIEWS = {
    "whole": lambda x: x, "row": lambda x: x[1], "element": lambda x: x[1, 2], "strided": lambda x: x[::2, 1::2],
    "transposed": lambda x: x.t(), "expanded": lambda x: x[:1].expand(5, 6), "empty": lambda x: x[:0], "turned": lambda x:
    x.reshape(2, 2, 6).permute(2, 0, 1), "detached": lambda x: x.detach(), "spread": lambda x: x[0, 0].expand(3, 2),
}  # fmt: skip


def facts(t: Any) -> tuple:
    """What a copy must have in common with its original: of strides their order, for a pickle leaves out what no one sees."""
    strides = t.stride() if t.numel() else ()
    lying = tuple(np.argsort([-s for s in strides], kind="stable")), tuple(s == 0 for s in strides)
    return tuple(t.shape), lying, str(t.dtype).removeprefix("torch."), t.tolist(), t.requires_grad, t.grad is None


def made(T: Any, view: str) -> Any:
    return VIEWS[view](T.tensor(np.arange(24, dtype=np.float32).reshape(4, 6)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("view", VIEWS)
def test_layouts(way: str, view: str) -> None:
    assert facts(WAYS[way](made(fn, view))) == facts(WAYS[way](made(torch, view)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_scalars_keep_their_shape(way: str, dtype: str) -> None:
    """0-d tensors came back with one dimension: batch norm's count and Adam's steps could not be restored."""
    for array in (np.array(1), np.ones(1), np.zeros((0, 3)), np.ones((1, 1))):
        array = array.astype(dtype)
        assert facts(WAYS[way](fn.tensor(array))) == facts(WAYS[way](torch.tensor(array)))


@pytest.mark.parametrize("way", WAYS)
def test_leaves_attributes_and_gradients(way: str) -> None:
    results = []
    for T in (fn, torch):
        leaf, parameter = T.ones(3, requires_grad=True), T.nn.Parameter(T.ones(2, 2))
        for t in (leaf, parameter):
            (t * t).sum().backward()
            t.mark = "kept"
        results.append(
            [(facts(c := WAYS[way](t)), type(c).__name__, getattr(c, "mark", None)) for t in (leaf, parameter)]
        )
    assert results[0] == results[1]


def test_results_of_operations() -> None:
    for T in (fn, torch):
        y = T.ones(2, requires_grad=True) * 2
        with pytest.raises((GradientError, RuntimeError), match="leaf|leaves"):
            copy.deepcopy(y)
        for c in (copy.copy(y), pickle.loads(pickle.dumps(y))):
            assert c.is_leaf and c.requires_grad and c.tolist() == [2, 2]


def shared(T: Any, ts: list) -> list:
    """Which of these see a write to which."""
    found = []
    with T.no_grad():
        for i, t in enumerate(ts):
            if t.numel() and 0 not in t.stride():
                before = [o.tolist() for o in ts]
                t.add_(100)
                found.append((i, [o.tolist() != b for o, b in zip(ts, before, strict=True)]))
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("way", ["deepcopy", "pickle4", "copy"])
def test_what_shares_memory(way: str, seed: int) -> None:
    """Random families of views, copied together: a write to one is seen where PyTorch's copy sees it."""
    results = []
    for T in (fn, torch):
        rng = np.random.default_rng(seed)
        bases = [T.tensor(rng.normal(size=(4, 6)).astype(np.float32)) for _ in range(2)]
        bases.append(T.nn.Parameter(T.ones(4, 6)))
        names = [n for n in VIEWS if n != "empty"]
        ts = [VIEWS[names[rng.integers(len(names))]](b.data if b.requires_grad else b) for b in bases for _ in range(3)]
        ts = [(ts + bases)[i] for i in rng.permutation(len(ts) + 3)]
        copies = [copy.copy(t) for t in ts] if way == "copy" else WAYS[way](ts)
        results.append((shared(T, copies), [t.tolist() for t in ts], [facts(c) for c in copies]))
    assert results[0] == results[1]


def test_copies_that_share_memory_are_one_to_jit_and_backward() -> None:
    x = fn.zeros(3)
    a, b = copy.deepcopy([x, x[1:]])
    assert fn.jit(lambda p, q: (p.add_(1), q * 1)[1])(a, b).tolist() == [1, 1]
    c = copy.copy(a)
    w = fn.ones(3, requires_grad=True)
    loss = (w * a).sum()
    c.mul_(2)
    with pytest.raises(GradientError, match="mul needs for its gradient was overwritten"):
        loss.backward()
    assert x.tolist() == [0, 0, 0] and a.tolist() == [2, 2, 2]


def test_one_tensor_copied_twice_is_one_tensor() -> None:
    p = nn.Parameter(fn.ones(2))
    for way in (copy.deepcopy, WAYS["pickle2"]):
        a, b = way([p, p])
        assert a is b and type(a) is nn.Parameter
    held = nn.Buffer(fn.ones(2), persistent=False)
    assert not copy.deepcopy(held).persistent and not WAYS["pickle4"](held).persistent


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.AdamW])
@pytest.mark.parametrize("way", ["deepcopy", "pickle2", "pickle5"])
def test_training_goes_on_from_a_checkpoint(rule: Any, way: str) -> None:
    def steps(model: Any, optimizer: Any) -> list:
        for _ in range(2):
            optimizer.zero_grad()
            (model(fn.arange(12).float().reshape(4, 3)) ** 2).sum().backward()
            optimizer.step()
        return [t.tolist() for t in model.state_dict().values()]

    fn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = rule(model.parameters(), lr=0.1)
    steps(model, optimizer)
    numbers, state = WAYS[way]((model.state_dict(), optimizer.state_dict()))
    again = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other = rule(again.parameters(), lr=0.1)
    again.load_state_dict(numbers)
    other.load_state_dict(state)
    assert steps(again, other) == steps(model, optimizer)
