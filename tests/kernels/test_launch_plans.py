"""Launch plans: what each part of one does on the CPU, and plans as data that is printed, read back and sent."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core import evaluation
from funcnn.kernels import plan_text
from funcnn.kernels.cpu import tables
from funcnn.kernels.cpu.build.compile import Kernel, kernel
from funcnn.kernels.cpu.build.facts import Row
from funcnn.kernels.cpu.elementwise import loops as elementwise
from funcnn.kernels.cpu.launching import Refused, Runner, ready
from funcnn.kernels.cpu.optim.step import at_address
from funcnn.kernels.implementation import ANY, CONTIGUOUS, operand_of
from funcnn.kernels.launch import (
    CONSTANT,
    GIVE_WAY,
    INPUT,
    OUTPUT,
    SCRATCH,
    Access,
    Array,
    Constant,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Status,
    Table,
    Workers,
)  # fmt: skip
from funcnn.kernels.names import kernel_of, name_of
from tests.plain import compiled_only, surrounded

X, Y = Array(INPUT, 0), Array(OUTPUT, 0)


@kernel
def double(x, out):
    """out = 2 x, flat."""
    for i in range(x.size):
        out[i] = 2 * x[i]


@kernel
def add_table(x, table, out):
    """out = x plus the table's numbers, taken round and round."""
    for i in range(x.size):
        out[i] += x[i] + table[i % table.size]


@kernel
def checked(x, out, status):
    """out = x; a negative number is refused, NaN gives way."""
    for i in range(x.size):
        out[i] = x[i]
        if x[i] < 0 and status[0] == 0:
            status[0], status[1], status[2], status[3] = 1, 0, i, int(x[i])
        if x[i] != x[i] and status[0] == 0:
            status[0] = -1


