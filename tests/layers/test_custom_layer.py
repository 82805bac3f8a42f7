"""Operations of a user's own as a pure layer and as a module."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import nn
from funcnn.kernels import kernel


@kernel
def scale(x, w, y, power):
    """y = x * w ** power, by rows."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[r, j] = x[r, j] * w[j] ** power


scaled = fn.primitive("scaled_rows", scale, {"y": "x"}, params={"power": 1}, fold=("x",),
                      backward=lambda dy, x, w, power: (dy * w**power, (dy * x).sum(0) * power * w ** (power - 1)))  # fmt: skip
X = fn.tensor(np.random.default_rng(0).normal(size=(3, 4)))


def test_a_pure_layer_has_its_weights_by_name() -> None:
    layer = L.Custom(scaled, {"w": np.arange(1.0, 5.0)}, {"power": 2})
    params, state = layer.init(fn.random.key(0))
    y, after = layer(params, state, X)
    np.testing.assert_allclose(y.numpy(), X.numpy() * np.arange(1.0, 5.0) ** 2)
    grads = fn.grad(lambda params: layer(params, state, X)[0].sum())(params)
    np.testing.assert_allclose(grads["w"].numpy(), 2 * np.arange(1.0, 5.0) * X.numpy().sum(0))
    assert after is state and repr(layer) == "Custom(scaled_rows, power=2)"
    net = L.Sequential(lin=L.Linear(4, 4, dtype=fn.float64), own=layer)
    params, state = net.init(fn.random.key(1))
    assert sorted(params) == ["lin", "own"] and fn.jit(lambda x: net(params, state, x)[0])(X).shape == (3, 4)


def test_a_module_trains_its_weights() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4, dtype=fn.float64),
        nn.Custom(scaled, {"w": lambda key: fn.random.normal(key, (4,)).to(fn.float64)}),
    )
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "1.w"] and isinstance(model[1].w, nn.Parameter)
    opt = fn.optim.SGD(model.parameters(), lr=0.1)

    @fn.jit
    def step(x):
        opt.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    losses = [float(step(X)) for _ in range(5)]
    assert losses[-1] < losses[0]
    layer, params, state = nn.pure(model)
    np.testing.assert_array_equal(layer(params, state, X)[0].numpy(), model(X).detach().numpy())


def test_any_function_of_tensors_may_be_one() -> None:
    assert nn.Custom(fn.exp)(X).shape == X.shape
    with pytest.raises(TypeError, match=r"Custom: \['v'\] is no input of scaled_rows"):
        L.Custom(scaled, {"v": np.ones(4)})
    with pytest.raises(TypeError, match="weights must be a dict by name, got a list"):
        L.Custom(scaled, ["w"])
    with pytest.raises(TypeError, match=r"scaled_rows: takes 2 inputs \(x, w\), got 1"):
        nn.Custom(scaled)(X)
