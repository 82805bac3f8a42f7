"""Each pass on the text of a program: what goes, what stays. And random programs with the passes on and off."""

from __future__ import annotations

import dis
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.compiler.ir import Program, substituted
from funcnn.compiler.passes import pipeline
from funcnn.compiler.passes.constants import constants
from funcnn.compiler.passes.cse import cse
from funcnn.compiler.passes.dead import dead
from funcnn.compiler.passes.epilogues import epilogues
from funcnn.compiler.passes.outputs import outputs
from funcnn.compiler.runtime.reference import Replay
from funcnn.compiler.text import parse, show
from funcnn.compiler.verify import verify, verify_pass
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from tests import helpers as h

fuzz = pytest.importorskip("benchmarks.fuzz_passes")

PASSES: dict[str, tuple[Callable[[Program], Program], str, str]] = {
    "dead: what nobody reads goes, a check stays, and so do its inputs": (dead, """
        program(%0:float32[4], %1:int64[2]) {
          %2:float32[3] = constant [1.0, 2.0, 3.0]
          %3:float32[4] = exp(%0)
          %4:int64[2] = neg(%1)
          %5:float32[2] = gather(%0, %4) [dim=0]
          %6:float32[4] = neg(%3)
          return %0
        }""", """
        program(%0:float32[4], %1:int64[2]) {
          %4:int64[2] = neg(%1)
          gather_check(%0, %4) [dim=0]
          return %0
        }"""),
    "dead: what is stored is read": (dead, """
        program(%0:float32[]) {
          %1:float32[] = exp(%0)
          %2:float32[] = neg(%0)
          store %1 -> %0
          return
        }""", """
        program(%0:float32[]) {
          %1:float32[] = exp(%0)
          store %1 -> %0
          return
        }"""),
    "dead: of a call only the effects are left": (dead, """
        program(%0:float32[4], %1:int64[2]) {
          %2:float32[2] = call(%0, %1) holds program
            program(%0:float32[4], %1:int64[2]) {
              %2:float32[2] = gather(%0, %1) [dim=0]
              return %2
            }
          return %0
        }""", """
        program(%0:float32[4], %1:int64[2]) {
          call(%0, %1) holds program
            program(%0:float32[4], %1:int64[2]) {
              %2:float32[2] = gather(%0, %1) [dim=0]
              return
            }
          return %0
        }"""),
    "cse: equal equations are one, also where their inputs became equal": (cse, """
        program(%0:float32[2,2], %1:float32[2,2]) {
          %2:float32[2,2] = matmul(%0, %1)
          %3:float32[2,2] = relu(%2)
          %4:float32[2,2] = matmul(%0, %1)
          %5:float32[2,2] = relu(%4)
          %6:float32[2,2] = sigmoid(%4)
          return %3, %5, %6
        }""", """
        program(%0:float32[2,2], %1:float32[2,2]) {
          %2:float32[2,2] = matmul(%0, %1)
          %3:float32[2,2] = relu(%2)
          %6:float32[2,2] = sigmoid(%2)
          return %3, %3, %6
        }"""),
    "cse: parameters that are only equal to Python are not the same": (cse, """
        program(%0:float32[1]) {
          %1:float32[] = full() [shape=(), value=0.0, dtype=float32]
          %2:float32[] = full() [shape=(), value=-0.0, dtype=float32]
          %3:int64[] = full() [shape=(), value=1, dtype=int64]
          %4:int64[] = full() [shape=(), value=True, dtype=int64]
          return %1, %2, %3, %4
        }""", """
        program(%0:float32[1]) {
          %1:float32[] = full() [shape=(), value=0.0, dtype=float32]
          %2:float32[] = full() [shape=(), value=-0.0, dtype=float32]
          %3:int64[] = full() [shape=(), value=1, dtype=int64]
          %4:int64[] = full() [shape=(), value=True, dtype=int64]
          return %1, %2, %3, %4
        }"""),
    "cse: an equal check is made once, at its first place": (cse, """
        program(%0:float32[4], %1:int64[2]) {
          gather_check(%0, %1) [dim=0]
          %2:float32[2] = gather(%0, %1) [dim=0]
          gather_check(%0, %1) [dim=0]
          return %2
        }""", """
        program(%0:float32[4], %1:int64[2]) {
          gather_check(%0, %1) [dim=0]
          %2:float32[2] = gather(%0, %1) [dim=0]
          return %2
        }"""),
    "constants: literals and what is made of them, unless it is large or a view": (constants, """
        program(%0:float32[2]) {
          %1:float32[] = full() [shape=(), value=3.0, dtype=float32]
          %2:float32[] = constant [0.5]
          %3:float32[] = mul(%1, %2)
          %4:float32[1] = reshape(%3) [shape=(1,)] shares %3
          %5:float32[500] = full() [shape=(500,), value=0.0, dtype=float32]
          %6:float32[500] = neg(%5)
          return %4, %6
        }""", """
        program(%0:float32[2]) {
          %2:float32[] = constant [0.5]
          %1:float32[] = constant [3.0]
          %3:float32[] = constant [1.5]
          %4:float32[1] = reshape(%3) [shape=(1,)] shares %3
          %5:float32[500] = full() [shape=(500,), value=0.0, dtype=float32]
          %6:float32[500] = neg(%5)
          return %4, %6
        }"""),
    "constants: a check is made at each run": (constants, """
        program() {
          %0:float32[2] = constant [1.0, 2.0]
          %1:int64[1] = constant [7]
          %2:float32[1] = gather(%0, %1) [dim=0]
          return %2
        }""", """
        program() {
          %0:float32[2] = constant [1.0, 2.0]
          %1:int64[1] = constant [7]
          %2:float32[1] = gather(%0, %1) [dim=0]
          return %2
        }"""),
    "outputs: a pool without indices where nobody reads them": (outputs, """
        program(%0:float32[1,1,4,4]) {
          %1:float32[1,1,2,2], %2:int32[1,1,2,2] = max_pool(%0) [POOLED True]
          %3:float32[1,1,2,2], %4:int32[1,1,2,2] = max_pool(%0) [POOLED True]
          return %1, %3, %4
        }""", """
        program(%0:float32[1,1,4,4]) {
          %1:float32[1,1,2,2] = max_pool(%0) [POOLED False]
          %3:float32[1,1,2,2], %4:int32[1,1,2,2] = max_pool(%0) [POOLED True]
          return %1, %3, %4
        }"""),
    "epilogues: a linear layer and its ReLU are one, unless what is between them is read elsewhere": (epilogues, """
        program(%0:float32[3,4], %1:float32[4,4], %2:float32[4]) {
          %3:float32[3,4] = linear(%0, %1, %2)
          %4:float32[3,4] = relu(%3)
          %5:float32[3,4] = linear(%4, %1)
          %6:float32[3,4] = relu(%5)
          %7:float32[3,4] = linear(%6, %1)
          %8:float32[3,4] = relu(%7)
          return %5, %8, %7
        }""", """
        program(%0:float32[3,4], %1:float32[4,4], %2:float32[4]) {
          %4:float32[3,4] = linear_relu(%0, %1, %2)
          %5:float32[3,4] = linear(%4, %1)
          %6:float32[3,4] = relu(%5)
          %7:float32[3,4] = linear(%6, %1)
          %8:float32[3,4] = relu(%7)
          return %5, %8, %7
        }"""),
}  # fmt: skip
POOLED = "size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False, indices="


