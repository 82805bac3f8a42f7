"""Compiled steps and an optimizer whose state or options were replaced between two calls: as without ``jit``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 5, 4)).astype(np.float32)
Y = RNG.normal(size=(9, 5, 3)).astype(np.float32)

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.05),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.05, amsgrad=True),
}


def _replace_slots(opt: Any, model: Any, saved: dict) -> None:
    for name, value in opt.state[model.weight].items():
        opt.state[model.weight][name] = value * 0.5


def _replace_group(opt: Any, model: Any, saved: dict) -> None:
    opt.param_groups[0] = {**opt.param_groups[0], "lr": 0.01}


def _grow(opt: Any, model: Any, saved: dict) -> None:
    model.weight.data = model.weight.detach() * 2


CHANGES: dict[str, Callable] = {
    "cleared": lambda opt, model, saved: opt.state.clear(),
    "popped": lambda opt, model, saved: opt.state.pop(model.weight, None),
    "loaded": lambda opt, model, saved: opt.load_state_dict(saved),
    "slots replaced": _replace_slots,
    "group replaced": _replace_group,
    "data replaced": _grow,
    "lr a tensor": lambda opt, model, saved: opt.param_groups[0].update(lr=fn.tensor(0.01 * len(saved["state"]))),
    "lr an int": lambda opt, model, saved: opt.param_groups[0].update(lr=1),
    "state a copy": lambda opt, model, saved: setattr(opt, "state", copy.copy(opt.state)),
}


def trained(make: Callable, change: Callable, compiled: bool) -> tuple[list[np.ndarray], int]:
    """Nine steps with changes before the fifth, sixth and eighth: parameters and slots afterwards, and traces."""
    fn.manual_seed(0)
    model = nn.Linear(4, 3)
    opt = make(model.parameters())

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        return loss

    run: Any = fn.jit(step) if compiled else step
    saved: dict = {}
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        if i == 2:
            saved = copy.deepcopy(opt.state_dict())
        if i in (4, 5, 7):
            change(opt, model, saved)
        run(fn.tensor(x), fn.tensor(y))
    held = [*model.parameters(), *(slot for p in model.parameters() for slot in opt.state[p].values())]
    return [t.detach().numpy().copy() for t in held], run.traces if compiled else 0


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_was_replaced_is_what_the_compiled_step_goes_on_with(make: Callable, change: Callable) -> None:
    expected, _ = trained(make, change, False)
    got, traces = trained(make, change, True)
    assert traces <= 2, "what is replaced by its like is found again, without another trace"
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_replaced_state_is_found_again_without_another_trace() -> None:
    for name in ("cleared", "popped", "loaded", "slots replaced", "group replaced"):
        assert trained(OPTIMIZERS["adam"], CHANGES[name], True)[1] == 1, name


def test_replaced_state_is_not_kept_alive_and_not_written() -> None:
    p = nn.Parameter(fn.ones(3))
    opt = optim.SGD([p], lr=0.1, momentum=0.9)

    @fn.jit
    def step() -> None:
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()

    step()
    old = opt.state[p]["momentum_buffer"]
    before = old.numpy().copy()
    opt.state.clear()
    step()
    np.testing.assert_array_equal(old.numpy(), before)
    assert opt.state[p]["momentum_buffer"] is not old


def test_two_steps_in_one_trace_and_slots_that_are_read_before_the_step() -> None:
    def run(compiled: bool) -> np.ndarray:
        p = nn.Parameter(fn.ones(3))
        opt = optim.SGD([p], lr=0.1, momentum=0.9)

        def step() -> Any:
            norm = sum((t.abs().sum() for t in opt.state[p].values()), fn.zeros(()))
            for _ in range(2):
                opt.zero_grad()
                (p * p).sum().backward()
                opt.step()
            return norm

        step()
        f = fn.jit(step) if compiled else step
        seen = []
        for i in range(6):
            if i == 3:
                opt.state[p]["momentum_buffer"] = fn.full((3,), 2.0)
            seen.append(f().item())
        return np.array([*seen, *p.detach().numpy(), *opt.state[p]["momentum_buffer"].numpy()])

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)


def test_one_slot_in_two_places() -> None:
    """Two parameters that share a slot when traced, and do not any more afterwards."""

    def run(compiled: bool) -> list[np.ndarray]:
        params = [nn.Parameter(fn.full((2,), 1.0)), nn.Parameter(fn.full((2,), 3.0))]
        opt = optim.SGD(params, lr=0.1, momentum=0.9)

        def step() -> None:
            opt.zero_grad()
            ((params[0] * params[1]) ** 2).sum().backward()
            opt.step()

        f = fn.jit(step) if compiled else step
        f()
        opt.state[params[1]]["momentum_buffer"] = opt.state[params[0]]["momentum_buffer"].clone()
        for _ in range(3):
            f()
        return [p.detach().numpy().copy() for p in params]

    for a, b in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
