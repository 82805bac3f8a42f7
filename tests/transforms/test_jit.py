"""jit: pure functions and imperative steps give what eager mode gives, whatever changes between calls."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 8, 2, 8, 8)).astype(np.float32)
Y = RNG.integers(0, 3, (20, 8))
PURE = L.Sequential(
    conv=L.Conv2d(2, 4, 3), bn=L.BatchNorm2d(4), relu=L.ReLU(), pool=L.MaxPool2d(2), flat=L.Flatten(), drop=L.Dropout(0.3),
    fc=L.Linear(36, 3),
)  # fmt: skip


def make(seed: int = 0) -> nn.Module:
    """The network as a module, with the pure network's first weights."""
    return nn.module(PURE, *PURE.init(fn.random.key(seed)))


OPTIMIZERS = {
    "sgd": (lambda: optim.sgd(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
            lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)),
    "adam": (lambda: optim.adam(lr=1e-2, weight_decay=1e-3), lambda p: optim.Adam(p, lr=1e-2, weight_decay=1e-3)),
    "adamw": (lambda: optim.adamw(lr=1e-2), lambda p: optim.AdamW(p, lr=1e-2)),
}  # fmt: skip


def module_run(name: str, compiled: bool) -> dict[str, np.ndarray]:
    """20 imperative steps; weights, statistics, optimizer state and the generator afterwards."""
    fn.manual_seed(7)
    model = make()
    opt = OPTIMIZERS[name][1](model.parameters())

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    run = fn.jit(step) if compiled else step
    for x, y in zip(X, Y, strict=True):
        run(fn.tensor(x), fn.tensor(y))
    if compiled:
        assert run.traces == 1
    found = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    for i, slots in opt.state_dict()["state"].items():
        found |= {f"{i}.{k}": v.numpy().copy() for k, v in slots.items()}
    return found | {"generator": fn.get_rng_state().numpy()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_imperative_steps(name: str) -> None:
    eager, compiled = module_run(name, False), module_run(name, True)
    assert list(eager) == list(compiled)
    for key, value in eager.items():
        np.testing.assert_allclose(compiled[key], value, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_pure_steps_and_the_module_beside_them(name: str) -> None:
    results = []
    for compiled in (False, True):
        params, state = PURE.init(fn.random.key(0))
        opt = OPTIMIZERS[name][0]()
        opt_state = opt.init(params)

        def step(params, state, opt_state, x, y, key, opt=opt):
            def loss_fn(params, state):
                logits, state = PURE(params, state, x, training=True, key=key)
                return F.cross_entropy(logits, y), state

            (_, state), grads = fn.value_and_grad(loss_fn, has_aux=True)(params, state)
            return *opt.update(grads, opt_state, params), state

        run = fn.jit(step, donate_argnums=(0, 2)) if compiled else step
        for i, (x, y) in enumerate(zip(X, Y, strict=True)):
            params, opt_state, state = run(params, state, opt_state, fn.tensor(x), fn.tensor(y), fn.random.key(i))
        found = {**dict(fn.tree.paths(params)), **dict(fn.tree.paths(state))}
        results.append({path: t for path, t in found.items() if isinstance(t, fn.Tensor)})

    model = make()
    opt = OPTIMIZERS[name][1](model.parameters())
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        opt.zero_grad()
        logits = F.linear(_dropped(model, fn.tensor(x), fn.random.key(i)), model.fc.weight, model.fc.bias)
        F.cross_entropy(logits, fn.tensor(y)).backward()
        opt.step()
    results.append(model.state_dict())
    for key, value in results[0].items():
        for other in results[1:]:
            np.testing.assert_allclose(other[key].numpy(), value.numpy(), rtol=0, atol=1e-5, err_msg=key)


def _dropped(model: Any, x: Any, key: Any) -> Any:
    """The module's layers up to dropout, with the key that the pure network's dropout gets."""
    x = model.flat(model.pool(model.relu(model.bn(model.conv(x)))))
    position = [name for name, _ in PURE.layers].index("drop")
    return L.Dropout(0.3)({}, {}, x, training=True, key=fn.random.fold_in(key, position))[0]


def test_what_python_holds_is_watched() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    run = fn.jit(lambda x: model(x))
    x = fn.randn(6, 3)
    with fn.no_grad():
        assert not np.array_equal(run(x).numpy(), run(x).numpy())  # random numbers are drawn anew
        model.eval()
        np.testing.assert_array_equal(run(x).numpy(), model(x).numpy())
        model.train()
        assert not np.array_equal(run(x).numpy(), run(x).numpy())
        model.eval()
        model[0].weight.copy_(fn.ones(4, 3))
        np.testing.assert_allclose(run(x).numpy(), model(x).numpy(), rtol=1e-6)
        model[0].weight.data = fn.zeros(4, 3)
        np.testing.assert_allclose(run(x).numpy(), model(x).numpy(), rtol=1e-6)
        model[0] = nn.Linear(3, 4)
        np.testing.assert_allclose(run(x).numpy(), model(x).numpy(), rtol=1e-6)


def test_a_learning_rate_is_read_at_each_call() -> None:
    w = nn.Parameter(fn.ones(2))
    opt = optim.SGD([w], lr=1.0)

    @fn.jit
    def step() -> None:
        opt.zero_grad()
        w.sum().backward()
        opt.step()

    step()
    opt.param_groups[0]["lr"] = 0.25
    step()
    np.testing.assert_allclose(w.detach().numpy(), 1.0 - 1.0 - 0.25)
    assert step.traces == 1
    w.requires_grad_(False)
    w.grad = None
    with pytest.raises(fn.GradientError, match="does not require grad"):
        step()


def test_gradients_gather_when_they_are_not_dropped() -> None:
    w = nn.Parameter(fn.ones(3))
    run = fn.jit(lambda x: (w * x).sum().backward())
    for _ in range(3):
        run(fn.ones(3))
    assert w.grad.tolist() == [3, 3, 3]
    w.grad = None
    run(fn.ones(3))
    assert w.grad.tolist() == [1, 1, 1]


def test_python_numbers_are_inputs_and_stay_weak() -> None:
    f = fn.jit(lambda x, s: x * s)
    out = f(fn.ones(3), 2.5)
    assert out.dtype == np.float32 and out.tolist() == [2.5] * 3 and f(fn.ones(3), 3.5).tolist() == [3.5] * 3
    assert f.traces == 1
    assert f(fn.ones(3, dtype=fn.float64), 0.1).tolist() == [0.1] * 3


def test_static_arguments_shapes_and_structures_trace_anew() -> None:
    f = fn.jit(lambda tree, n, flag=True: [tree["a"] * n if flag else tree["a"]] * n, static_argnums=1)
    assert len(f({"a": fn.ones(2)}, 3)) == 3 and len(f({"a": fn.ones(2)}, 2)) == 2
    assert f({"a": fn.ones(4)}, 2)[0].shape == (4,)
    assert f({"a": fn.ones(4)}, 2, flag=False)[0].tolist() == [1] * 4
    assert f.traces == 4
    named = fn.jit(lambda x, n: x * n, static_argnames="n")
    assert named(fn.ones(1), n=2).item() == 2 and named(fn.ones(1), n=3).item() == 3 and named.traces == 2


def test_donated_tensors_may_not_be_read_again() -> None:
    x = fn.ones(3)
    assert fn.jit(lambda x: x + 1, donate_argnums=0)(x).tolist() == [2, 2, 2]
    with pytest.raises(fn.TracerError, match="donated"):
        x + 1
    with pytest.raises(fn.TracerError, match="donated"):
        fn.jit(lambda x: x)(x)


def test_writes_to_arguments_and_to_closed_over_tensors() -> None:
    count, history = fn.zeros((), dtype=fn.int64), fn.zeros(4)

    @fn.jit
    def step(x):
        count.add_(1)
        history[1:3] += x.sum()
        x.mul_(2.0)
        return count * 10

    x = fn.ones(2)
    assert step(x).item() == 10 and step(x).item() == 20
    assert count.item() == 2 and x.tolist() == [4, 4] and history.tolist() == [0, 6, 6, 0]


def test_what_is_computed_has_memory_of_its_own() -> None:
    w = fn.ones(3)
    f = fn.jit(lambda: (w * 2, w + 1, np.float32(3.0) * fn.ones(3)))
    first, second = f(), f()
    for t in first:
        t.fill_(9.0)
    assert [t.tolist() for t in second] == [[2] * 3, [2] * 3, [3] * 3] and w.tolist() == [1] * 3
    data = np.ones(3, np.float32)
    out = fn.jit(lambda x: x)(data)
    out.fill_(9.0)
    assert data.tolist() == [1] * 3  # an array is data


def test_a_compiled_forward_can_be_differentiated_outside() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    run, x = fn.jit(lambda x: model(x)), fn.randn(4, 3)
    for _ in range(2):
        (run(x) ** 2).sum().backward()
        (other(x) ** 2).sum().backward()
    np.testing.assert_allclose(model.weight.grad.numpy(), other.weight.grad.numpy(), rtol=1e-6)


def test_several_threads_may_call_it() -> None:
    f = fn.jit(lambda x: fn.sin(x) * x)
    wrong: list = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).normal(size=(5 + seed % 3,)).astype(np.float32)
        for _ in range(30):
            if not np.allclose(f(x).numpy(), np.sin(x) * x, atol=1e-6):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and f.traces == 3


def test_the_program_can_be_read() -> None:
    text = fn.jit(lambda x: (x * 2.0 + 1.0).sum()).program(fn.ones(3))
    assert text.splitlines()[0] == "program(%0:float32[3]) {" and [w for w in ("mul", "add", "sum") if w in text] == [
        "mul",
        "add",
        "sum",
    ]
    assert "exp" not in fn.jit(lambda x: (fn.exp(x), x)[1]).program(fn.ones(3))  # dead code is dropped


OPTIONS = {
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1, inplace=True), {"negative_slope": (5.0, 2.0, 0.3), "inplace": (False,)}),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), {"eps": (1.0, 9.0, 4.0), "momentum": (0.9, 0.3, 0.5)}),
    "LayerNorm": (lambda: nn.LayerNorm(4), {"eps": (1.0, 9.0, 4.0)}),
    "Softmax": (lambda: nn.Softmax(0), {"dim": (1, 0, 1)}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_change_of_a_layers_options_is_noticed(name: str) -> None:
    make_layer, changes = OPTIONS[name]
    model, other = make_layer(), make_layer()
    run = fn.jit(lambda x: model(x))
    with fn.no_grad():
        for option, values in changes.items():
            for value in (*values, *values[::-1]):  # the object that held the option before is freed at each change
                for m in (model, other):
                    setattr(m, option, value)
                x = fn.tensor(RNG.normal(size=(3, 4)).astype(np.float32))
                np.testing.assert_allclose(
                    run(x.clone()).numpy(), other(x.clone()).numpy(), rtol=1e-6, err_msg=f"{option}={value}"
                )
                for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
                    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)
