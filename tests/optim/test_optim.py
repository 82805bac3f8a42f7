"""Optimizers against PyTorch over ten steps; the pure pair beside the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn, optim

ROWS: list[tuple[str, dict]] = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9}), ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}), ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01}), ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}),
    ("Adam", {"lr": 0.01, "amsgrad": True}), ("Adam", {"maximize": True}), ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.2, "amsgrad": True}),
]  # fmt: skip
IDS = [f"{name}-{'-'.join(options)}" for name, options in ROWS]
STARTS = [np.random.default_rng(i).normal(size=s) for i, s in enumerate([(3, 2), (4,)])]
GRADS = [[np.random.default_rng(10 * k + i).normal(size=a.shape) for i, a in enumerate(STARTS)] for k in range(10)]


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_ten_steps(name: str, options: dict) -> None:
    torch = pytest.importorskip("torch")
    mine = [nn.Parameter(fn.tensor(a)) for a in STARTS]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in STARTS]
    opt, reference = getattr(optim, name)(mine, **options), getattr(torch.optim, name)(theirs, **options)
    pure = getattr(optim, name.lower())(**options)
    params = {"a": fn.tensor(STARTS[0]), "b": {"c": fn.tensor(STARTS[1])}}
    state = pure.init(params)
    for grads in GRADS:
        for p, q, g in zip(mine, theirs, grads, strict=True):
            p.grad, q.grad = fn.tensor(g), torch.tensor(g)
        opt.step()
        reference.step()
        params, state = pure.update({"a": fn.tensor(grads[0]), "b": {"c": fn.tensor(grads[1])}}, state, params)
    for p, q, r in zip(mine, theirs, (params["a"], params["b"]["c"]), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(p.detach().numpy(), r.numpy())
    for i, slots in reference.state_dict()["state"].items():
        for key, value in slots.items():
            if value is not None:
                np.testing.assert_allclose(
                    opt.state_dict()["state"][i][key].numpy(), value.numpy(), rtol=1e-6, err_msg=key
                )


def _steps(opt: Any, params: list, grads: list) -> None:
    for group in grads:
        for p, g in zip(params, group, strict=True):
            p.grad = fn.tensor(g)
        opt.step()


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_state_goes_on_where_it_was_saved(name: str, options: dict) -> None:
    params = [nn.Parameter(fn.tensor(a)) for a in STARTS]
    opt = getattr(optim, name)(params, **options)
    _steps(opt, params, GRADS[:5])
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    again = getattr(optim, name)(copies, **options)
    again.load_state_dict(opt.state_dict())
    _steps(opt, params, GRADS[5:])
    _steps(again, copies, GRADS[5:])
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_state_of_torch_is_taken_over() -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in STARTS]
    reference = torch.optim.Adam(theirs, lr=0.02)
    for q, g in zip(theirs, GRADS[0], strict=True):
        q.grad = torch.tensor(g)
    reference.step()
    mine = [nn.Parameter(fn.tensor(q.detach().numpy())) for q in theirs]
    opt = optim.Adam(mine)
    opt.load_state_dict(reference.state_dict())
    assert opt.param_groups[0]["lr"] == 0.02
    for p, q, g in zip(mine, theirs, GRADS[1], strict=True):
        p.grad, q.grad = fn.tensor(g), torch.tensor(g)
    opt.step(), reference.step()
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6)


def test_a_velocity_of_torch_goes_on_damped() -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in STARTS]
    mine = [nn.Parameter(fn.tensor(a)) for a in STARTS]
    reference = torch.optim.SGD(theirs, lr=0.02, momentum=0.9, dampening=0.4)
    opt = optim.SGD(mine, lr=0.02, momentum=0.9, dampening=0.4)
    for k, grads in enumerate(GRADS[:3]):
        for p, q, g in zip(mine, theirs, grads, strict=True):
            p.grad, q.grad = fn.tensor(g), torch.tensor(g)
        if k == 1:
            opt.load_state_dict(reference.state_dict())
        opt.step(), reference.step()
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6)


def test_groups_have_options_of_their_own() -> None:
    a, b, c = (nn.Parameter(fn.ones(2)) for _ in range(3))
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": [c], "lr": 0.0})
    for p in (a, b, c):
        p.grad = fn.ones(2)
    opt.step()
    np.testing.assert_allclose([p.detach().numpy()[0] for p in (a, b, c)], [0.9, 0.5, 1.0])
    with pytest.raises(ValueError, match="in two groups"):
        opt.add_param_group({"params": [a]})
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="got a tensor"):
        optim.SGD(a)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        optim.SGD([a], nesterov=True)
    with pytest.raises(ValueError, match="other parameter groups"):
        opt.load_state_dict(optim.SGD([a]).state_dict())


def test_closures_missing_gradients_and_zeroing() -> None:
    w, unused = nn.Parameter(fn.ones(2)), nn.Parameter(fn.ones(2))
    opt = optim.SGD([w, unused], 0.5)

    def closure():
        opt.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 2.0 and w.detach().tolist() == [0, 0] and unused.detach().tolist() == [1, 1]
    opt.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0, 0]
    opt.zero_grad()
    assert w.grad is None and "lr: 0.5" in repr(opt)


def test_a_step_writes_into_the_parameters_memory() -> None:
    """Views and ``.data`` aliases see it, as in PyTorch; memory that is not contiguous is written as well."""
    whole = fn.zeros(2, 3)
    w, tall = nn.Parameter(fn.ones(3)), nn.Parameter(whole.T)
    alias, view, memory = w.data, w[1:], w._v
    opt = optim.Adam([w, tall], lr=0.5)
    w.grad, tall.grad = fn.ones(3), fn.ones(3, 2)
    for _ in range(2):
        opt.step()
    assert w._v is memory and alias.tolist() == w.tolist() == [*alias[:1].tolist(), *view.tolist()]
    np.testing.assert_allclose(whole.numpy(), -1.0, rtol=1e-6)


def test_a_recorded_parameter_may_not_change_before_its_backward() -> None:
    w = nn.Parameter(fn.ones(3))
    loss = (w * w).sum()
    w.grad = fn.ones(3)
    optim.SGD([w]).step()
    with pytest.raises(fn.GradientError):
        loss.backward()


def test_a_learning_rate_that_changes_traces_and_compiles_once() -> None:
    w = nn.Parameter(fn.ones(3))
    w.grad = fn.ones(3)
    opt = optim.SGD([w], lr=0.5)
    step = fn.jit(opt.step)
    step()
    with fn.no_compile():
        for lr in (0.25, 0.125):
            opt.param_groups[0]["lr"] = lr
            step()
            opt.step()
    np.testing.assert_allclose(w.detach().numpy(), 1 - 0.5 - 2 * 0.25 - 2 * 0.125)
    assert step.traces == 1


def test_double_scalars_keep_their_dtype_when_loaded() -> None:
    w = nn.Parameter(fn.tensor(1.0, dtype=fn.float64))
    w.grad = fn.ones_like(w)
    opt = optim.Adam([w])
    opt.step()
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert opt.state[w]["exp_avg"].dtype == fn.float64 and opt.state[w]["step"].dtype == fn.float32
