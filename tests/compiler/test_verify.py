"""What ``verify`` refuses, one program for each kind of fault; and what a pass may not do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from funcnn.compiler.ir import Constant, Program, ProgramError, Store, Var
from funcnn.compiler.text import parse
from funcnn.compiler.verify import verify, verify_pass

GOOD = parse("""
    program(%0:float32[2,3] strides (12, 4), %1:float32[3], %2:int64[1]) {
      %3:float32[3] = constant [1.0, 2.0, 3.0]
      %4:float32[6] = reshape(%0) [shape=(6,)] shares %0
      gather_check(%1, %2) [dim=0]
      %5:float32[3] = add(%1, %3)
      %6:float32[3] = neg(%5)
      store %5 -> %1
      return %4, %6
    }""")
RESHAPE, CHECK, ADD, NEG = GOOD.equations
INSIDE = parse("""
    program(%0:float32[3]) {
      %1:float32[3] = call(%0) holds program
        program(%0:float32[3]) {
          %1:float32[3] = neg(%0)
          return %1
        }
      return %1
    }""")


def _with(*equations: object) -> Program:
    return replace(GOOD, equations=equations)  # type: ignore[arg-type]


def _inside_out() -> Program:
    (call,) = INSIDE.equations
    inner = call.params["program"]
    wrong = replace(inner, equations=(), outputs=inner.outputs)
    return replace(INSIDE, equations=(replace(call, params={"program": wrong}),))


F32 = np.dtype("float32")
WRONG: dict[str, tuple[Program, str]] = {
    "made twice": (_with(RESHAPE, CHECK, ADD, replace(NEG, outs=ADD.outs)), r"equation 3 \(neg\): %5 is made a second time"),
    "an input made": (_with(RESHAPE, CHECK, ADD, replace(NEG, outs=(GOOD.inputs[1],))), "%1 is made a second time"),
    "used before it is made": (_with(RESHAPE, CHECK, NEG, ADD), r"equation 2 \(neg\): %5 is used before an equation makes it"),
    "used with another type": (
        _with(RESHAPE, CHECK, ADD, replace(NEG, ins=(Var(5, (4,), F32),))),
        r"%5 is used as float32\[4\], but was made as float32\[3\]",
    ),
    "a shape rule gives another shape": (
        _with(replace(RESHAPE, outs=(Var(4, (2, 3), F32),)), CHECK, ADD, NEG),
        r"equation 0 \(reshape\): its shape rule gives .*6.* but the program has .*2, 3",
    ),
    "a shape rule gives another dtype": (
        _with(RESHAPE, CHECK, replace(ADD, outs=(Var(5, (3,), np.dtype("float64")),))), "its shape rule gives .*float32",
    ),
    "fewer outputs": (_with(RESHAPE, CHECK, ADD, replace(NEG, outs=())), "its shape rule gives"),
    "a result that nothing makes": (_with(RESHAPE, CHECK, ADD), "results: %6 is used before an equation makes it"),
    "a store of what nothing makes": (
        replace(GOOD, stores=(Store(Var(9, (3,), F32), GOOD.inputs[1]),)), "stores: %9 is used before",
    ),
    "a store to what is no input": (replace(GOOD, stores=(Store(ADD.outs[0], NEG.outs[0]),)), "stores: %6 is no input"),
    "a store that does not fit": (
        replace(GOOD, stores=(Store(ADD.outs[0], GOOD.inputs[0]),)), r"%5, float32\[3\], does not fit %0, float32\[2, 3\]",
    ),
    "a constant of another type": (
        replace(GOOD, constants=(Constant(GOOD.constants[0].var, np.zeros(3)),)), r"%3 is float32\[3\], .*float64\[3\]",
    ),
    "strides of what is no input": (replace(GOOD, strides={NEG.outs[0]: (4,)}), r"strides \(4,\) for %6"),
    "strides of other dimensions": (replace(GOOD, strides={GOOD.inputs[0]: (4,)}), r"strides \(4,\) for %0"),
    "a view that says it has its own memory": (
        _with(replace(RESHAPE, shares=None), CHECK, ADD, NEG),
        r"equation 0 \(reshape\): it shares no memory, but its view rule shares the memory of %0",
    ),
    "a copy that says it shares": (
        replace(GOOD, strides={GOOD.inputs[0]: (4, 8)}), "it shares the memory of %0, but its view rule shares no memory",
    ),
    "no view that says it shares": (
        _with(RESHAPE, CHECK, replace(ADD, shares=0), NEG), r"equation 2 \(add\): it shares the memory of %1",
    ),
    "a program inside": (_inside_out(), r"equation 0 \(call\), results: %1 is used before"),
}  # fmt: skip


def test_good_programs_are_good() -> None:
    assert verify(GOOD) is GOOD and verify(INSIDE) is INSIDE


@pytest.mark.parametrize("kind", WRONG)
def test_a_program_that_is_not_well_formed_is_refused(kind: str) -> None:
    program, message = WRONG[kind]
    with pytest.raises(ProgramError, match=message):
        verify(program, "here")


def test_a_call_of_other_types_is_refused() -> None:
    wide = replace(INSIDE, inputs=(Var(0, (4,), F32),))
    (call,) = wide.equations
    with pytest.raises(ProgramError, match="call: the program takes"):
        verify(replace(wide, equations=(replace(call, ins=wide.inputs),)))


PASSES: dict[str, tuple[Program, str]] = {
    "loses a check": (_with(RESHAPE, ADD, NEG), r"the effects were \['gather'\] and are \[\]"),
    "loses a result": (replace(GOOD, outputs=GOOD.outputs[:1]), "differ in number"),
    "loses a store": (replace(GOOD, stores=()), "differ in number"),
    "gives a result of another type": (
        replace(GOOD, outputs=GOOD.outputs[::-1]),
        r"%6, float32\[3\], leaves in place of",
    ),
}


@pytest.mark.parametrize("kind", PASSES)
def test_a_pass_may_not(kind: str) -> None:
    after, message = PASSES[kind]
    with pytest.raises(ProgramError, match=message):
        verify_pass(GOOD, after, "some pass")
    assert verify_pass(GOOD, GOOD, "some pass") is GOOD


def test_effects_keep_their_order() -> None:
    two = _with(CHECK, RESHAPE, replace(CHECK, prim=parse("""
        program(%0:float32[3], %1:int64[1]) {
          index_check(%0, %1)
          return
        }""").equations[0].prim, params={}), ADD, NEG)  # fmt: skip
    first, reshape, second, *rest = two.equations
    with pytest.raises(ProgramError, match=r"the effects were \['gather', 'index'\] and are \['index', 'gather'\]"):
        verify_pass(two, replace(two, equations=(second, reshape, first, *rest)), "some pass")