@kernel
def count_lengths(table, out):
    """out = the lengths in a table of addresses."""
    for i in range(out.size):
        out[i] = table[1, i // table.shape[2], i % table.shape[2]]


def run(plan: LaunchPlan, *ins: np.ndarray, shape: tuple, dtype: Any = np.float64) -> np.ndarray:
    """The only output of a plan; its memory held 7."""
    out = np.full(shape, 7, dtype)
    ready(plan, tuple(map(operand_of, ins)), (operand_of(out),))(list(ins), [out])
    return out


def one(*args: Any, kernel: Any = double, inputs: tuple = (CONTIGUOUS,), **more: Any) -> LaunchPlan:
    """A plan of one launch into one output."""
    return LaunchPlan((Launch(kernel, args),), inputs, more.pop("outputs", (Output(),)), **more)


A = np.arange(12.0).reshape(3, 4)


def test_an_input_is_copied_only_where_it_lies_otherwise() -> None:
    for x in (A, A.T, A[::-1], A[:, ::2], np.broadcast_to(A[0], (3, 4))):
        np.testing.assert_array_equal(run(one(X, Y), x, shape=x.shape), 2 * x)
    turned = one(X, Y, inputs=(Access(order=(1, 0)),))
    np.testing.assert_array_equal(run(turned, A, shape=(4, 3)), 2 * A.T)
    assert (
        Runner(turned, (operand_of(A.T),), (operand_of(A),)).take[0][1](A.T).base is not None
    )  # a view: nothing is copied
    once = one(X, Y, inputs=(Access(repeated=(0,)),))
    np.testing.assert_array_equal(run(once, np.broadcast_to(A[0], (3, 4)), shape=(4,)), 2 * A[0])


def test_buffers_begin_as_their_plan_says() -> None:
    constant = Constant(np.arange(3.0))
    args = (X, Array(CONSTANT, 0), Y)
    zeros = one(*args, kernel=add_table, constants=(constant,), outputs=(Output("zeros"),))
    expected = A + np.arange(12).reshape(3, 4) % 3
    np.testing.assert_array_equal(run(zeros, A, shape=(3, 4)), expected)
    copied = one(*args, kernel=add_table, constants=(constant,), outputs=(Output(0),))
    np.testing.assert_array_equal(run(copied, A, shape=(3, 4)), A + expected)
    scratch = LaunchPlan(
        (Launch(add_table, (X, Array(CONSTANT, 0), Array(SCRATCH, 0))), Launch(double, (Array(SCRATCH, 0), Y))),
        (CONTIGUOUS,), (Output(),), (Scratch("float64", 12, zeros=True),), (constant,),
    )  # fmt: skip
    np.testing.assert_array_equal(run(scratch, A, shape=(3, 4)), 2 * expected)


def test_what_is_stored_in_16_bits_is_computed_in_32() -> None:
    plan = LaunchPlan((Launch(double, (X, Y)),), (Access(dtype="float32"),), (Output(dtype="float32"),))
    x = np.array([[0.1, 3e4], [-2, 7]], np.float16)
    seen = []

    def around(kernel: Kernel, args: tuple) -> Any:
        seen.extend(arg.dtype.name for arg in args)
        return kernel.compiled(*args)

    with surrounded(around):
        for laid in (x, x.T):
            np.testing.assert_array_equal(run(plan, laid, shape=(2, 2), dtype=np.float16), laid + laid)
    assert seen == ["float32"] * 4 and plan_text.read(plan_text.text(plan)) == plan


def test_a_batch_is_a_loop_over_launches() -> None:
    part, out = Array(INPUT, 0, (2, 2), offset=4, step=2), Array(OUTPUT, 0, (4,), step=4)
    plan = LaunchPlan(
        (Launch(double, (Array(INPUT, 0, (4,), offset=4, step=2), out), times=3),), (CONTIGUOUS,), (Output(),)
    )
    got = run(plan, A, shape=(3, 4))
    np.testing.assert_array_equal(got, 2 * np.array([A.ravel()[4 + 2 * t : 8 + 2 * t] for t in range(3)]))
    with pytest.raises(ValueError, match="ends at 14, but the buffer has 12"):
        run(LaunchPlan((Launch(double, (part, out), times=4),), (CONTIGUOUS,), (Output(),)), A, shape=(4, 4))


def test_a_status_refuses_or_gives_way() -> None:
    plan = one(X, Y, Status(), kernel=checked, refusals=("negative",), otherwise=one(X, Y))
    np.testing.assert_array_equal(run(plan, A, shape=(3, 4)), A)
    bad = A.copy()
    bad[1, 1] = -3
    with pytest.raises(Refused) as caught:
        run(plan, bad, shape=(3, 4))
    assert caught.value.meaning == "negative" and caught.value.words == (1, 0, 5, -3)
    bad[0, 2] = np.nan
    np.testing.assert_array_equal(run(plan, bad, shape=(3, 4)), 2 * bad)
    assert GIVE_WAY == -1


def test_a_table_holds_addresses_and_lengths() -> None:
    table = Table((((INPUT, 0), (INPUT, 1)), ((OUTPUT, 0), (INPUT, 0))))
    got = run(one(table, Y, kernel=count_lengths, inputs=(CONTIGUOUS, ANY)), A, A[0], shape=(4,), dtype=np.int64)
    np.testing.assert_array_equal(got, [12, 4, 4, 12])


@kernel(tables={"table": lambda table, out: [Row(out.dtype, [out.size] * table.shape[2])]})
def add_behind(table, out):
    """out = the sum of the arrays behind a table of addresses."""
    for c in range(table.shape[2]):
        x = at_address(table[0, 0, c], out.size, out)
        for i in range(out.size):
            out[i] += x[i]


def added(*columns: int, **more: Any) -> LaunchPlan:
    """A plan that adds some inputs, of which it reads through a table, to zeros."""
    table = Table((tuple((INPUT, i) for i in columns),))
    return one(table, Y, kernel=add_behind, inputs=(CONTIGUOUS,) * len(columns), outputs=(Output("zeros"),), **more)


def test_what_lies_behind_a_table_is_compared_once_by_length_and_dtype() -> None:
    ins = [A, A.T.copy(), A[::-1]]
    np.testing.assert_array_equal(run(added(0, 1, 2), *ins, shape=(12,)), sum(x.ravel() for x in ins))
    with pytest.raises(ValueError, match="add_behind touches 12 elements of float64 behind row 0 of its argument table, where "
                                         "input 1 has 4 of float64"):  # fmt: skip
        run(added(0, 1), A, A[0], shape=(12,))
    with pytest.raises(ValueError, match="input 1 has 12 of float32"):
        run(added(0, 1), A, A.astype(np.float32), shape=(12,))


def test_a_repeated_run_looks_addresses_up_anew_only_of_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes may lie anywhere, also where it has to be copied first, or at the place of the one before."""
    first, out = [np.ones((3, 4)), A, A.T.copy().T], np.zeros(12)
    runner = Runner(added(0, 1, 2), tuple(map(operand_of, first)), (operand_of(out),))
    again = runner.repeated(first, [out], [1, 2])
    seen = []
    monkeypatch.setattr(tables, "address", lambda array: seen.append(array) or array.ctypes.data)
    for k in range(5):
        values = [first[0], A if k < 2 else A + k, (k * A).T.copy().T]
        again(values, [out])
        np.testing.assert_array_equal(out, sum(x.ravel() for x in values))
        assert len(seen) == (1 if k < 2 else 2), "of a copy each time, of the other where it is another"
        seen.clear()


def test_a_plan_that_is_too_short_for_its_kernel_is_refused() -> None:
    short = one(X, Array(INPUT, 1), Y, (), Workers(1.0), kernel=elementwise.add, inputs=(CONTIGUOUS, CONTIGUOUS))
    with pytest.raises(ValueError, match="add touches 12 elements of its argument y, which has 4"):
        run(short, A, A[0], shape=(3, 4))


# ---- as data ----------------------------------------------------------------------------------------------------------
PLANS = [
    evaluation.planned(prim, arrays, params).plan
    for prim, arrays, params in (
        (fn.add.primitive, [np.ones((300, 4000)), np.ones((300, 4000))], {}),
        (fn.add.primitive, [np.ones((300, 4000)), np.array(2.0)], {}),
        (fn.mul.primitive, [np.ones((300, 4000)), np.ones(4000)], {}),
        (fn.nn.functional.leaky_relu.__globals__["leaky_relu_p"], [np.ones(5)], {"slope": -0.0}),
    )
]


@pytest.mark.parametrize("plan", [*PLANS, one(X, Y, Status(), kernel=elementwise.add, constants=(Constant([1.5, -0.0]),),
                                              refusals=("no",), otherwise=PLANS[0]),
                                  LaunchPlan((Launch(double, (X, Y), 1, True), Launch(double, (X, Y), 3)))])  # fmt: skip
def test_a_plan_is_printed_read_back_and_sent(plan: LaunchPlan) -> None:
    again = plan_text.read(plan_text.text(plan))
    assert again == plan and hash(again) == hash(plan) and plan_text.text(again) == plan_text.text(plan)
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_what_is_no_plan_is_refused() -> None:
    for wrong in ("__import__('os').getcwd()", "LaunchPlan(", "Array('input', 0)", "LaunchPlan(launches=open)", "[1]"):
        with pytest.raises(ValueError, match="no launch plan"):
            plan_text.read(wrong)
    with pytest.raises(LookupError, match="no kernel is called"):
        plan_text.read("LaunchPlan((Launch(kernel('funcnn.kernels.cpu.elementwise.loops:no'), ()), ))")
    assert kernel_of(name_of(elementwise.exp)) is elementwise.exp


def test_parameters_that_are_equal_but_not_the_same_have_plans_of_their_own() -> None:
    keys = [evaluation.key_of({"value": value}) for value in (0.0, -0.0, 0, False, 1, True, 1.0)]
    assert len(set(keys)) == len(keys)


@compiled_only

# ---- prefer -----------------------------------------------------------------------------------------------------------
def test_prefer_forces_an_implementation_where_it_applies() -> None:
    x = fn.tensor([0.5, 1.0])
    with fn.prefer("kernel"):
        assert evaluation.planned(fn.exp.primitive, [x.numpy()], {}).name == "kernel"
        fn.exp(x)
    assert evaluation.planned(fn.exp.primitive, [x.numpy()], {}).name == "numpy"
    with fn.prefer("strips"):  # exp has none
        assert evaluation.planned(fn.exp.primitive, [x.numpy()], {}).name == "numpy"
        fn.ones(3, 20) + fn.ones(20)
    with pytest.raises(ValueError, match="prefer: no implementation is called 'kernels'; there are"):
        fn.prefer("kernels")
    with pytest.raises(ValueError, match="prefer: 'winograd' applied nowhere inside"), fn.prefer("winograd"):
        fn.exp(x)
    with pytest.raises(KeyError), fn.prefer("winograd"):
        raise KeyError


def test_a_program_is_traced_anew_for_another_preference() -> None:
    names = []

    def f(x: Any) -> Any:
        names.append(None)
        return fn.exp(x)

    jitted, x = fn.jit(f), fn.tensor([0.5, 1.0])
    jitted(x)
    with fn.prefer("kernel"):
        jitted(x)
        jitted(x)
    assert len(names) == 2


# ---- kernels ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["optim", "pool", "norm", "sampling"])
def test_kernels_that_plans_launch_make_no_arrays(family: str) -> None:
    """Tables are constants of the plan, and scratch comes with the launch."""
    package = importlib.import_module(f"funcnn.kernels.cpu.{family}")
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    kernels = {name: one for module in modules for name, one in vars(module).items() if isinstance(one, Kernel)}
    assert kernels and not [name for name, one in kernels.items() if one.holds()]
