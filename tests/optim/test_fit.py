"""State that does not fit: what a step refuses, with PyTorch beside the classes, and what it goes on with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn, optim
from funcnn.optim.fused import adam_update

OPTIONS: dict[str, list[dict]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}],
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}],
}
ROWS = [(name, options) for name, listed in OPTIONS.items() for options in listed]
IDS = [f"{name}-{'-'.join(options)}" for name, options in ROWS]
SLOTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
CHANGES: dict[str, Callable] = {
    "double": lambda T, p, o: setattr(p, "data", p.data.double()),
    "float": lambda T, p, o: setattr(p, "data", p.data.float()),
    "grown": lambda T, p, o: setattr(p, "data", T.ones(90)),
    "shrunk": lambda T, p, o: setattr(p, "data", T.ones(2)),
    **{f"long {slot}": lambda T, p, o, slot=slot: _replaced(o.state[p], slot, T.ones(90)) for slot in SLOTS},
    **{f"short {slot}": lambda T, p, o, slot=slot: _replaced(o.state[p], slot, T.ones(3)) for slot in SLOTS},
    **{f"double {slot}": lambda T, p, o, slot=slot: _converted(T, o.state[p], slot) for slot in SLOTS},
    "popped": lambda T, p, o: o.state[p].pop("exp_avg"),
    "more": lambda T, p, o: o.param_groups[0].update({"amsgrad": True, "momentum": 0.8}),
    "less": lambda T, p, o: o.param_groups[0].update({"amsgrad": False, "momentum": 0.0, "dampening": 0.0}),
    "damped": lambda T, p, o: o.param_groups[0].update({"dampening": 0.25}),
    "a gradient of before": lambda T, p, o: setattr(p, "data", T.ones(9)),
}


def _replaced(slots: dict, slot: str, value: Any) -> None:
    if slot not in slots:
        pytest.skip(f"no {slot} here")
    slots[slot] = value


def _converted(T: Any, slots: dict, slot: str) -> None:
    _replaced(slots, slot, slots[slot].double() if slots.get(slot) is not None else None)


def _after(T: Any, Parameter: Any, name: str, options: dict, change: str, wrap: Any = lambda f: f) -> Any:
    """The parameter after a step, the change and two more steps; None where one of them is refused."""
    p = Parameter(T.tensor([1.0, 2.0, 3.0, 4.0], dtype=T.float64 if change == "float" else T.float32))
    o = getattr(T.optim, name)([p], lr=0.1, **options)

    def whole() -> None:
        o.zero_grad()
        (p * p).sum().backward()
        o.step()

    run, alone = wrap(whole), wrap(o.step)
    for k in range(3):
        try:
            (alone if k == 1 and change == "a gradient of before" else run)()
        except (RuntimeError, KeyError, ValueError):
            assert k, "the first step has nothing to refuse"
            return None
        if k == 0:
            CHANGES[change](T, p, o)
    return p.detach().numpy()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_changed_state_is_refused_or_goes_on_as_in_torch(name: str, options: dict, change: str, compiled: bool) -> None:
    torch = pytest.importorskip("torch")
    if change in ("popped", "more") and name == "SGD":
        pytest.skip("Adam's")
    wanted = _after(torch, torch.nn.Parameter, name, options, change)
    mine = _after(fn, nn.Parameter, name, options, change, fn.jit if compiled else lambda f: f)
    if change.startswith("double ") and name != "SGD":
        assert mine is None, "moments of another dtype are refused, all of them"
        return
    assert (mine is None) == (wanted is None), f"torch gives {wanted}, funcnn {mine}"
    if wanted is not None:
        assert mine.dtype == wanted.dtype
        np.testing.assert_allclose(mine, wanted, rtol=1e-5 if wanted.dtype == np.float32 else 1e-6)


def test_refusals_name_rule_parameter_slot_shapes_and_remedy() -> None:
    a, b = nn.Parameter(fn.ones(2)), nn.Parameter(fn.ones(4))
    opt = optim.Adam([{"params": [a]}, {"params": [b]}])
    for p in (a, b):
        p.grad = fn.ones_like(p)
    opt.step()
    b.data, b.grad = fn.ones(9), None
    b.grad = fn.ones(9)
    before = a.detach().tolist(), b.detach().tolist()
    with pytest.raises(
        fn.ShapeError, match=r"adam: exp_avg of float32\(4,\) .*float32\(9,\), parameter 0 of group 1.*clear"
    ):
        opt.step()
    assert b.detach().tolist() == before[1]
    b.data = fn.ones(4, dtype=fn.float64)
    b.grad = fn.ones(4, dtype=fn.float64)
    with pytest.raises(
        fn.DTypeError, match=r"exp_avg of float32\(4,\) for a parameter of float64\(4,\).*load_state_dict"
    ):
        opt.step()
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert opt.state[b]["exp_avg"].dtype == fn.float64


PURE: list[tuple[Any, Any]] = [
    (optim.adam(), optim.sgd()), (optim.adam(), optim.sgd(momentum=0.9)), (optim.sgd(momentum=0.9), optim.sgd()),
    (optim.sgd(), optim.sgd(momentum=0.9)), (optim.sgd(momentum=0.9, dampening=0.5), optim.sgd(momentum=0.9)),
    (optim.adam(amsgrad=True), optim.adam()), (optim.adam(), optim.adam(amsgrad=True)), (optim.sgd(), optim.adamw()),
]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("mine", "other"), PURE)
def test_the_state_of_another_rule_or_of_other_options_is_refused(mine: Any, other: Any, compiled: bool) -> None:
    params = {"w": fn.ones(3), "b": [fn.ones(2)]}
    update = fn.jit(mine.update) if compiled else mine.update
    with pytest.raises(fn.ShapeError, match=r"the state of params\['w'\].*of another rule or of other options.*init"):
        update(params, other.init(params), params)
    new, state = update(params, mine.init(params), params)
    assert new["w"].shape == (3,) and {"w", "b"} == set(state)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("slot", ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step", "momentum_buffer"])
def test_no_size_or_dtype_of_a_slot_reaches_a_kernel_unseen(slot: str, compiled: bool) -> None:
    opt = optim.sgd(momentum=0.9) if slot == "momentum_buffer" else optim.adam(amsgrad=True)
    params = {"w": fn.ones(4)}
    state = opt.init(params)
    update = fn.jit(opt.update) if compiled else opt.update
    for shape in ((3,), (5,), (4, 1), (0,), (1,)):
        with pytest.raises(fn.ShapeError, match=slot):
            update(params, {"w": {**state["w"], slot: fn.zeros(*shape)}}, params)
    like = fn.zeros((), dtype=fn.int64) if slot == "step" else fn.zeros(4, dtype=fn.int64)
    with pytest.raises(fn.DTypeError, match=f"{slot} of int64"):
        update(params, {"w": {**state["w"], slot: like}}, params)


def test_a_primitive_without_its_slots_is_refused() -> None:
    numbers = [fn.tensor(v, dtype=fn.float64) for v in (0.1, 0.9, 0.99, 1e-8, 0.0)]
    with pytest.raises(fn.ShapeError, match="no step with the slots"):
        adam_update(*numbers, fn.ones(2), fn.ones(2), count=1, names=("exp_avg",), flags=(False, False), lead=0)


def test_torchs_state_of_a_damped_velocity_and_options_changed_later_go_on() -> None:
    p = nn.Parameter(fn.ones(2))
    opt = optim.SGD([p], lr=1.0, momentum=0.5)
    p.grad = fn.ones(2)
    opt.step()
    opt.param_groups[0]["momentum"] = 0.0
    opt.step()
    assert opt.state[p]["momentum_buffer"].tolist() == [1, 1] and p.detach().tolist() == [-1, -1]
    opt.param_groups[0].update(momentum=0.5, dampening=0.5)
    opt.step()
    assert opt.state[p]["momentum_buffer"].tolist() == [1, 1] and p.detach().tolist() == [-2, -2]
