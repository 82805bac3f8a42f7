"""Layers of layers: in tuples, lists and dicts, in Sequentials; as modules and back; and whose layer an error names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import nn
from funcnn.core import tree

X = fn.tensor(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
KEY = fn.random.key(0)


@dataclass(frozen=True)
class Stack(L.Layer):
    """Layers in a container field, and one beside it."""

    parts: Any
    last: L.Layer

    def __call__(self, params: Any, state: Any, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        after = {}
        named = self.parts.items() if isinstance(self.parts, dict) else enumerate(self.parts)
        for name, part in named:
            if isinstance(part, L.Layer):
                own = fn.random.fold_in(key, len(after)) if key is not None else None
                given = params["parts"][str(name)], state["parts"][str(name)]
                x, after[str(name)] = part(*given, x, training=training, key=own)
        x, last = self.last(params["last"], state["last"], x, training=training)
        return x, {"parts": after, "last": last} if training else state


PARTS = [
    L.Linear(3, 4),
    L.ReLU(),
    L.BatchNorm1d(4),
    L.Sequential(L.Linear(4, 4), L.BatchNorm1d(4), L.Tanh()),
    L.Dropout(0.5),
]
CONTAINERS: dict[str, Any] = {"tuple": tuple(PARTS), "list": PARTS, "dict": dict(zip("abcde", PARTS, strict=True))}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_layers_in_a_container_have_paths_keys_modules_and_gradients(kind: str) -> None:
    layer = Stack(CONTAINERS[kind], L.Linear(4, 2))
    params, state = layer.init(KEY)
    names = list("abcde") if kind == "dict" else list("01234")
    assert list(params["parts"]) == names and layer.needs_key
    module = nn.module(layer, params, state)
    assert [path for path, _ in tree.paths(params)] == [name for name, _ in module.named_parameters()]
    torch = pytest.importorskip("torch").nn
    inner = torch.Sequential(torch.Linear(4, 4), torch.BatchNorm1d(4), torch.Tanh())
    theirs = [torch.Linear(3, 4), torch.ReLU(), torch.BatchNorm1d(4), inner, torch.Dropout(0.5)]
    holder = torch.Module()
    holder.parts = (
        torch.ModuleDict(dict(zip(names, theirs, strict=True))) if kind == "dict" else torch.ModuleList(theirs)
    )
    holder.last = torch.Linear(4, 2)
    assert list(module.state_dict()) == list(holder.state_dict())
    y, after = layer(params, state, X, training=True, key=KEY)
    assert tree.flatten(after)[1] == tree.flatten(state)[1]
    grads = fn.grad(lambda p: layer(p, state, X, training=True, key=KEY)[0].sum())(params)
    assert tree.flatten(grads)[1] == tree.flatten(params)[1]
    new, _ = fn.optim.adam().update(grads, fn.optim.adam().init(params), params)
    assert (new["parts"][names[0]]["weight"].numpy() != params["parts"][names[0]]["weight"].numpy()).any()
    back, again, states = nn.pure(module)
    assert back is layer and tree.flatten((again, states))[1] == tree.flatten((params, state))[1]
    module.eval()
    np.testing.assert_array_equal(module(X).detach().numpy(), layer(params, state, X)[0].numpy())
    module.train()
    module(X)
    moved = [t.numpy() for path, t in nn.pure(module)[2]["parts"][names[2]].items() if path == "running_mean"]
    assert (moved[0] != 0).any(), "the buffers of a layer in a container were not written"
    assert tree.nest(dict(tree.paths(params))) == params


@pytest.mark.parametrize(
    "net",
    [
        L.Sequential(L.Linear(3, 4), L.ReLU(), L.Linear(4, 2)),
        L.Sequential(first=L.Linear(3, 4), bn=L.BatchNorm1d(4), inner=L.Sequential(L.Tanh(), L.Linear(4, 2))),
        L.Sequential(),
        L.Sequential(L.Linear(3, 4), Stack((L.Linear(4, 4),), L.Linear(4, 2))),
        Stack((L.Linear(3, 4),), L.Linear(4, 2)),
        L.Linear(3, 2),
    ],
    ids=lambda net: type(net).__name__,
)
def test_pure_of_module_is_the_layer_itself(net: Any) -> None:
    params, state = net.init(KEY)
    module = nn.module(net, params, state)
    layer, again, states = nn.pure(module)
    assert layer is net
    assert tree.flatten((again, states))[1] == tree.flatten((params, state))[1]
    np.testing.assert_array_equal(layer(again, states, X)[0].numpy(), module.eval()(X).detach().numpy())


def test_a_sequential_that_changed_or_has_hooks_or_ties_is_seen_as_it_is() -> None:
    net = L.Sequential(L.Linear(3, 4), L.LeakyReLU(0.1), L.Linear(4, 4))
    module = nn.module(net, *net.init(KEY))
    module[1].negative_slope = 0.5
    layer, params, state = nn.pure(module)
    assert layer is not net and isinstance(layer, L.Sequential)
    np.testing.assert_allclose(layer(params, state, X)[0].numpy(), module(X).detach().numpy(), rtol=1e-6)
    module.append(nn.ReLU())
    assert len(nn.pure(module)[0]) == 4
    handle = module[0].register_forward_hook(lambda m, i, o: o * 2)
    hooked, params, state = nn.pure(module)
    assert not isinstance(hooked, L.Sequential)
    np.testing.assert_allclose(hooked(params, state, X)[0].numpy(), module(X).detach().numpy(), rtol=1e-6)
    handle.remove()
    square = nn.Linear(3, 3)
    tied, params, state = nn.pure(nn.Sequential(square, nn.ReLU(), square))
    assert [path for path, _ in tree.paths(params)] == ["0.weight", "0.bias"] and not isinstance(tied, L.Sequential)
    assert isinstance(nn.pure(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))[0], L.Sequential)


@dataclass(frozen=True)
class Forgetful(L.Layer):
    """A layer that returns ``what`` in place of an output and a state."""

    what: Any

    def __call__(self, params: Any, state: Any, x: Any, *, training: bool = False, key: Any = None) -> Any:
        return self.what(x)


@pytest.mark.parametrize(
    "what", [lambda x: x, lambda x: (x, x, {}), lambda x: (x, x), lambda x: None, lambda x: [x, {}]]
)
def test_a_layer_that_returns_no_state_is_named(what: Any) -> None:
    layer = Forgetful(what)
    for x in (fn.ones(2, 3), fn.ones(3, 3)):
        with pytest.raises(
            TypeError, match=r"Forgetful.__call__ must return \(output, state\).*in layer bad: Forgetful"
        ):
            L.Sequential(ok=L.ReLU(), bad=layer)({}, {}, x)
        with pytest.raises(TypeError, match=r"Forgetful.__call__ must return \(output, state\)"):
            nn.module(layer, {}, {})(x)


class Model(nn.Module):
    """A hand-written module around others, in lists and Sequentials."""

    def __init__(self, fault: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Identity(), fault)])

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("traced", [False, True])
def test_an_error_deep_inside_names_the_layer_by_its_path(traced: bool) -> None:
    wrap = fn.jit if traced else lambda f: f
    deep = L.Sequential(head=L.Linear(3, 4), body=L.Sequential(act=L.ReLU(), fc=L.Linear(6, 2)))
    params, state = deep.init(KEY)
    wanted = r"linear: weight of shape \(2, 6\) needs .* \[in layer {}: Linear\(in_features=6, out_features=2"
    with pytest.raises(fn.ShapeError, match=wanted.format(r"body\.fc")):
        wrap(lambda p, x: deep(p, state, x)[0])(params, X)
    with pytest.raises(fn.ShapeError, match=wanted.format(r"body\.fc")):
        wrap(nn.module(deep, params, state))(X)
    with pytest.raises(fn.ShapeError, match=wanted.format(r"blocks\.1\.1")):
        wrap(Model(nn.Linear(6, 2)))(X)
    with pytest.raises(fn.ShapeError, match=r"needs an input whose last size is 6, got \(5, 3\)$"):
        wrap(nn.Linear(6, 2))(X)


def test_an_lstm_in_a_sequential_is_named_by_the_layer_after_it() -> None:
    net = L.Sequential(rnn=L.LSTM(3, 4), head=L.Linear(4, 2))
    with pytest.raises(
        fn.ShapeError, match=r"input is a tuple: layer rnn, LSTM\(3, 4\), gives .* \[in layer head: Linear"
    ):
        net(*net.init(KEY), X)
    again = L.Sequential(a=L.LSTM(3, 4), b=L.GRU(4, 4))
    with pytest.raises(TypeError, match=r"input is a tuple: layer a, LSTM\(3, 4\), gives .* \[in layer b: GRU"):
        again(*again.init(KEY), X)
    with pytest.raises(fn.FuncnnError, match=r"input is a tuple.*\[in layer 1: Linear"):
        nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2))(X)


def test_what_a_user_raises_stays_as_it_is() -> None:
    class Own(Exception):
        pass

    def fail(x: Any) -> Any:
        raise Own("mine")

    with pytest.raises(Own, match="^mine$"):
        L.Sequential(a=Forgetful(fail))({}, {}, X)
    with pytest.raises(Own, match="^mine$"):
        nn.Sequential(nn.module(Forgetful(fail), {}, {}))(X)
