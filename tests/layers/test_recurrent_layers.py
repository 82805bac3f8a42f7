"""Recurrent layers and cells: values, gradients, names and reprs against PyTorch's modules; the pure layer against the module."""

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

SEQUENCES = [
    "LSTM(3, 4)", "LSTM(3, 5, 2, bidirectional=True)", "LSTM(3, 5, 2, proj_size=2, bidirectional=True, batch_first=True)",
    "LSTM(3, 4, bias=False)", "LSTM(3, 4, 2, True, True, 0.0, True)", "GRU(3, 4)", "GRU(3, 4, 2, False, True)",
    "GRU(3, 4, num_layers=2, bidirectional=True)", "RNN(3, 4)", "RNN(3, 4, 2, 'relu')", "RNN(3, 4, 1, 'tanh', False, True)",
    "RNN(3, 4, nonlinearity='relu', bidirectional=True)",
]  # fmt: skip
CELLS = ["LSTMCell(3, 4)", "LSTMCell(3, 4, False)", "GRUCell(3, 4)", "GRUCell(3, 4, bias=False)", "RNNCell(3, 4)",
         "RNNCell(3, 4, True, 'relu')"]  # fmt: skip
TOLERANCE = {"float32": {"rtol": 2e-4, "atol": 2e-5}, "float64": {"rtol": 1e-10, "atol": 1e-12}}


