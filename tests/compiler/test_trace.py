"""The programs that a trace writes, as text: reads and writes of boxes, memory that boxes share, gradients, numbers, layouts."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

import funcnn as fn
from funcnn import nn
from funcnn.compiler.ir import Program
from funcnn.compiler.passes import pipeline
from funcnn.compiler.text import show


def traced(f: Callable, *args: Any) -> str:
    """The text of what is traced, before any pass."""
    seen: list[Program] = []
    before = pipeline.after_each(lambda program, after, name: seen.append(program) if name == "trace" else None)
    try:
        fn.jit(f).program(*args)
    finally:
        pipeline.after_each(before)
    (program,) = seen
    return show(program, origins=False)


BOX, WHOLE, LEAF, NORM = fn.ones(3), fn.ones(4), fn.ones(3).requires_grad_(), nn.BatchNorm1d(3)


def _written(x: Any) -> Any:
    BOX.add_(x)
    y = BOX * 2
    BOX.mul_(y)
    return y


def _view_written(x: Any) -> Any:
    x[1:].mul_(2.0)
    return x.sum()


def _overlapping(a: Any, b: Any) -> Any:
    a.add_(1.0)
    return b * 2


def _normalised(x: Any) -> Any:
    with fn.no_grad():
        return NORM(x)


PROGRAMS: dict[str, tuple[Callable[[], tuple], str]] = {
    "a box is one input, is written to in variables, and stored once": (lambda: (_written, fn.ones(3)), """
        program(%0:float32[3], %1:float32[3]) {
          %3:float32[] = constant [2.0]
          %2:float32[3] = add(%1, %0)
          %4:float32[3] = mul(%2, %3)
          %5:float32[3] = mul(%2, %4)
          store %5 -> %1
          return %4
        }"""),
    "a write to a view goes to its base": (lambda: (_view_written, fn.ones(3)), """
        program(%0:float32[3]) {
          %2:float32[] = constant [2.0]
          %1:float32[2] = slice(%0) [starts=(1,), stops=(3,), steps=(1,)] shares %0
          %3:float32[2] = mul(%1, %2)
          %4:float32[3] = slice_put(%0, %3) [starts=(1,), stops=(3,), steps=(1,)]
          %5:float32[] = sum(%4) [axes=(0,)]
          store %4 -> %0
          return %5
        }"""),
    "memory that arguments share is an input, into which writes are put": (lambda: (_overlapping, WHOLE[:3], WHOLE[1:]), """
        program(%0:float32[3], %1:float32[3], %5:float32[4] strides (4,)) {
          %2:float32[] = constant [1.0]
          %4:float32[] = constant [2.0]
          %3:float32[3] = add(%0, %2)
          %6:float32[4] = memory_put(%5, %3) [offset=0, shape=(3,), steps=(1,)]
          %7:float32[3] = memory_view(%6) [offset=1, shape=(3,), steps=(1,)] shares %6
          %8:float32[3] = mul(%7, %4)
          store %3 -> %0
          return %8
        }"""),
    "a gradient that was absent is a result": (lambda: (lambda x: (LEAF * x).sum().backward(), fn.ones(3)), """
        program(%0:float32[3], %1:float32[3]) {
          %2:float32[3] = mul(%1, %0)
          %3:float32[] = sum(%2) [axes=(0,)]
          %4:float32[] = full() [shape=(), value=1, dtype=float32]
          %5:float32[1] = reshape(%4) [shape=(1,)] shares %4
          %6:float32[3] = expand(%5) [shape=(3,)] shares %5
          %7:float32[3] = mul(%6, %0)
          return %7
        }"""),
    "a Python number is weak, and takes the dtype of what it meets": (lambda: (lambda x, n: x * n, fn.ones(3), 2.0), """
        program(%0:float32[3], %1:float64[] weak) {
          %2:float32[] = to(%1) [dtype=float32]
          %3:float32[3] = mul(%0, %2)
          return %3
        }"""),
    "a layout that was asked for is known, and this reshape copies": (lambda: (lambda x: x.reshape(6), fn.ones(2, 3).t()), """
        program(%0:float32[3,2] strides (4, 12)) {
          %1:float32[6] = reshape(%0) [shape=(6,)]
          return %1
        }"""),
    "a view of an argument, and the argument, are no results of the program": (lambda: (lambda x: (x.t(), x), fn.ones(2, 3)), """
        program(%0:float32[2,3]) {
          %1:float32[3,2] = permute(%0) [dims=(1, 0)] shares %0
          return
        }"""),
    "running statistics are stored": (lambda: (_normalised, fn.ones(2, 3)), """
        program(%0:float32[2,3], %1:float32[3], %2:float32[3], %8:int64[], %10:float32[3], %11:float32[3]) {
          %7:int64[] = constant [1]
          %3:float32[2,3], %4:float32[3], %5:float32[3], %6:float32[3] = batch_norm(%0, %1, %2) [eps=1e-05, groups=0]
          %9:int64[] = add(%8, %7)
          %12:float32[3], %13:float32[3] = running_statistics(%10, %11, %4, %6) [momentum=0.1, scales=(1.0, 2.0)]
          store %12 -> %10
          store %13 -> %11
          store %9 -> %8
          return %3
        }"""),
    "an example of a batch is no variable": (lambda: (fn.vmap(lambda row: row * row), fn.ones(2, 3)), """
        program(%0:float32[2,3]) {
          %1:float32[2,3] = mul(%0, %0)
          return %1
        }"""),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_trace_writes(name: str) -> None:
    given, text = PROGRAMS[name]
    assert traced(*given()) == dedent(text).strip()
    assert LEAF.grad is None and BOX.tolist() == [1.0] * 3  # tracing touches no box
