"""Programs as text: every program of the table of cases reads back to an equal one, which gives the same bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.compiler.ir import Program, ProgramError
from funcnn.compiler.passes import pipeline
from funcnn.compiler.runtime.reference import Replay
from funcnn.compiler.step import CompiledStep
from funcnn.compiler.text import literal, loaded, names, parse, show
from funcnn.compiler.verify import verify
from funcnn.transforms.grad import vjp
from funcnn.transforms.jit import jit
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case

ROOT = Path(__file__).resolve().parent.parent.parent


def _steps(row: Case) -> list[tuple[Program, CompiledStep, list]]:
    """What is traced for a row and for its derivative, what jit keeps, and the arguments."""
    arrays = h.inputs(row, row.dtypes[0])
    runs: list = [(row.fn, arrays)]
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        runs.append((lambda *xs: vjp(f, *xs)[1](f(*xs)), floats))
    found, traced = [], []
    before = pipeline.after_each(lambda program, after, name: traced.append(program) if name == "trace" else None)
    try:
        for run, given in runs:
            compiled = jit(run)
            compiled.program(*h.boxes(given))
            steps = [step for steps in compiled.steps.values() for step in steps if isinstance(step, CompiledStep)]
            found += [(traced.pop(), step, h.boxes(given)) for step in steps]
    finally:
        pipeline.after_each(before)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", [row for row in TABLE if row.jit], ids=lambda row: row.id)
def test_a_program_reads_back_and_gives_the_same_bits(row: Case) -> None:
    for traced, step, boxes in _steps(row):
        arrays = step.values(step.found(boxes))
        expected = [array.tobytes() for array in Replay(traced).run(arrays)]
        for program in (traced, step.program):
            text = show(program)
            read = parse(text, names(program))
            assert read == program and show(read) == text
            assert [array.tobytes() for array in Replay(read).run(arrays)] == expected


def test_primitives_have_names_of_their_own() -> None:
    counts = Counter(prim.name for prim in h.all_primitives())
    assert [name for name, count in counts.items() if count > 1] == []
    assert all(loaded().get(prim.name) is prim for prim in h.all_primitives())


# ---- what is in the text ------------------------------------------------------------------------------------------------
def _text(f: Any, *args: Any, **how: Any) -> str:
    compiled = fn.jit(f)
    compiled.program(*args)
    return show(next(iter(compiled.steps.values()))[0].program, **how)


class Net(fn.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = fn.nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.inner(x).tanh()


def test_an_equation_says_where_it_comes_from() -> None:
    net = Net()
    x = fn.ones(4, 3)
    lines = _text(lambda x: net(x).sum().backward(), x).splitlines()
    at = {line.split(" = ")[1].split("(")[0]: line for line in lines if " = " in line}
    here = Net.forward.__code__
    assert f"# in inner, at {here.co_filename}:{here.co_firstlineno + 1}" in at["linear"]
    assert "backward" in at["tanh_grad"] and __file__ in at["tanh_grad"] and "backward" not in at["tanh"]
    eq = parse("\n".join(lines)).equations[0]
    assert (eq.path, eq.backward) == ("inner", False) and eq.line == f"{here.co_filename}:{here.co_firstlineno + 1}"


@pytest.mark.skipif(not hasattr(BaseException, "add_note"), reason="notes came with Python 3.11")
def test_an_error_of_a_later_run_names_the_line_that_was_traced() -> None:
    run = fn.jit(lambda x, i: (x.gather(0, i), x)[1])
    run(fn.ones(2), fn.tensor([1]))
    with pytest.raises(IndexError) as raised:
        run(fn.ones(2), fn.tensor([2]))
    assert [f"gather_check of a jitted function: {__file__}:" in note for note in raised.value.__notes__] == [True]


def test_the_program_of_the_design_page_is_one() -> None:
    page = (ROOT / "docs" / "design" / "0008-program.md").read_text()
    text = page[page.index("    program(") : page.index("\n    }") + 6].replace("\n    ", "\n").strip()
    program = verify(parse(text))
    assert show(program) == text and {eq.line for eq in program.equations} == {
        f"train.py:{n}" for n in (12, 13, 20, 21)
    }
    (norm,) = [eq for eq in pipeline.optimized(program).equations if eq.prim.name == "layer_norm"]
    assert len(norm.outs) == 1 and norm.params["residuals"] is False


def test_what_is_shown_is_short() -> None:
    text = fn.jit(lambda x: x + fn.tensor(np.arange(100.0, dtype=np.float32))).program(fn.ones(100))
    assert "constant ..." in text and "#" not in text
    with pytest.raises(ProgramError, match="were left out; print the program with data=True"):
        parse(text)


@pytest.mark.parametrize("value", [
    0, -3, True, None, 1.5, -0.0, float("inf"), -float("inf"), "a b], c=(", (), (1,), ((1, 2.0), "x"), [1, [2]],
    np.dtype("float32"), np.dtype("bool"), (None, np.dtype("int64")),
])  # fmt: skip
def test_parameters_read_back(value: Any) -> None:
    text = f"program() {{\n%0:float32[] = full() [value={literal(value)}, rest=1]\nreturn\n}}"
    read = parse(text).equations[0].params
    assert repr(read["value"]) == repr(value) and read["rest"] == 1


@pytest.mark.parametrize("array", [
    np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324]), np.array([0x7FC00001], np.uint32).view(np.float32),
    np.array([2**63 - 1, -(2**63)]), np.array(True), np.zeros((0, 3), np.float32), np.arange(40, dtype=np.float32),
])  # fmt: skip
def test_constants_read_back_to_the_bit(array: np.ndarray) -> None:
    text = _text(lambda x: (fn.tensor(array), x)[0], fn.ones(1))
    (constant,) = parse(text).constants
    assert constant.array.tobytes() == array.tobytes() and constant.array.dtype == array.dtype
    assert constant.array.shape == array.shape


REFUSED = {
    "neg()": "expected 'program",
    "": "it ends within a program",
    "program() {": "it ends within a program",
    "program() {\nreturn\n": "it ends within a program",
    "program() {\nreturn\n}\nmore": "the program ends before 'more'",
    "program() {\nwhat is this\nreturn\n}": "not an equation: 'what is this'",
    "program() {\n%0:float32[] = nothing_like_it()\nreturn\n}": "no primitive is known by the name nothing_like_it",
    "program() {\nneg_check()\nreturn\n}": "no primitive is known by the name neg_check",
    "program() {\n%1:float32[] = neg(%0)\nreturn\n}": "%0 is used before the line that makes it",
    "program(%0:float32[]) {\n%0:float32[2] = neg(%0)\nreturn\n}": r"%0 is both %0:float32\[\] and %0:float32\[2\]",
    "program() {\n%0:float32[] = full() [value=open('x')]\nreturn\n}": r"not a value of a parameter: open\('x'\)",
    "program() {\nreturn %3\n}": "%3 is used before",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_text_that_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(ProgramError, match=REFUSED[text]):
        parse(text)


def test_a_parameter_without_a_text_is_named() -> None:
    with pytest.raises(ProgramError, match="a parameter of type object has no text"):
        literal(object())