@pytest.mark.parametrize("name", PASSES)
def test_what_a_pass_makes_of_a_program(name: str) -> None:
    run, *texts = PASSES[name]
    before, after = (text.replace("POOLED ", POOLED) for text in texts)
    given = parse(before)
    made = verify_pass(verify(given), run(given), name)
    assert show(made) == show(parse(after))
    assert run(made) == made  # a second time there is nothing left to do


def test_every_pass_is_in_the_table() -> None:
    assert {run for run, _, _ in PASSES.values()} == set(pipeline.PASSES)


def _program(f: Callable, *args: Any) -> str:
    return fn.jit(f).program(*args)


def test_a_program_computes_what_it_needs() -> None:
    x, w = fn.ones(3, 4), fn.ones(4, 4)
    text = _program(fn.grad(lambda t: ((t @ w).relu() * (t @ w).sigmoid()).sum()), x)
    assert (text.count("matmul("), text.count("permute(")) == (3, 1)  # one of them forward
    assert "constant" not in _program(lambda t: (fn.zeros(500, 500), t.exp())[1], x)


# ---- effects ----------------------------------------------------------------------------------------------------------
CALLS: list[tuple[str, float]] = []


def _note(ins: list, outs: list, name: str) -> None:
    CALLS.append((name, float(ins[0].reshape(-1)[0])))
    np.copyto(outs[0], ins[0])


