"""Recurrent functions beside the table of cases: sizes that fill the tiles against PyTorch, options, errors, transformations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.ops.recurrent.weights import recurrent_weights_p
from tests.helpers import by_each_way, on_workers

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
MODES = list(GATES)
SIZES = [(5, 3, 4, 6), (2, 20, 5, 37), (3, 1, 4, 70), (1, 31, 2, 16)]  # steps, N, input_size, hidden_size


def _arrays(
    mode: str, x: tuple, n: tuple, hidden: int, layers: int = 1, directions: int = 1, biases: bool = True
) -> list:
    """x, the first states and the parameters."""
    rng, rows = np.random.default_rng(0), GATES[mode] * hidden
    shapes = [x] + [(layers * directions, *n, hidden)] * (2 if mode == "lstm" else 1)
    for layer in range(layers):
        for _ in range(directions):
            shapes += [(rows, hidden * directions if layer else x[-1]), (rows, hidden)] + [(rows,)] * (2 * biases)
    return [rng.uniform(-1, 1, shape) / np.sqrt(max(hidden, 4)) for shape in shapes]


def _call(m: Any, mode: str, tensors: list, *options: Any, **more: Any) -> tuple:
    states = 2 if mode == "lstm" else 1
    hx = tensors[1 : 1 + states]
    return getattr(m, mode)(tensors[0], hx if states == 2 else hx[0], tensors[1 + states :], *options, **more)


def _gradients(outs: tuple, weigh: Any, leaves: list) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    sum((out * weigh(rng.normal(size=tuple(out.shape)))).sum() for out in outs).backward()
    return [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_against_torch(mode: str, size: tuple, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    steps, n, width, hidden = size
    arrays = [a.astype(dtype) for a in _arrays(mode, (steps, n, width), (n,), hidden, 2, 2)]
    ours = [fn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    got = _call(fn, mode, ours, True, 2, 0.0, True, True, False)
    expected = _call(torch, mode, theirs, True, 2, 0.0, True, True, False)
    tol = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    for a, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), e.detach().numpy(), **tol)
    grads = _gradients(got, lambda w: fn.tensor(w.astype(dtype)), ours)
    wanted = _gradients(expected, lambda w: torch.tensor(w.astype(dtype)), theirs)
    for i, (a, e) in enumerate(zip(grads, wanted, strict=True)):
        np.testing.assert_allclose(a, e, **tol, err_msg=f"input {i}")


@pytest.mark.parametrize("mode", MODES)
def test_batch_first_unbatched_and_no_states(mode: str) -> None:
    arrays = [fn.tensor(a) for a in _arrays(mode, (4, 1, 3), (1,), 5, 2, 2)]
    states = 2 if mode == "lstm" else 1
    y, *ends = _call(fn, mode, arrays, True, 2, 0.0, False, True, False)
    first = [arrays[0].transpose(0, 1), *arrays[1:]]
    z, *same = _call(fn, mode, first, True, 2, 0.0, False, True, True)
    assert fn.equal(z.transpose(0, 1), y) and all(fn.equal(a, b) for a, b in zip(ends, same, strict=True))
    bare = [t.squeeze(1) for t in arrays[: 1 + states]] + arrays[1 + states :]
    u, *alone = _call(fn, mode, bare, True, 2, 0.0, False, True, True)
    assert u.shape == (4, 10) and fn.equal(u, y.squeeze(1))
    assert all(fn.equal(a, b.squeeze(1)) for a, b in zip(alone, ends, strict=True))
    zeros = [arrays[0], *[fn.zeros_like(t) for t in arrays[1 : 1 + states]], *arrays[1 + states :]]
    params = zeros[1 + states :]
    none = getattr(fn, mode)(arrays[0], None, params, True, 2, 0.0, False, True, False)
    assert all(
        fn.equal(a, b) for a, b in zip(none, _call(fn, mode, zeros, True, 2, 0.0, False, True, False), strict=True)
    )


def test_an_empty_batch() -> None:
    y, h, c = _call(
        fn, "lstm", [fn.tensor(a) for a in _arrays("lstm", (3, 0, 2), (0,), 4)], True, 1, 0.0, False, False, False
    )
    assert y.shape == (3, 0, 4) and h.shape == c.shape == (1, 0, 4)
    x, state, d = np.empty((3, 0, 2)), np.empty((0, 4)), np.empty((3, 0, 16))
    (outs,) = by_each_way(recurrent_weights_p, [d, x, np.empty((3, 0, 4)), state], np.nan, reverse=False).values()
    assert not any(out.any() for out in outs)


def test_nan_spreads_along_its_row_only() -> None:
    for mode in MODES:
        arrays = _arrays(mode, (3, 2, 2), (2,), 3)
        arrays[0][1, 0] = np.nan
        y = _call(fn, mode, [fn.tensor(a) for a in arrays], True, 1, 0.0, False, False, False)[0].numpy()
        assert np.isnan(y[1:, 0]).all() and not np.isnan(y[0]).any() and not np.isnan(y[:, 1]).any()


def test_saturated_gates_stay_finite() -> None:
    for mode in ("lstm", "gru", "rnn_tanh"):
        tensors = [fn.tensor(1e6 * a, requires_grad=True) for a in _arrays(mode, (3, 2, 2), (2,), 3)]
        outs = _call(fn, mode, tensors, True, 1, 0.0, False, False, False)
        grads = _gradients(outs, fn.tensor, tensors)
        assert all(np.isfinite(t.detach().numpy()).all() for t in outs) and all(np.isfinite(g).all() for g in grads)


def test_dropout_stands_between_layers_and_follows_its_key() -> None:
    tensors = [fn.tensor(a) for a in _arrays("gru", (4, 2, 3), (2,), 5, 2)]

    def run(p: float, train: bool, seed: int = 0) -> np.ndarray:
        return _call(fn, "gru", tensors, True, 2, p, train, False, False, key=fn.random.key(seed))[0].numpy()

    assert (run(0.5, True) == run(0.5, True)).all() and (run(0.5, True) != run(0.5, True, 1)).any()
    assert (run(0.5, False) == run(0.0, True)).all() and (run(0.5, True) != run(0.0, True)).any()
    one = [fn.tensor(a) for a in _arrays("gru", (4, 2, 3), (2,), 5)]
    plain = [_call(fn, "gru", one, True, 1, p, True, False, False)[0].numpy() for p in (0.0, 0.9)]
    assert (plain[0] == plain[1]).all()


def test_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in MODES:
        arrays, results = _arrays(mode, (3, 20, 8), (20,), 130), []
        for threads in (1, 2):
            on_workers(monkeypatch, threads)
            tensors = [fn.tensor(a, requires_grad=True) for a in arrays]
            outs = _call(fn, mode, tensors, True, 1, 0.0, False, False, False)
            results.append([*[t.detach().numpy() for t in outs], *_gradients(outs, fn.tensor, tensors)])
        assert all((a == b).all() for a, b in zip(*results, strict=True))


# ---- transformations ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
def test_per_example_gradients_are_those_of_single_examples(mode: str) -> None:
    x, *rest = [fn.tensor(a) for a in _arrays(mode, (4, 3, 2), (1,), 3)]
    states = 2 if mode == "lstm" else 1
    hx, params = rest[:states], rest[states:]

    def loss(params: list, example: Any) -> Any:
        return (_call(fn, mode, [example.unsqueeze(1), *hx, *params], True, 1, 0.0, False, False, False)[0] ** 2).sum()

    got = fn.vmap(fn.grad(loss), in_axes=(None, 1))(params, x)
    for i in range(3):
        for a, e in zip(got, fn.grad(loss)(params, x[:, i]), strict=True):
            np.testing.assert_allclose(a[i].numpy(), e.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_several_models_are_one_application_also_of_its_derivatives(mode: str) -> None:
    """Mapped weights, with the input shared or mapped, twice mapped, and both derivatives: beside one model at a time."""
    x, *first = [fn.tensor(a) for a in _arrays(mode, (4, 3, 2), (3,), 3)]
    states = 2 if mode == "lstm" else 1
    models = [[p + 0.1 * i for p in first[states:]] for i in range(3)]
    whole = [fn.stack(column) for column in zip(*models, strict=True)]

    def loss(params: list, x: Any) -> Any:
        return (_call(fn, mode, [x, *first[:states], *params], True, 1, 0.0, False, False, False)[0] ** 2).sum()

    def slope(params: list, x: Any) -> Any:
        return sum((g * g).sum() for g in fn.grad(loss)(params, x))

    for f in (loss, fn.grad(loss), fn.grad(slope)):
        got = fn.tree.leaves(fn.vmap(f, in_axes=(0, None))(whole, x))
        for position, alone in enumerate(zip(*[fn.tree.leaves(f(p, x)) for p in models], strict=True)):
            np.testing.assert_allclose(got[position].numpy(), fn.stack(alone).numpy(), rtol=1e-9, atol=1e-11)
    examples = fn.stack([x, x * 0.5])
    twice = fn.vmap(fn.vmap(fn.grad(loss), in_axes=(None, 0)), in_axes=(0, None))(whole, examples)
    other = fn.vmap(fn.vmap(fn.grad(loss), in_axes=(0, None)), in_axes=(None, 0))(whole, examples)
    for a, b, single in zip(twice, other, fn.grad(loss)(models[2], examples[1]), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy().swapaxes(0, 1), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(a[2, 1].numpy(), single.numpy(), rtol=1e-10, atol=1e-12)
    few, many = (
        fn.jit(fn.vmap(fn.value_and_grad(loss), in_axes=(0, None))).program([p[:n] for p in whole], x) for n in (2, 3)
    )
    assert few.count("\n") == many.count("\n")


def test_an_empty_batch_of_weights_under_vmap() -> None:
    x, h, c, *params = [fn.tensor(a) for a in _arrays("lstm", (4, 3, 2), (3,), 3)]
    empty = [p.unsqueeze(0)[:0] for p in params]
    y, *_ = fn.vmap(lambda p: fn.lstm(x, (h, c), p, True, 1, 0.0, False, False, False))(empty)
    assert y.shape == (0, 4, 3, 3)


def test_second_derivative_through_backward_twice() -> None:
    torch = pytest.importorskip("torch")
    answers = []
    for m, grad in ((fn, fn.autograd.grad), (torch, torch.autograd.grad)):
        tensors = [m.tensor(a, requires_grad=True) for a in _arrays("lstm", (3, 2, 2), (2,), 3)]
        y = _call(m, "lstm", tensors, True, 1, 0.0, True, False, False)[0]
        (first,) = grad((y**3).sum(), [tensors[0]], create_graph=True)
        (first**2).sum().backward()
        answers.append([t.grad.numpy() for t in tensors])
    for a, e in zip(*answers, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)


def test_a_jitted_training_step_is_the_eager_one() -> None:
    rng = np.random.default_rng(2)
    x, target = fn.tensor(rng.normal(size=(6, 4, 3))), fn.tensor(rng.normal(size=(6, 4, 5)))

    def step(params: list, x: Any, target: Any) -> tuple:
        def loss(params: list) -> Any:
            return ((fn.lstm(x, None, params, True, 1, 0.0, True, False, False)[0] - target) ** 2).mean()

        value, grads = fn.value_and_grad(loss)(params)
        return value, [p - 0.5 * g for p, g in zip(params, grads, strict=True)]

    runs = []
    for f in (step, fn.jit(step)):
        params = [fn.tensor(a) for a in _arrays("lstm", (6, 4, 3), (4,), 5)[3:]]
        losses = []
        for _ in range(5):
            value, params = f(params, x, target)
            losses.append(value.item())
        runs.append(losses)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-12)
    assert runs[0][-1] < runs[0][0]


# ---- errors ---------------------------------------------------------------------------------------------------------------
def _lstm(x: Any, hx: Any = None) -> Any:
    return fn.lstm(x, hx, [fn.zeros(16, 3), fn.zeros(16, 4)], False, 1, 0.0, False, False, False)


def test_errors_say_what_came_and_what_was_expected() -> None:
    x, h = fn.zeros(5, 2, 3), fn.zeros(1, 2, 4)
    for error, match, call in (
        (ShapeError, r"lstm: expected an input of last size 3, got shape \(5, 2, 4\)", lambda: _lstm(fn.zeros(5, 2, 4))),
        (ShapeError, r"lstm: expected a 2-d \(unbatched\) or 3-d input", lambda: _lstm(fn.zeros(3))),
        (ShapeError, r"lstm: expected a state of shape \(1, 2, 4\), got \(1, 3, 4\)", lambda: _lstm(x, (h, fn.zeros(1, 3, 4)))),
        (ShapeError, "at least one step", lambda: _lstm(fn.zeros(0, 2, 3))),
        (DTypeError, "input is float64 but the weights are float32", lambda: _lstm(x.double())),
        (DTypeError, "a state is float64 but the weights are float32", lambda: _lstm(x, (h, h.double()))),
        (TypeError, r"lstm: expected 2 state\(s\) for hx, got 1", lambda: _lstm(x, h)),
        (TypeError, "lstm: expected a tensor, got a list; pad", lambda: _lstm([fn.zeros(5, 3)])),
        (DTypeError, "expected float32 or float64", lambda: fn.rnn_tanh(
            x.half(), None, [fn.zeros(4, 3).half(), fn.zeros(4, 4).half()], False, 1, 0.0, False, False, False)),
        (ShapeError, r"gru: 12 rows of gates need \(12, 4\)", lambda: fn.gru(
            x, None, [fn.zeros(12, 3), fn.zeros(9, 4)], False, 1, 0.0, False, False, False)),
        (ShapeError, "gru_cell: expected a state of shape", lambda: fn.gru_cell(
            fn.zeros(2, 3), fn.zeros(1, 4), fn.zeros(12, 3), fn.zeros(12, 4))),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            call()
