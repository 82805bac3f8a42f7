"""What the pure surface takes: NumPy wherever data is taken, dtypes that stay, and refusals that name what was wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import layers as L
from funcnn import optim
from funcnn.core import tree
from tests import helpers as h
from tests.cases import TABLE

RULES = {
    "sgd": optim.sgd(0.1), "momentum": optim.sgd(0.1, momentum=0.9, dampening=0.1), "adam": optim.adam(0.1),
    "amsgrad": optim.adam(0.1, amsgrad=True), "adamw": optim.adamw(0.1),
}  # fmt: skip
PARAMS = {"w": np.ones((3, 2), np.float32), "deep": [{"b": np.ones(2, np.float32)}, (np.ones((), np.float32),)]}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
eager_and_jit = pytest.mark.parametrize("wrap", [lambda f: f, fn.jit], ids=["eager", "jit"])


def _tensors(given: Any) -> Any:
    return tree.map(fn.tensor, given)


@eager_and_jit
@every_rule
def test_arrays_are_taken_as_gradients_parameters_and_state(rule: Any, wrap: Any) -> None:
    grads = tree.map(lambda a: a * np.float32(0.5), PARAMS)
    state = rule.init(PARAMS)
    wanted = rule.update(_tensors(grads), rule.init(_tensors(PARAMS)), _tensors(PARAMS))
    arrays = tree.map(lambda t: t.numpy(), state)
    update = wrap(rule.update)
    for g, s, p in ((grads, state, _tensors(PARAMS)), (_tensors(grads), arrays, PARAMS), (grads, arrays, PARAMS)):
        got = update(g, s, p)
        for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert a.dtype == b.dtype == fn.float32


@eager_and_jit
@every_rule
def test_a_gradient_of_another_dtype_does_not_change_the_parameters(rule: Any, wrap: Any) -> None:
    params = _tensors(PARAMS)
    state = rule.init(params)
    noise = {**params, "deep": [{"b": np.random.default_rng(0).normal(size=2)}, params["deep"][1]]}
    for other in (noise, tree.map(lambda t: t + t.double(), noise["deep"][0]["b"] * 0 + params["deep"][0]["b"])):
        grads = other if isinstance(other, dict) else {**noise, "deep": [{"b": other}, params["deep"][1]]}
        with pytest.raises(
            fn.DTypeError, match=r"gradient of float64\(2,\).*params\['deep'\]\[0\]\['b'\].*\.to\(float32\)"
        ):
            wrap(rule.update)(grads, state, params)


@every_rule
def test_integers_are_not_optimized_but_stay_where_they_have_no_gradient(rule: Any) -> None:
    params = {"w": fn.ones(2), "steps": fn.tensor(3)}
    state = rule.init(params)
    new, _ = rule.update({"w": fn.ones(2), "steps": None}, state, params)
    assert new["steps"] is params["steps"] and new["w"].dtype == fn.float32
    with pytest.raises(fn.DTypeError, match=r"params\['steps'\], int64\(\), has a gradient, but only floating-point"):
        rule.update({"w": fn.ones(2), "steps": fn.tensor(1)}, state, params)


@eager_and_jit
@every_rule
def test_arguments_in_the_wrong_order_are_told_the_right_one(rule: Any, wrap: Any) -> None:
    params = _tensors(PARAMS)
    state = rule.init(params)
    for wrong in ((state, params, params), (params, params, state), (state, state, params), (params, params, params)):
        with pytest.raises(
            (fn.ShapeError, fn.DTypeError), match=r"the arguments are update\(grads, state, params\)|init"
        ):
            wrap(rule.update)(*wrong)
    for junk in ({"w": "text"}, {"w": 1.5}):
        with pytest.raises(fn.DTypeError, match=r"params\['w'\]: expected a tensor or an array, got a (str|float)"):
            rule.init(junk)
    with pytest.raises(fn.DTypeError, match=r"grads\['w'\]: expected a tensor or an array, got a str"):
        rule.update({**params, "w": "text"}, state, params)


@eager_and_jit
def test_a_pullback_takes_cotangents_of_the_outputs_dtype_alone(wrap: Any) -> None:
    x, d = fn.tensor([1.0, 2.0]), fn.tensor([1.0, 2.0], dtype=fn.float64)

    def pulled(x: Any, g: Any) -> Any:
        return fn.vjp(lambda x: x * x, x)[1](g)[0]

    for g in (np.ones(2), fn.ones(2, dtype=fn.float64), fn.ones(2, dtype=fn.int64), fn.ones(2).half()):
        with pytest.raises(
            fn.DTypeError, match=r"vjp: a cotangent of .*\(2,\) for an output of float32\(2,\); convert"
        ):
            wrap(pulled)(x, g)
    with pytest.raises(fn.ShapeError, match=r"vjp: a cotangent of float32\(3,\) for an output of float32\(2,\)"):
        wrap(pulled)(x, fn.ones(3))
    assert (
        wrap(pulled)(x, np.ones(2, np.float32)).tolist() == [2, 4] and wrap(pulled)(d, np.ones(2)).dtype == fn.float64
    )
    assert fn.vjp(lambda x: (x * x).sum(), d)[1](1.0)[0].dtype == fn.float64
    assert fn.vjp(lambda x: (x * x).sum(), x)[1](2)[0].tolist() == [4, 8]


def test_every_function_of_the_table_takes_arrays() -> None:
    """Each input in turn: none is asked for what only a tensor has inside.

    What a row does by a method of its input is NumPy's then, which may lack it, or give an array; ``cast`` is for tensors.
    """
    refused, compared = [], 0
    for row in [row for row in TABLE if not row.id.startswith("cast")]:
        arrays = h.inputs(row, row.dtypes[0])
        wanted = h.numbers(row.fn(*h.boxes(arrays)))
        for position in range(len(arrays)):
            given: list = h.boxes(arrays)
            given[position] = arrays[position]
            try:
                got = h.numbers(row.fn(*given))
            except (AttributeError, TypeError, ValueError, fn.FuncnnError) as error:
                if "object has no attribute '_" in str(error):
                    refused.append((row.id, position, str(error)))
                continue
            if len(got) == len(wanted):
                compared += 1
                h.close(got, wanted, f"{row.id} with an array as input {position}", 1e-6, 1e-6)
    assert not refused, refused
    assert compared > 800, compared


@pytest.mark.parametrize(
    "layer",
    [
        L.Linear(3, 2), L.Conv2d(2, 3, 3), L.BatchNorm2d(2), L.InstanceNorm2d(2, affine=True, track_running_stats=True),
        L.GroupNorm(1, 2), L.LSTM(3, 2, 2), L.GRU(3, 2), L.RNN(3, 2), L.LSTMCell(3, 2), L.PReLU(), L.MultiheadAttention(4, 2),
        L.Embedding(5, 3), L.LayerNorm(3),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_take_parameters_state_and_inputs_as_arrays(layer: Any) -> None:
    shapes = {
        "Conv2d": (2, 2, 5, 5),
        "BatchNorm2d": (4, 2, 3, 3),
        "InstanceNorm2d": (4, 2, 3, 3),
        "GroupNorm": (4, 2, 3, 3),
    }
    name = type(layer).__name__
    x: Any = (
        np.random.default_rng(0).normal(size=shapes.get(name, (4, 2, 4) if "Multi" in name else (4, 3))).astype("f4")
    )
    x = np.array([1, 4, 0]) if name == "Embedding" else x
    inputs = [x] * 3 if "Multi" in name else [x]
    params, state = layer.init(fn.random.key(0))
    arrays = [tree.map(lambda t: t.numpy(), part) for part in (params, state)]
    wanted = layer(params, state, *map(fn.tensor, inputs), training=True)
    got = layer(*arrays, *inputs, training=True)
    for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a.numpy() if isinstance(a, fn.Tensor) else a), b.numpy())