note_p = Primitive("note", lambda x, name: (Aval(tuple(x.shape), x.dtype),), cpu=_note, effect=True, keeps="")


def test_calls_back_into_python_stay_each_in_its_order() -> None:
    CALLS.clear()

    @fn.jit
    def run(x: Any) -> Any:
        note_p(x, name="first")
        y = note_p(x * 2, name="second")
        note_p(x, name="first")
        return y + 1

    for start in (1.0, 3.0):
        assert run(fn.tensor([start])).tolist() == [2 * start + 1]
    assert CALLS == [(name, at) for s in (1.0, 3.0) for name, at in (("first", s), ("second", 2 * s), ("first", s))]


def test_an_error_comes_before_what_stands_behind_it() -> None:
    CALLS.clear()

    @fn.jit
    def run(x: Any, i: Any) -> Any:
        note_p(x, name="before")
        x.gather(0, i)
        note_p(x, name="behind")
        return x + 1

    with pytest.raises(IndexError):
        run(fn.tensor([1.0]), fn.tensor([5]))
    assert CALLS == [("before", 1.0)]


# ---- random programs ----------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, 500, 100))
def test_random_programs_give_the_same_bits_after_each_pass(start: int) -> None:
    removed = [fuzz.check(seed) for seed in range(start, start + 100)]
    assert sum(removed) > 100  # the passes have something to do


def test_random_programs_are_of_all_kinds() -> None:
    programs = [fuzz.make(seed)[0] for seed in range(300)]
    names = {eq.prim.name for program in programs for eq in program.equations}
    assert names >= {"call", "gather", "max_pool", "moments", "full", "iota", "permute", "reshape", "expand", "slice"}
    assert any(
        eq.prim.name == "reshape" and eq.shares is None for p in programs for eq in p.equations
    )  # one that copies
    assert any(program.stores for program in programs)
    outcomes = [fuzz.outcome(*fuzz.make(seed)) for seed in range(300)]
    assert 0 < sum(isinstance(outcome, str) for outcome in outcomes) < 60  # some raise


def test_a_pass_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(program: Program) -> Program:
        """Takes the last equation's first input for its output."""
        *rest, last = program.equations
        if len(last.outs) != 1 or not last.ins or last.effects:
            return program
        one, two = last.ins[0], last.outs[0]
        shorter = replace(program, equations=tuple(rest))
        return shorter if one[1:] != two[1:] else substituted(shorter, {two: one})

    monkeypatch.setattr(fuzz, "PASSES", (wrong,))
    found = 0
    for seed in range(100):
        try:
            fuzz.check(seed)
        except Exception:
            found += 1
    assert found > 10


def test_results_never_share_memory() -> None:
    program = pipeline.optimized(
        parse("""
        program(%0:float32[2,3] strides (12, 4)) {
          %1:float32[2,3] = constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
          %2:float32[6] = reshape(%0) [shape=(6,)] shares %0
          %3:float32[3,2] = permute(%1) [dims=(1, 0)] shares %1
          %4:float32[2,3] = exp(%0)
          %5:float32[3,2] = permute(%4) [dims=(1, 0)] shares %4
          return %0, %1, %2, %3, %4, %5, %4
        }""")
    )
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    results = Replay(program).run([array])
    assert all(result.flags.c_contiguous and result.flags.writeable for result in results)
    for position, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in (array, *results[:position]))


