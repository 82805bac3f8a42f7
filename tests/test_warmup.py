"""The warm-up compiles every kernel in every form that is used: a second process compiles nothing."""

from __future__ import annotations

import dis
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from funcnn.kernels import cpu
from funcnn.kernels.cpu.build.compile import Kernel
from funcnn.kernels.cpu.elementwise import comparison, functions
from funcnn.kernels.cpu.reduce import functions as reductions
from funcnn.warmup.command import main
from funcnn.warmup.programs import DTYPES, PROGRAMS
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case
from tests.plain import compiled_only, surrounded

MOVERS = ("copy", "copy_strided", "fill", "count_up")  # of any dtype, or of the dtypes that ranges are made of
ROOT = Path(__file__).parents[1]
Forms = dict[Kernel, dict[tuple, str]]  # the argument types of every kernel that Python called, and who did first


@contextmanager
def recorded(found: Forms, who: str) -> Iterator[None]:
    """Notes what kernels are called with, as Numba sees it; read-only arrays run what is made for writable ones."""
    from numba import typeof, types

    def form(x: Any) -> Any:
        kind = typeof(x)
        return kind.copy(readonly=False) if isinstance(kind, types.Array) else kind

    def around(kernel: Kernel, args: tuple) -> Any:
        found.setdefault(kernel, {}).setdefault(tuple(map(form, args)), who)
        return kernel.compiled(*args)

    with surrounded(around):
        yield


@pytest.fixture(scope="module")
def forms() -> Forms:
    found: Forms = {}
    for name, program in PROGRAMS.items():
        for dtype in DTYPES:
            with recorded(found, f"{name} in {dtype}"), np.errstate(all="ignore"):
                program(dtype)
    return found


def helpers(kernel: Kernel, into: set[Kernel]) -> set[Kernel]:
    """A kernel and all that it calls."""
    if kernel not in into:
        into.add(kernel)
        names = kernel.function.__globals__
        for step in dis.get_instructions(kernel.function):
            if step.opname == "LOAD_GLOBAL" and isinstance(names.get(step.argval), Kernel):
                helpers(names[step.argval], into)
    return into


@compiled_only
def test_programs_reach_every_kernel(forms: Forms) -> None:
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(cpu.__path__, f"{cpu.__name__}.")]
    every = {
        value: f"{m.__name__}.{name}" for m in modules for name, value in vars(m).items() if isinstance(value, Kernel)
    }
    apart = functions, comparison  # what runs only where it is preferred to NumPy's loops
    reached = {value for module in apart for value in vars(module).values() if isinstance(value, Kernel)}
    reached |= {reductions.some, reductions.every}  # likewise
    reached |= {reductions.squares, reductions.roots}  # the norm over axes that alternate with others
    for kernel in forms:
        helpers(kernel, reached)
    assert not [name for kernel, name in every.items() if kernel not in reached]


@compiled_only
def test_programs_call_a_kernel_in_one_form_a_precision(forms: Forms) -> None:
    for kernel, called in forms.items():
        precisions = [{dtype for dtype in DTYPES if dtype in str(types)} for types in called]
        several = [p for p in precisions if p]
        if several and kernel.__name__ not in MOVERS:
            assert {dtype for p in several for dtype in p} == set(DTYPES), f"{kernel.__name__} in {called}"
        assert kernel.__name__ in MOVERS or len(called) <= len(DTYPES), (
            f"{kernel.__name__} is compiled {len(called)} times: {called}"
        )


def differentiated(row: Case, arrays: list[np.ndarray]) -> None:
    """A row's values, and its gradients where it has them."""
    h.numbers(row.fn(*h.boxes(arrays)))
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        h.pulled(f, floats, h.cotangents(f, floats))


@compiled_only
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_operations_need_no_other_forms(forms: Forms) -> None:
    found: Forms = {}
    for row in TABLE:
        for dtype in row.dtypes:
            arrays = h.inputs(row, dtype)
            for variant in (arrays, [list(h.layouts(array))[-1] for array in arrays]):
                with recorded(found, f"{row.id} in {dtype}"):
                    differentiated(row, variant)
    for kernel, called in found.items():
        new = {types: who for types, who in called.items() if types not in forms.get(kernel, {})}
        assert not new, f"{kernel.__name__}: the warm-up does not compile {new}"


SECOND = """
import funcnn as fn
from funcnn import nn
from funcnn.warmup.programs import DTYPES, PROGRAMS

def step(model, x, target, classes):
    optimizer = fn.optim.Adam(model.parameters())
    fn.nn.functional.cross_entropy(model(x).reshape(-1, classes), target).backward()
    optimizer.step()

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.attention = nn.Embedding(50, 32), nn.MultiheadAttention(32, 4, dropout=0.1, batch_first=True)
        self.norm1, self.norm2, self.head = nn.LayerNorm(32), nn.LayerNorm(32), nn.Linear(32, 50)
        self.feed = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.Dropout(0.1))

    def forward(self, tokens):
        x = self.table(tokens)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x + self.feed(self.norm2(x)))

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.lstm, self.head = nn.Embedding(50, 12), nn.LSTM(12, 20, 2, bidirectional=True), nn.Linear(40, 50)

    def forward(self, tokens):
        return self.head(self.lstm(self.table(tokens))[0])

lenet = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)
with fn.no_compile():
    for name, program in PROGRAMS.items():
        for dtype in DTYPES:
            program(dtype)
    step(lenet, fn.randn(37, 1, 28, 28), fn.randint(0, 10, (37,)), 10)
    for model in Block(), Reader():
        step(model, fn.randint(0, 50, (11, 23)), fn.randint(0, 50, (11 * 23,)), 50)
print("nothing compiled")
"""


@compiled_only
def test_after_the_warm_up_another_process_compiles_nothing(capsys: Any) -> None:
    main(["-q"])
    assert "kernels compiled in" in capsys.readouterr().out
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SECOND], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing compiled\n"


def test_the_command_refuses_no_processes(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["-j", "0"])
    assert "expected at least one process, got -j 0" in capsys.readouterr().err
