"""What depends on operands that stay the same is launched once for a compiled step, until somebody writes to one."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import nn
from funcnn.compiler.runtime.reference import Replay
from funcnn.core import evaluation
from funcnn.kernels import plan_text
from funcnn.kernels.cpu.launching import Refused, Runner
from funcnn.kernels.implementation import Operand, operand_of
from funcnn.kernels.launch import LaunchPlan
from funcnn.kernels.once import split
from tests.cases import TABLE
from tests.cases.case import Case
from tests.plain import surrounded
from tests.test_plans import evaluations, same_bits


@contextlib.contextmanager
def launched() -> Iterator[Counter]:
    """Counts the kernels that Python calls inside, by name."""
    counts: Counter = Counter()

    def around(kernel: Any, args: tuple) -> Any:
        counts[kernel.__name__] += 1
        return kernel.compiled(*args)

    with surrounded(around):
        yield counts


def packed(run: Callable[[], Any]) -> int:
    """How often a call packs weights."""
    with launched() as counts:
        run()
    assert counts["convolve"] == 1
    return counts["pack_weights"]


@pytest.fixture
def conv() -> nn.Conv2d:
    fn.manual_seed(0)
    return nn.Conv2d(3, 5, 3)


X = np.linspace(-1, 1, 2 * 3 * 6 * 6, dtype=np.float32).reshape(2, 3, 6, 6)


def test_weights_are_packed_once_and_again_when_they_change(conv: nn.Conv2d) -> None:
    x = fn.tensor(X)
    with fn.no_grad():
        step = fn.jit(lambda x: conv(x))
        assert packed(lambda: conv(x)) == 1
        assert [packed(lambda: step(x)) for _ in range(3)] == [1, 0, 0]
        for change in (
            lambda: conv.weight.mul_(2.0),
            lambda: conv.weight[0].zero_(),  # through a view
            lambda: setattr(conv.weight, "data", fn.ones(5, 3, 3, 3)),
            lambda: conv.load_state_dict(nn.Conv2d(3, 5, 3).state_dict()),
        ):
            change()
            assert packed(lambda: step(x)) == 1
            assert packed(lambda: step(x)) == 0
            np.testing.assert_array_equal(step(x).numpy(), conv(x).numpy())


def test_an_optimizer_that_steps_in_place_is_seen(conv: nn.Conv2d) -> None:
    x, step = fn.tensor(X), fn.jit(lambda x: conv(x))
    optimizer = fn.optim.SGD(conv.parameters(), lr=0.1)
    train = fn.jit(lambda: (conv(x).sum().backward(), optimizer.step(), optimizer.zero_grad()))
    for update in (optimizer.step, train):
        with fn.no_grad():
            step(x), step(x)
        conv(x).sum().backward()
        update()
        with fn.no_grad():
            np.testing.assert_array_equal(step(x).numpy(), conv(x).numpy())


def test_nothing_is_kept_of_memory_that_numpy_may_write(conv: nn.Conv2d) -> None:
    x = fn.tensor(X)
    with fn.no_grad():
        step = fn.jit(lambda x: conv(x))
        step(x), step(x)
        array = conv.weight.detach().numpy()
        for number in (0.5, 2.0):
            array[...] = number
            assert packed(lambda: step(x)) == 1
            np.testing.assert_array_equal(step(x).numpy(), conv(x).numpy())


def test_a_step_that_writes_its_weights_keeps_nothing_of_them(conv: nn.Conv2d) -> None:
    x = fn.tensor(X)

    def step(x: Any) -> Any:
        y = conv(x)
        conv.weight.mul_(0.5)
        return y

    with fn.no_grad():
        compiled = fn.jit(step)
        assert [packed(lambda: compiled(x)) for _ in range(3)] == [1, 1, 1]


def test_constants_of_a_program_are_packed_once() -> None:
    weight = np.linspace(0, 1, 5 * 3 * 3 * 3, dtype=np.float32).reshape(5, 3, 3, 3)
    step = fn.jit(lambda x: fn.nn.functional.conv2d(x, fn.tensor(weight).flip(0) * 2.0))
    x = fn.tensor(X)
    assert [packed(lambda: step(x)) for _ in range(3)] == [1, 0, 0]
    expected = fn.nn.functional.conv2d(x, fn.tensor(weight).flip(0) * 2.0)
    np.testing.assert_array_equal(step(x).numpy(), expected.numpy())


def test_what_is_kept_counts_as_memory_and_goes_with_the_step() -> None:
    layer, x = nn.Conv2d(64, 128, 3), fn.randn(4, 64, 16, 16)
    with fn.no_grad():
        gc.collect()
        before = fn.memory_stats()["used_bytes"]
        step = fn.jit(lambda x: layer(x))
        step(x)
        gc.collect()
        kept = fn.memory_stats()["used_bytes"] - before
        assert kept >= layer.weight.numel() * 4
        del step
        gc.collect()
        assert fn.memory_stats()["used_bytes"] == before


def _constant(x: Any) -> Operand:
    return Operand(x.shape, x.dtype, x.strides, constant=True)


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
@pytest.mark.filterwarnings("ignore")
def test_the_parts_of_every_plan_give_the_bits_of_the_whole(row: Case) -> None:
    """Run twice on what the first part wrote, which the second must leave as it is."""
    for prim, ins, params, outs in evaluations(row):
        for way in prim.on.get("cpu", ()):
            operands = tuple(map(_constant, ins))
            plan = way.plan(operands, params)
            if not isinstance(plan, LaunchPlan) or not any(launch.once for launch in plan.launches):
                continue
            once = split(plan, operands)
            assert once is not None, (
                f"{prim.name} by {way.name} has launches that run once, but they are no part by themselves"
            )
            assert plan_text.read(plan_text.text(once.rest)) == once.rest
            results = tuple(map(operand_of, outs))
            kept = [np.full(one.shape, 7).astype(one.dtype) for one in once.kept]
            runs = [[np.full(out.shape, 7).astype(out.dtype) for out in outs] for _ in range(3)]
            with contextlib.suppress(Refused):
                Runner(plan, operands, results)([x.copy() for x in ins], runs[0])
            Runner(once.first, operands, once.kept)(list(ins), kept)
            before = [one.copy() for one in kept]
            rest = Runner(once.rest, (*operands, *once.kept), results)
            for made in runs[1:]:
                with contextlib.suppress(Refused):
                    rest(list(ins) + kept, made)
                assert all(map(same_bits, made, runs[0])) and all(map(same_bits, kept, before))


def test_plans_are_told_what_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    choose = evaluation.choose

    def choosing(prim: Any, operands: tuple, *more: Any) -> Any:
        told.append((prim.name, [one.constant for one in operands]))
        return choose(prim, operands, *more)

    monkeypatch.setattr("funcnn.compiler.runtime.site.choose", choosing)
    layer = nn.Conv2d(3, 5, 3)
    with fn.no_grad():
        fn.jit(lambda x: layer(x))(fn.tensor(X))
    assert told == [("conv", [False, True, True])]


def test_a_layout_is_bound_once() -> None:
    step = fn.jit(lambda x: (x * 2.0).sum(0))
    wide, turned = fn.ones(3, 4), fn.ones(4, 3).t()
    step(wide)
    runtime = next(iter(step.steps.values()))[0].runtime
    assert isinstance(runtime, Replay)
    bound = runtime.bound[1]
    step(wide)
    assert runtime.bound[1] is bound
    np.testing.assert_array_equal(step(turned).numpy(), [6.0] * 4)
    assert runtime.bound[1] is not bound
    np.testing.assert_array_equal(step(wide).numpy(), [6.0] * 4)