def test_pools_without_indices() -> None:
    x = fn.rand(1, 2, 4, 4)
    assert "indices=False" in _program(lambda t: F.max_pool2d(t, 2), x)
    assert "indices=True" in _program(fn.grad(lambda t: F.max_pool2d(t, 2).sum()), x)


NORMS = {
    "layer_norm": lambda t: F.layer_norm(t, (4,)),
    "rms_norm": lambda t: F.rms_norm(t, (4,)),
    "group_norm": lambda t: F.group_norm(t, 1),
    "instance_norm": F.instance_norm,
    "batch_norm": lambda t: F.batch_norm(t, None, None, training=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_without_residuals(name: str) -> None:
    f, x = NORMS[name], fn.rand(2, 3, 4, 4)
    assert "residuals=False" in _program(f, x)
    assert "residuals=False" not in _program(fn.grad(lambda t: (f(t) ** 2).sum()), x)
    with fn.no_grad():
        eager = f(x).numpy()
    assert f(x).numpy().tobytes() == eager.tobytes() == fn.jit(f)(x).numpy().tobytes()


# ---- what a run may depend on ---------------------------------------------------------------------------------------------
def _names(f: Any, seen: set) -> set[str]:
    """The global names that a function uses, and those of the functions of funcnn that it calls."""
    f = getattr(f, "func", f)  # of a partial
    code, scope = getattr(f, "__code__", None), getattr(f, "__globals__", {})
    if code is None or code in seen or not str(scope.get("__name__", "")).startswith(("funcnn.ops", "funcnn.kernels")):
        return set()
    seen.add(code)
    codes = [code, *(const for const in code.co_consts if hasattr(const, "co_names"))]
    found = {step.argval for each in codes for step in dis.get_instructions(each) if step.opname == "LOAD_GLOBAL"}
    cells = [getattr(cell.cell_contents, "run", cell.cell_contents) for cell in f.__closure__ or ()]  # of host plans
    return found.union(*[_names(value, seen) for value in (*(scope.get(name) for name in found), *cells)])


def test_no_implementation_reads_whether_gradients_are_recorded() -> None:
    """At a replay it would be the caller's business, not the trace's."""
    for prim in h.all_primitives():
        for way in prim.on.get("cpu", ()):
            for f in (way.plan, way.pays):
                assert not _names(f, set()) & {"ctx", "recordable"}, f"{prim.name}, {way.name}"


def test_a_replay_runs_no_shape_rule() -> None:
    count = [0]

    def shape(x: Any) -> tuple:
        count[0] += 1
        return (Aval(tuple(x.shape), x.dtype),)

    twice_p = Primitive("twice", shape, cpu=lambda ins, outs: np.multiply(ins[0], 2, outs[0]))
    run = fn.jit(lambda x: twice_p(x) + 1)
    before = pipeline.after_each(None)
    try:
        run(fn.ones(2))
        asked = count[0]  # by the trace, and by who planned the equation
        assert run(fn.ones(2)).tolist() == [3.0, 3.0] and count == [asked]
    finally:
        pipeline.after_each(before)


@pytest.mark.parametrize("size", [(3, 4, 5), (70, 80, 90), (300, 64, 150)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_linear_layer_with_its_relu_gives_the_same_bits(size: tuple, dtype: str) -> None:
    m, k, n = size
    rng = np.random.default_rng(0)
    x, w, b = (fn.tensor(rng.standard_normal(shape).astype(dtype)) for shape in ((m, k), (n, k), (n,)))

    def f(x: Any, w: Any, b: Any) -> Any:
        y = F.relu(F.linear(x, w, b))
        return (y * y).sum(), y

    seen: list[str] = []
    before = pipeline.after_each(lambda old, new, name: seen.append(show(new)))
    try:
        made = fn.jit(lambda *given: fn.value_and_grad(f, argnums=(0, 1, 2), has_aux=True)(*given))(x, w, b)
    finally:
        pipeline.after_each(before)
    assert "linear_relu(" in seen[-1] and "= relu(" not in seen[-1]
    eager = fn.value_and_grad(f, argnums=(0, 1, 2), has_aux=True)(x, w, b)
    for one, two in zip(h.numbers(made), h.numbers(eager), strict=True):
        assert one.tobytes() == two.tobytes()
