"""Bad input raises an error that names the operation, what came and what was expected, of a type that users expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn, optim

X = fn.tensor(np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32))
W = fn.tensor(np.random.default_rng(1).normal(size=(6, 3, 5, 5)).astype(np.float32))
LOGITS = fn.tensor(np.random.default_rng(2).normal(size=(4, 10)).astype(np.float32))

CASES: list[tuple[str, type, str, Callable[[], Any]]] = [
    ("conv rank", RuntimeError, r"conv2d: expected an input of 4 dimensions .* got shape \(8, 8\)", lambda: F.conv2d(X[0, 0], W)),
    ("conv channels", ValueError, r"conv2d: weight of shape \(6, 3, 5, 5\) needs an input with 3 channels, got \(64, 1, 28, 28\)",
     lambda: F.conv2d(fn.zeros(64, 1, 28, 28), W)),
    ("conv dtype", TypeError, r"conv2d: .*float64.*float32|conv2d: .*float32.*float64", lambda: F.conv2d(X.double(), W)),
    ("conv small input", RuntimeError, r"conv2d: a kernel of \(5, 5\).*larger than the input \(3, 3\)", lambda: F.conv2d(X[:, :, :3, :3], W)),
    ("conv stride", ValueError, r"conv2d: stride", lambda: F.conv2d(X, W, stride=0)),
    ("conv padding", ValueError, r"conv2d: padding", lambda: F.conv2d(X, W, padding=-1)),
    ("conv groups", ValueError, r"groups=2", lambda: nn.Conv2d(3, 6, 5, groups=2)),
    ("pool rank", RuntimeError, r"max_pool2d: expected an input of 4 dimensions", lambda: F.max_pool2d(X[0, 0], 2)),
    ("pool padding", RuntimeError, r"max_pool2d: padding \(2, 2\) must be at most half", lambda: F.max_pool2d(X, 2, padding=2)),
    ("linear sizes", RuntimeError, r"linear: weight of shape \(4, 5\) needs an input whose last size is 5, got \(2, 3\)",
     lambda: F.linear(fn.zeros(2, 3), fn.zeros(4, 5))),
    ("linear type", TypeError, r"linear: .*got str", lambda: nn.Linear(2, 3)("text")),
    ("linear dtype", TypeError, r"linear: input is float64 but weight is float32", lambda: nn.Linear(3, 2)(fn.ones(1, 3).double())),
    ("matmul sizes", RuntimeError, r"matmul: shapes \(2, 3\) and \(4, 5\) do not fit", lambda: fn.zeros(2, 3) @ fn.zeros(4, 5)),
    ("matmul dtype", TypeError, r"matmul: expected operands of one dtype, got float32, float64", lambda: fn.ones(2, 2) @ fn.ones(2, 2).double()),
    ("batch norm rank", ValueError, r"BatchNorm2d: expected 4-d input", lambda: nn.BatchNorm2d(3)(X[0])),
    ("batch norm channels", ValueError, r"BatchNorm2d: expected 4 channels in dimension 1, got shape \(2, 3, 8, 8\)", lambda: nn.BatchNorm2d(4)(X)),
    ("batch norm one value", ValueError, r"more than 1 value per channel", lambda: nn.BatchNorm1d(3)(fn.ones(1, 3))),
    ("layer norm shape", RuntimeError, r"layer_norm: normalized_shape \(5,\) does not match .*\(2, 3\)", lambda: nn.LayerNorm(5)(fn.ones(2, 3))),
    ("broadcast", RuntimeError, r"add: shapes \(2, 3\) and \(4,\) do not broadcast", lambda: fn.zeros(2, 3) + fn.zeros(4)),
    ("promotion", TypeError, r"add: uint32 and int32 do not promote", lambda: fn.zeros(2, dtype=fn.uint32) + fn.zeros(2, dtype=fn.int32)),
    ("in-place dtype", RuntimeError, r"add_: a result of float32 cannot be stored in a tensor of int64", lambda: fn.arange(3).add_(0.5)),
    ("index int", IndexError, r"index 5 is out of range for dimension 1 of size 3", lambda: X[0, 5]),
    ("index tensor", IndexError, r"index: index 7 is out of range for dimension 0 of size 2", lambda: X[fn.tensor([0, 7])]),
    ("gather", IndexError, r"gather: index 10 is out of range for dimension 1 of size 10", lambda: LOGITS.gather(1, fn.tensor([[10]]))),
    ("scatter", IndexError, r"scatter: index -1 is out of range", lambda: LOGITS.scatter(1, fn.tensor([[-1]]), 1.0)),
    ("index_select", IndexError, r"index 4 is out of range for dimension 0 of size 4", lambda: LOGITS.index_select(0, fn.tensor([4]))),
    ("one_hot", IndexError, r"one_hot: class 3 .*out of range for 3 classes", lambda: F.one_hot(fn.tensor([3]), 3)),
    ("target class", IndexError, r"cross_entropy: target 10 is out of range for 10 classes", lambda: F.cross_entropy(LOGITS, fn.tensor([0, 1, 2, 10]))),
    ("nll class", IndexError, r"nll_loss: target -1 is out of range for 10 classes", lambda: F.nll_loss(LOGITS, fn.tensor([0, 1, 2, -1]))),
    ("target under jit", IndexError, r"cross_entropy: target 11 is out of range", lambda: fn.jit(F.cross_entropy)(LOGITS, fn.tensor([0, 1, 2, 11]))),
    ("target shape", RuntimeError, r"cross_entropy: input of shape \(4, 10\) needs a target of shape \(4,\), got \(3,\)",
     lambda: F.cross_entropy(LOGITS, fn.tensor([0, 1, 2]))),
    ("reduction", ValueError, r"reduction must be", lambda: F.mse_loss(X, X, reduction="average")),
    ("mean of ints", TypeError, r"mean: expected a floating-point tensor, got int64|mean: .*int64", lambda: fn.arange(3).mean()),
    ("max of nothing", IndexError, r"amax|max", lambda: fn.zeros(0, 3).max(0)),
    ("division by zero", ZeroDivisionError, r"integer division", lambda: fn.arange(3) // fn.arange(3)),
    ("reshape", RuntimeError, r"reshape: shape \(5,\) does not fit the 6 elements", lambda: fn.zeros(2, 3).reshape(5)),
    ("dim", IndexError, r"sum: dimension 2 is out of range for 2 dimensions", lambda: fn.zeros(2, 3).sum(2)),
    ("cat", RuntimeError, r"cat: shapes must agree", lambda: fn.cat([fn.zeros(2, 3), fn.zeros(2, 4)])),
    ("stack", RuntimeError, r"stack: expected tensors of one shape", lambda: fn.stack([fn.zeros(2), fn.zeros(3)])),
    ("non-scalar backward", RuntimeError, r"backward: a gradient can only be left out for a single element.*\(3,\)",
     lambda: fn.ones(3, requires_grad=True).mul(2.0).backward()),
    ("no graph", RuntimeError, r"backward: this tensor of shape \(\) does not require grad", lambda: fn.ones(3).sum().backward()),
    ("second backward", RuntimeError, r"backward: the saved values of .* were freed .*retain_graph=True", lambda: _twice()),
    ("leaf in place", RuntimeError, r"add_: a leaf tensor that requires grad", lambda: fn.ones(3, requires_grad=True).add_(1.0)),
    ("overwritten value", RuntimeError, r"overwritten by an in-place operation", lambda: _overwritten()),
    ("grad of ints", TypeError, r"only floating-point tensors can have gradients, got int64", lambda: fn.arange(3).requires_grad_()),
    ("numpy of grad", RuntimeError, r"numpy: the tensor requires grad", lambda: fn.ones(3, requires_grad=True).numpy()),
    ("item of many", ValueError, r"item\(\) of a tensor with 3 elements", lambda: fn.ones(3).item()),
    ("if on many", RuntimeError, r"bool\(\) of a tensor with 3 elements of shape \(3,\) is ambiguous", lambda: bool(fn.ones(3) > 0)),
    ("grad of a vector", RuntimeError, r"grad: the function must return a scalar, got shape \(3,\)", lambda: fn.grad(lambda x: x)(fn.ones(3))),
    ("vmap sizes", ValueError, r"vmap: mapped axes must have one size, got \[3, 4\]", lambda: fn.vmap(lambda a, b: a + b)(fn.ones(3), fn.ones(4))),
    ("vmap nothing", ValueError, r"vmap: no argument is mapped", lambda: fn.vmap(lambda a: a, in_axes=None)(fn.ones(3))),
    ("dropout p", ValueError, r"Dropout: p must be between 0 and 1, got 1.5", lambda: nn.Dropout(1.5)),
    ("dropout key", ValueError, r"Dropout\(p=0.5, inplace=False\) draws random numbers", lambda: L.Dropout()({}, {}, X, training=True)),
    ("learning rate", ValueError, r"SGD: invalid lr: -1", lambda: optim.SGD(nn.Linear(1, 1).parameters(), lr=-1)),
    ("optimizer options", TypeError, r"SGD: unexpected arguments \['momentun'\]", lambda: optim.SGD([fn.ones(1)], momentun=0.9)),
    ("state_dict", RuntimeError, r"size mismatch for weight", lambda: nn.Linear(2, 2).load_state_dict(nn.Linear(3, 2).state_dict())),
    ("dtype", TypeError, r"expected a dtype such as funcnn.float32", lambda: fn.zeros(2, dtype="floot")),
    ("device", RuntimeError, r"device 'cuda' is not available", lambda: fn.zeros(2, device="cuda")),
    ("key", ValueError, r"expected a key \(uint32 of shape \(2,\)\)", lambda: fn.random.normal(fn.ones(3), (2,))),
    ("expanded write", RuntimeError, r"read-only", lambda: fn.zeros(1).expand(3).add_(1.0)),
    ("static argument", TypeError, r"must be hashable, got dict|must be hashable", lambda: fn.jit(lambda x, o: x, static_argnums=1)(X, {})),
]  # fmt: skip


def _twice() -> None:
    x = fn.ones(3, requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    loss.backward()


def _overwritten() -> None:
    x = fn.ones(3, requires_grad=True) * 1
    y = x.exp()
    y.mul_(2.0)
    y.sum().backward()


@pytest.mark.parametrize(("error", "words", "act"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input(error: type, words: str, act: Callable[[], Any]) -> None:
    with pytest.raises(error, match=words):
        act()


THROUGH_INTEGERS = (lambda x: x if x.sum() > 0 else -x, lambda x: x[: x.sum().long()])


@pytest.mark.parametrize(
    "transform", [fn.jit, fn.vmap, lambda f: fn.grad(lambda x: f(x).sum())], ids=["jit", "vmap", "grad"]
)
@pytest.mark.parametrize(
    "ask",
    [THROUGH_INTEGERS[0], lambda x: x * float(x.sum()), lambda x: x * x.sum().item(), lambda x: fn.tensor(x.numpy()),
     lambda x: x * len(range(int(x.sum()))), THROUGH_INTEGERS[1]],
    ids=["if", "float", "item", "numpy", "int", "slice"],
)  # fmt: skip
def test_control_flow_on_a_traced_value(transform: Callable, ask: Callable) -> None:
    if ask in THROUGH_INTEGERS and transform not in (fn.jit, fn.vmap):
        assert transform(ask)(fn.ones(2, 3)).shape == (2, 3)  # a comparison carries no gradient, so its value is known
        return
    with pytest.raises(TypeError, match=r"traced tensor .* not known inside .*where\(\).*test_errors.py:\d+") as caught:
        transform(ask)(fn.ones(2, 3))
    assert isinstance(caught.value, fn.TracerError)


@pytest.mark.parametrize(
    "transform", [fn.jit, fn.vmap, lambda f: fn.grad(lambda x: f(x).sum())], ids=["jit", "vmap", "grad"]
)
def test_a_tracer_that_escaped(transform: Callable) -> None:
    kept = []
    transform(lambda x: kept.append(x) or x * 2)(fn.ones(3))
    with pytest.raises(fn.TracerError, match="outlived it|kept and is read"):
        kept[0] + 1


def test_a_captured_tensor_cannot_take_a_traced_value() -> None:
    held = fn.zeros(3)
    with pytest.raises(fn.TracerError, match="made outside grad"):
        fn.grad(lambda x: held.add_(x).sum())(fn.ones(3))
    assert held.tolist() == [0, 0, 0]


def test_a_failing_step_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    opt = optim.Adam(model.parameters())
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    generator = fn.get_rng_state().tolist()

    @fn.jit
    def step(x, y, broken):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if broken:
            raise KeyError("broken")
        return loss

    with pytest.raises(KeyError):
        step(fn.ones(5, 3), fn.zeros(5, dtype=fn.long), True)
    with pytest.raises(IndexError, match="target 2 is out of range"):
        step(fn.ones(5, 3), fn.full((5,), 2), False)
    assert all(np.array_equal(v.numpy(), before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and fn.get_rng_state().tolist() == generator
    assert np.isfinite(float(step(fn.ones(5, 3), fn.zeros(5, dtype=fn.long), False)))
