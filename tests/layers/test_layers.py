"""The table of layers: pure layer, generated module and PyTorch's module agree in values, gradients, state, repr and names."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import nn
from funcnn.core import tree
from funcnn.nn.binding import trees

torch = pytest.importorskip("torch")

# (constructor as written, input shape)
ROWS: list[tuple[str, tuple[int, ...]]] = [
    ("Linear(3, 4)", (5, 3)), ("Linear(3, 4, bias=False)", (2, 5, 3)), ("Identity()", (2, 3)),
    ("Conv1d(4, 6, 3)", (2, 4, 9)), ("Conv1d(4, 6, 3, padding='same', dilation=2)", (2, 4, 9)),
    ("Conv2d(4, 6, 3)", (2, 4, 7, 8)), ("Conv2d(4, 6, (3, 5), (2, 1), (4, 2), (3, 1), 2, False)", (2, 4, 9, 8)),
    ("Conv2d(4, 8, 3, padding=1, groups=4)", (2, 4, 6, 5)), ("Conv2d(2, 3, 3, padding='valid')", (2, 5, 5)),
    ("Conv2d(2, 3, 3, padding=2, padding_mode='reflect')", (2, 2, 6, 5)),
    ("Conv2d(2, 3, 3, padding=(1, 2), padding_mode='circular')", (2, 2, 6, 5)),
    ("Conv2d(2, 3, 4, padding='same', padding_mode='replicate')", (2, 2, 6, 5)),
    ("Conv3d(2, 3, 2, stride=2)", (2, 2, 4, 5, 4)),
    ("MaxPool1d(2)", (2, 3, 8)), ("MaxPool2d(3, stride=2, padding=1)", (2, 3, 8, 7)), ("MaxPool2d((3, 2), (2, 1), 1, 1, False, True)", (2, 3, 8, 7)),
    ("MaxPool3d(2)", (1, 2, 4, 5, 4)), ("AvgPool1d(3, 2, 1)", (2, 3, 8)), ("AvgPool2d(3, 2, count_include_pad=False, divisor_override=4)", (2, 3, 8, 7)),
    ("AvgPool3d(2, ceil_mode=True)", (1, 2, 5, 5, 4)), ("LPPool1d(2, 3)", (2, 3, 8)), ("LPPool2d(2, (3, 2), stride=2)", (2, 3, 8, 7)),
    ("LPPool3d(2, 2, ceil_mode=True)", (1, 2, 5, 5, 4)), ("AdaptiveAvgPool1d(3)", (2, 3, 8)), ("AdaptiveAvgPool2d((None, 3))", (2, 3, 8, 7)),
    ("AdaptiveAvgPool3d(2)", (2, 5, 3, 4)), ("AdaptiveMaxPool1d(5)", (2, 3, 8)), ("AdaptiveMaxPool2d((2, None))", (2, 3, 8, 7)),
    ("AdaptiveMaxPool3d(1)", (1, 2, 5, 3, 4)),
    ("BatchNorm1d(4)", (6, 4)), ("BatchNorm1d(4, momentum=None)", (6, 4, 3)), ("BatchNorm2d(4, affine=False)", (3, 4, 5, 2)),
    ("BatchNorm2d(4, eps=1e-3, momentum=0.3)", (3, 4, 5, 2)), ("BatchNorm2d(4, track_running_stats=False)", (3, 4, 5, 2)),
    ("BatchNorm3d(2)", (3, 2, 2, 3, 2)), ("LayerNorm((3, 4))", (5, 3, 4)), ("LayerNorm(4, bias=False)", (5, 4)),
    ("LayerNorm(4, elementwise_affine=False)", (5, 4)), ("GroupNorm(2, 4)", (3, 4, 5)), ("GroupNorm(2, 6, affine=False)", (3, 6)),
    ("GroupNorm(1, 4, 1e-3, bias=False)", (2, 4, 3, 3)), ("InstanceNorm1d(4)", (2, 4, 5)), ("InstanceNorm1d(4)", (4, 5)),
    ("InstanceNorm2d(3, affine=True, track_running_stats=True)", (2, 3, 4, 3)), ("InstanceNorm3d(2, track_running_stats=True, momentum=None)", (2, 2, 2, 3, 2)),
    ("InstanceNorm2d(3, affine=True, bias=False)", (3, 4, 3)), ("RMSNorm(4)", (3, 4)), ("RMSNorm((3, 4), eps=1e-3, elementwise_affine=False)", (2, 3, 4)),
    ("LocalResponseNorm(2)", (2, 5, 3)), ("LocalResponseNorm(3, 0.5, 0.6, 2.0)", (2, 5, 3, 2)), ("ReLU()", (3, 4)), ("ReLU(inplace=True)", (3, 4)), ("LeakyReLU(0.1)", (3, 4)),
    ("PReLU()", (3, 4)), ("PReLU(4)", (3, 4, 2)), ("Sigmoid()", (3, 4)), ("Tanh()", (3, 4)), ("GELU()", (3, 4)), ("GELU('tanh')", (3, 4)),
    ("Softmax(1)", (3, 4)), ("Softmax(dim=-1)", (2, 3, 4)), ("LogSoftmax(1)", (3, 4)), ("Flatten()", (2, 3, 4)), ("Flatten(0, 1)", (2, 3, 4)),
    ("Dropout(0.0)", (3, 4)),
]  # fmt: skip
IDS = [text for text, _ in ROWS]


def _made(text: str) -> tuple[Any, Any, Any]:
    return eval(f"L.{text}", {"L": L}), eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})


def _copy_weights(theirs: Any, mine: Any, dtype: str) -> None:
    theirs.to(getattr(torch, dtype))
    theirs.load_state_dict({k: torch.from_numpy(np.array(v.numpy())) for k, v in mine.state_dict().items()})


@pytest.mark.parametrize(("text", "shape"), ROWS, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_gradients_and_state(text: str, shape: tuple, dtype: str) -> None:
    pure, mine, theirs = _made(text)
    mine.to(getattr(fn, dtype))
    rng = np.random.default_rng(0)
    for p in mine.parameters():
        p.data.copy_(rng.normal(size=p.shape))
    _copy_weights(theirs, mine, dtype)
    params, state = trees(mine, every=True)
    params, state = tree.map(lambda t: t.detach().clone(), params), tree.map(lambda t: t.detach().clone(), state)
    tol = {"rtol": 2e-4, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-10}
    for _ in range(2):  # two training steps, then evaluation
        array = rng.normal(size=shape).astype(dtype)
        x, t = fn.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        got, expected = mine(x * 1), theirs(t * 1)  # times 1: an in-place ReLU may not write to a leaf
        before = state
        y, state = pure(params, state, fn.tensor(array), training=True, key=fn.random.key(0))
        np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), **tol)
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), **tol)
        assert got.dtype == np.dtype(dtype)
        g = rng.normal(size=tuple(expected.shape)).astype(dtype)
        got.backward(fn.tensor(g))
        expected.backward(torch.tensor(g))
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **tol)
        grads = fn.vjp(
            lambda p, before=before, array=array: pure(
                p, before, fn.tensor(array), training=True, key=fn.random.key(0)
            )[0],
            params,
        )[1](fn.tensor(g))[0]
        for name, p in theirs.named_parameters():
            np.testing.assert_allclose(dict(tree.paths(grads))[name].numpy(), p.grad.numpy(), **tol, err_msg=name)
            p.grad = None
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[name].numpy(), value.numpy(), **tol, err_msg=name)
    for name, value in theirs.named_buffers():
        np.testing.assert_allclose(dict(tree.paths(state))[name].numpy(), value.numpy(), **tol, err_msg=name)
    mine.eval(), theirs.eval()
    np.testing.assert_allclose(mine(x * 1).detach().numpy(), theirs(t * 1).detach().numpy(), **tol)
    same = pure(params, state, x.detach())
    assert same[1] is state
    np.testing.assert_allclose(same[0].numpy(), theirs(t * 1).detach().numpy(), **tol)


@pytest.mark.parametrize("text", IDS)
def test_reprs_names_and_signatures(text: str) -> None:
    pure, mine, theirs = _made(text)
    assert repr(mine) == repr(theirs) == repr(pure)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        held = mine.state_dict()[name]
        assert tuple(held.shape) == tuple(value.shape) and f"torch.{held.dtype}" == str(value.dtype)
    params, state = pure.init(fn.random.key(0))
    assert {path for path, _ in tree.paths(params) + tree.paths(state) if path} == set(theirs.state_dict())
    wanted = [n for n in inspect.signature(type(theirs)).parameters if n not in ("args", "kwargs")]
    assert [n for n in inspect.signature(type(mine)).parameters if n in wanted] == wanted
    again = pickle.loads(pickle.dumps(mine))
    assert repr(again) == repr(mine) and list(again.state_dict()) == list(mine.state_dict())


@pytest.mark.filterwarnings("ignore:size_average and reduce:UserWarning")
def test_losses_as_modules() -> None:
    rng = np.random.default_rng(1)
    logits, classes, weight = rng.normal(size=(6, 4)), rng.integers(0, 4, 6), rng.uniform(0.5, 2, 4)
    for text in ("CrossEntropyLoss()", "CrossEntropyLoss(weight=W, label_smoothing=0.1)", "CrossEntropyLoss(ignore_index=2, reduction='sum')",
                 "NLLLoss()", "NLLLoss(weight=W)", "CrossEntropyLoss(reduce=False)", "NLLLoss(size_average=False)"):  # fmt: skip
        mine, theirs = (
            eval(f"nn.{text}", {"nn": nn, "W": fn.tensor(weight)}),
            eval(f"nn.{text}", {"nn": torch.nn, "W": torch.tensor(weight)}),
        )
        x, t = fn.tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
        got, expected = mine(x, fn.tensor(classes)), theirs(t, torch.tensor(classes))
        np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=1e-10)
        got.sum().backward(), expected.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-9, atol=1e-12)
        assert repr(mine) == repr(theirs) and list(mine.state_dict()) == list(theirs.state_dict())
    for name in ("MSELoss", "L1Loss"):
        for reduction in ("mean", "sum", "none"):
            a, b = rng.normal(size=(2, 3, 4))[:, :, 0], rng.normal(size=(2, 3))
            got = getattr(nn, name)(reduction=reduction)(fn.tensor(a), fn.tensor(b))
            expected = getattr(torch.nn, name)(reduction=reduction)(torch.tensor(a), torch.tensor(b))
            np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-12)


def test_dropout_in_training() -> None:
    layer, x = L.Dropout(0.3), fn.ones(200, 100)
    key = fn.random.key(5)
    y, _ = layer({}, {}, x, training=True, key=key)
    assert np.array_equal(y.numpy(), layer({}, {}, x, training=True, key=key)[0].numpy())
    assert abs(float((y == 0).float().mean()) - 0.3) < 0.02 and set(np.unique(y.numpy()).round(5)) == {
        0.0,
        np.float32(1 / 0.7).round(5),
    }
    net = L.Sequential(a=L.Dropout(0.5), b=L.Dropout(0.5))
    with pytest.raises(L.KeyRequired, match="Dropout"):
        net(*net.init(key), x, training=True)


def test_attributes_are_the_layers_arguments() -> None:
    m = nn.Conv2d(3, 6, 5, bias=False)
    assert m.kernel_size == (5, 5) and m.in_channels == 3 and m.bias is None and m.padding_mode == "zeros"
    d = nn.Dropout(0.5)
    d.p = 0.0
    assert d(fn.ones(4)).tolist() == [1] * 4 and repr(d) == "Dropout(p=0.0, inplace=False)"

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    scaled = Scaled(2, 2)
    np.testing.assert_allclose(
        scaled(fn.ones(1, 2)).detach().numpy(),
        2 * nn.functional.linear(fn.ones(1, 2), scaled.weight, scaled.bias).detach().numpy(),
    )
    with pytest.raises(AttributeError, match="nothing"):
        _ = m.nothing