def _made(text: str, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """The pure layer, our module and PyTorch's, the modules with the same weights."""
    mine, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    mine.to(getattr(fn, dtype)), theirs.to(getattr(torch, dtype))
    theirs.load_state_dict({k: torch.from_numpy(np.array(v.numpy())) for k, v in mine.state_dict().items()})
    return eval(f"L.{text}", {"L": L}), mine, theirs


def _flat(result: Any) -> list:
    """y and the states, however nested."""
    if not isinstance(result, tuple):
        return [result]
    return [leaf for part in result for leaf in _flat(part)]


def _hx(text: str, shapes: list, rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    return [rng.normal(size=shape).astype(dtype) for shape in (shapes if text.startswith("LSTM") else shapes[:1])]


def _compare(text: str, x: np.ndarray, hx: list, dtype: str) -> None:
    pure, mine, theirs = _made(text, dtype)
    ours = [fn.tensor(a, requires_grad=True) for a in (x, *hx)]
    other = [torch.tensor(a, requires_grad=True) for a in (x, *hx)]

    def apply(module: Any, tensors: list) -> Any:
        return module(tensors[0], *([tuple(tensors[1:])] if len(hx) == 2 else tensors[1:]))

    got, expected = apply(mine, ours), apply(theirs, other)
    assert isinstance(got, tuple) == isinstance(expected, tuple) and len(_flat(got)) == len(_flat(expected))
    weights = [np.random.default_rng(3).normal(size=tuple(t.shape)).astype(dtype) for t in _flat(expected)]
    for a, e in zip(_flat(got), _flat(expected), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), e.detach().numpy(), **TOLERANCE[dtype])
    sum((t * fn.tensor(w)).sum() for t, w in zip(_flat(got), weights, strict=True)).backward()
    sum((t * torch.tensor(w)).sum() for t, w in zip(_flat(expected), weights, strict=True)).backward()
    for a, e in zip([*ours, *mine.parameters()], [*other, *theirs.parameters()], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), e.grad.numpy(), **TOLERANCE[dtype])
    params, state = trees(mine, every=True)
    out, same = pure(params, state, ours[0], *([tuple(ours[1:])] if len(hx) == 2 else ours[1:]))
    assert same is state and all(fn.equal(a, b) for a, b in zip(_flat(out), _flat(got), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", SEQUENCES)
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # of torch
def test_sequences_against_torch(text: str, dtype: str) -> None:
    theirs, rng = eval(f"nn.{text}", {"nn": torch.nn}), np.random.default_rng(0)
    count, projected = theirs.num_layers * (2 if theirs.bidirectional else 1), theirs.proj_size or theirs.hidden_size
    for rows in ((2,), ()):
        shape = (2, 5, 3) if theirs.batch_first and rows else (5, *rows, 3)
        hx = _hx(text, [(count, *rows, projected), (count, *rows, theirs.hidden_size)], rng, dtype)
        _compare(text, rng.normal(size=shape).astype(dtype), hx, dtype)
        _compare(text, rng.normal(size=shape).astype(dtype), [], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", CELLS)
def test_cells_against_torch(text: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for rows in ((2,), ()):
        x = rng.normal(size=(*rows, 3)).astype(dtype)
        _compare(text, x, _hx(text, [(*rows, 4)] * 2, rng, dtype), dtype)
        _compare(text, x, [], dtype)


@pytest.mark.filterwarnings("ignore:.*dropout")
@pytest.mark.parametrize("text", [*SEQUENCES, *CELLS, "LSTM(3, 4, 2, dropout=0.25)", "GRU(3, 4, dropout=0.5)"])
def test_reprs_names_and_signatures(text: str) -> None:
    pure, mine, theirs = _made(text, "float32")
    assert repr(mine) == repr(theirs) == repr(pure)
    assert {n: tuple(v.shape) for n, v in mine.state_dict().items()} == {
        n: tuple(v.shape) for n, v in theirs.state_dict().items()
    }
    assert list(mine.state_dict()) == list(theirs.state_dict())
    params, state = pure.init(fn.random.key(0))
    assert [path for path, _ in tree.paths(params)] == list(theirs.state_dict()) and state == {}
    bound = 1 / np.sqrt(pure.hidden_size)
    assert all(np.abs(p.numpy()).max() <= bound and np.ptp(p.numpy()) > 0 for p in tree.leaves(params))
    wanted = [n for n in inspect.signature(type(theirs)).parameters if n not in ("args", "kwargs")]
    assert [n for n in inspect.signature(type(mine)).parameters if n in wanted] == wanted
    assert repr(pickle.loads(pickle.dumps(mine))) == repr(mine)


def test_dropout_between_layers() -> None:
    layer = L.LSTM(3, 4, 2, dropout=0.5)
    params, state = layer.init(fn.random.key(0))
    x = fn.randn(5, 2, 3)
    first, again, other = (layer(params, state, x, training=True, key=fn.random.key(s))[0][0] for s in (1, 1, 2))
    assert fn.equal(first, again) and not fn.equal(first, other)
    assert fn.equal(layer(params, state, x)[0][0], layer(params, state, x, key=fn.random.key(1))[0][0])
    with pytest.raises(L.KeyRequired, match=r"LSTM\(3, 4, num_layers=2, dropout=0.5\)"):
        layer(params, state, x, training=True)
    module = nn.GRU(3, 4, 2, dropout=0.5)
    fn.manual_seed(0)
    a = module(x)[0]
    assert not fn.equal(a, module(x)[0])
    module.eval()
    assert fn.equal(module(x)[0], module(x)[0])


def test_flatten_parameters_changes_nothing() -> None:
    module = nn.LSTM(3, 4)
    before = {n: v.numpy().copy() for n, v in module.state_dict().items()}
    assert module.flatten_parameters() is None
    assert all((v.numpy() == before[n]).all() for n, v in module.state_dict().items())


def test_an_imperative_training_step_learns_and_compiles() -> None:
    rng = np.random.default_rng(0)
    x, target = fn.tensor(rng.normal(size=(6, 4, 3))), fn.tensor(rng.normal(size=(6, 4, 5)))
    histories = []
    for wrap in (lambda f: f, fn.jit):
        fn.manual_seed(0)
        model = nn.LSTM(3, 5).double()
        opt = fn.optim.SGD(model.parameters(), lr=0.5)

        def step(x: Any, target: Any, model: Any = model, opt: Any = opt) -> Any:
            opt.zero_grad()
            loss = ((model(x)[0] - target) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        run = wrap(step)
        histories.append([run(x, target).item() for _ in range(6)])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-12)
    assert histories[0][-1] < histories[0][0]


def test_errors() -> None:
    for match, call in (
        ("hidden_size must be positive", lambda: L.LSTM(3, 0)),
        ("num_layers must be positive", lambda: L.GRU(3, 4, 0)),
        ("dropout must be a probability", lambda: L.LSTM(3, 4, dropout=2.0)),
        ("dropout must be a probability", lambda: L.LSTM(3, 4, dropout=True)),
        ("proj_size must be 0 or below hidden_size 4", lambda: L.LSTM(3, 4, proj_size=4)),
        ('nonlinearity must be "tanh" or "relu"', lambda: L.RNN(3, 4, nonlinearity="sigmoid")),
        ('RNNCell: nonlinearity must be "tanh" or "relu"', lambda: nn.RNNCell(3, 4, nonlinearity="x")),
        ("LSTMCell: input_size must be positive", lambda: nn.LSTMCell(0, 4)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.warns(UserWarning, match="stands between layers and does nothing with num_layers=1"):
        nn.LSTM(3, 4, dropout=0.5)
