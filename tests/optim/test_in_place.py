"""Steps in the parameters' own memory: eagerly and under jit by one plan, repeated with almost nothing looked up again."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn, optim
from funcnn.core import primitive
from funcnn.kernels.launch import LaunchPlan

SHAPES = [(3, 2), (4,), (), (0,), (5, 1)]
OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.05, weight_decay=0.1),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.05, amsgrad=True),
}
every = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def parameters(seed: int = 0) -> list[Any]:
    """Parameters of several shapes, with gradients."""
    rng = np.random.default_rng(seed)
    params = [nn.Parameter(fn.tensor(rng.normal(size=shape).astype(np.float32))) for shape in SHAPES]
    for p in params:
        p.grad = fn.tensor(rng.normal(size=p.shape).astype(np.float32))
    return params


def boxes(opt: Any) -> list[Any]:
    """The parameters and their slots."""
    params = [p for group in opt.param_groups for p in group["params"]]
    return [*params, *(slot for p in params for _, slot in sorted(opt.state[p].items()))]


@every
def test_eagerly_and_under_jit_one_plan_writes_where_the_tensors_lie(make: Callable, monkeypatch: Any) -> None:
    plans: list[Any] = []

    def around(prim: Any, values: list, params: dict, where: Any) -> list:
        if prim.name.endswith("_update"):
            plans.append(where.planned(values).plan)
        return primitive.evaluate(prim, values, params, where, True)

    opt = make(parameters())
    opt.step()
    held = [box._v for box in boxes(opt)]
    views = [box.detach() for box in boxes(opt)]
    monkeypatch.setitem(primitive.around, "plans", around)
    jitted = fn.jit(opt.step)
    for step in (opt.step, jitted, jitted, opt.step, opt.step):
        before = [array.copy() for array in held]
        step()
        assert all(box._v is array for box, array in zip(boxes(opt), held, strict=True)), (
            "the memory is the tensors' own"
        )
        assert any((a != b).any() for a, b in zip(held, before, strict=True))
    assert len(plans) == 5 and all(isinstance(plan, LaunchPlan) and plan == plans[0] for plan in plans)
    for view, box in zip(views, boxes(opt), strict=True):
        np.testing.assert_array_equal(view.numpy(), box.detach().numpy())


def _tensor_rate(opt: Any, k: int) -> None:
    if isinstance(opt.param_groups[0]["lr"], fn.Tensor):
        opt.param_groups[0]["lr"].mul_(0.5)
    else:
        opt.param_groups[0]["lr"] = fn.tensor(0.01 * k)


def _listed(opt: Any, k: int) -> None:
    for group in opt.param_groups:
        if isinstance(group.get("betas"), list):
            group["betas"][0] *= 0.9
        elif "betas" in group:
            group["betas"] = [0.9, 0.99]


def _first(opt: Any) -> Any:
    return opt.param_groups[0]["params"][0]


def _replace_slot(opt: Any, k: int) -> None:
    slots = opt.state[_first(opt)]
    for name in slots:
        slots[name] = slots[name] * 0.5


def _add(opt: Any, k: int) -> None:
    p = nn.Parameter(fn.full((3,), float(k)))
    p.grad = fn.ones(3)
    opt.add_param_group({"params": [p], "lr": 0.2})


CHANGES: dict[str, Callable] = {
    "rate": lambda opt, k: opt.param_groups[0].update(lr=0.01 * k),
    "no rate": lambda opt, k: opt.param_groups[0].update(lr=0.0),
    "whole rate": lambda opt, k: opt.param_groups[0].update(lr=1),
    "decay": lambda opt, k: opt.param_groups[0].update(weight_decay=0.01 * k),
    "tensor rate": _tensor_rate,
    "listed": _listed,
    "maximize": lambda opt, k: opt.param_groups[0].update(maximize=bool(k % 2)),
    "momentum": lambda opt, k: opt.param_groups[0].update(momentum=0.1 * k) if "momentum" in opt.defaults else None,
    "dampening": lambda opt, k: opt.param_groups[0].update(dampening=0.2) if "momentum" in opt.defaults else None,
    "data": lambda opt, k: setattr(_first(opt), "data", _first(opt).detach() * 2),
    "strided": lambda opt, k: setattr(_first(opt), "data", fn.ones(2, 3).T),
    "slots": _replace_slot,
    "cleared": lambda opt, k: opt.state.clear(),
    "loaded": lambda opt, k: opt.load_state_dict(opt.state_dict()),
    "no gradient": lambda opt, k: setattr(_first(opt), "grad", None),
    "transposed": lambda opt, k: setattr(_first(opt), "grad", fn.ones(2, 3).T),
    "group": _add,
    "nothing": lambda opt, k: None,
}


@every
def test_a_repeated_step_is_that_of_an_optimizer_that_remembers_nothing(make: Callable) -> None:
    """After random changes, one after the other."""
    for seed in range(6):
        drawn = np.random.default_rng(seed).permutation([*CHANGES, *CHANGES, "rate", "tensor rate"])
        results = []
        for forgets in (False, True):
            opt, rng = make(parameters(seed)), np.random.default_rng(seed)
            for k, change in enumerate(drawn, 1):
                for p in boxes(opt)[: len(SHAPES)]:
                    p.grad = fn.tensor(rng.normal(size=p.shape).astype(np.float32))
                CHANGES[change](opt, k)
                for _ in range(2):
                    if forgets:
                        opt._last.clear()
                    opt.step()
            results.append([box.detach().numpy().copy() for box in boxes(opt)])
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=f"seed {seed}: {drawn.tolist()}")


def test_what_was_replaced_is_freed_and_gradients_are() -> None:
    for wrap in (lambda f: f, fn.jit):
        params = parameters()
        opt = optim.Adam(params)
        step = wrap(opt.step)
        step(), step()
        old = [weakref.ref(t._v) for t in (params[0], params[0].grad, opt.state[params[0]]["exp_avg"])]
        params[0].data, params[0].grad = fn.ones(3, 2), fn.ones(3, 2)
        opt.state[params[0]]["exp_avg"] = fn.ones(3, 2)
        gc.collect()
        assert [ref() is None for ref in old] == [True] * 3
        step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
@every
def test_a_copy_goes_on_with_tensors_of_its_own(make: Callable, copied: Callable) -> None:
    opt = make(parameters())
    opt.step(), opt.step()
    other = copied(opt)
    for one in (opt, other):
        for p in boxes(one)[: len(SHAPES)]:
            p.grad = fn.ones_like(p)
        one.step(), one.step()
    for one, two in zip(boxes(opt), boxes(other), strict=True):
        assert one is not two and one._v is not two._v
        np.testing.assert_array_equal(one.detach().numpy(), two.detach().numpy())


def test_a_profile_charges_an_eager_step_as_one_under_jit() -> None:
    opt = optim.Adam(parameters())
    jitted = fn.jit(opt.step)
    found = []
    for step in (opt.step, jitted):
        step(), step()
        with fn.profiler.profile() as prof:
            step()
        found.append([(e.kind, e.name, e.flops, e.bytes, e.shapes) for e in prof.events if "adam" in e.name])
    assert found[0] == found[1] and [kind for kind, *_ in found[0]] == ["operation", "kernel"]


def test_the_python_calls_of_a_repeated_step_do_not_grow_with_slots() -> None:
    counts = []
    for make in OPTIMIZERS.values():
        params = parameters()[:4]
        opt, calls = make(params), []
        opt.step()
        for p in params:
            p.grad = p.grad.clone()

        def note(frame: Any, event: str, arg: Any, calls: list = calls) -> None:
            if event == "call" and "funcnn" in frame.f_code.co_filename:
                calls.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)

        sys.setprofile(note)
        try:
            opt.step()
        finally:
            sys.setprofile(None)
        counts.append(len(calls))
    assert max(counts) <= 26 and max(counts) - min(counts) <= 1, counts
