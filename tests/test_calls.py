"""How many Python functions of the package a call goes through, and how many of its files: counts, which no busy machine changes.

Each frame costs some 50 ns, and is a step for who reads on from ``model(x)`` to the kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim
from funcnn.kernels.cpu.build.facts import CHECK
from tests.plain import compiled_only

ROOT = str(Path(fn.__file__).parent) + os.sep


def counted(f: Callable) -> tuple[int, int]:
    """Frames of the package that a second call enters, and the files that they stand in."""
    f()
    frames: list[str] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            frames.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        f()
    finally:
        sys.setprofile(before)
    return len(frames), len(set(frames))


def _add() -> Callable:
    x, y = fn.ones(3), fn.ones(3)
    return lambda: x + y


def _convolution() -> Callable:
    layer, image = nn.Conv2d(1, 2, 3), fn.ones(1, 1, 5, 5)
    return lambda: layer(image)


def _step() -> Callable:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    opt = optim.AdamW(model.parameters(), 1e-3)
    x, target = fn.ones(2, 1, 5, 5), fn.tensor(np.array([0, 1]))

    def step() -> None:
        opt.zero_grad()
        F.cross_entropy(model(x), target).backward()
        opt.step()

    return step


# Before the contract of plans these were 11 calls in 6 files, 107 in 20, and 761 in 48.
WALKS = {"x + y": (_add, 8, 5), "nn.Conv2d(x)": (_convolution, 25, 12), "a training step": (_step, 340, 46)}


@compiled_only
@pytest.mark.skipif(CHECK, reason="what FUNCNN_CHECK=1 puts around a kernel is counted")
@pytest.mark.parametrize("walk", WALKS)
def test_a_call_goes_through_few_functions_and_files(walk: str) -> None:
    make, most_calls, most_files = WALKS[walk]
    calls, files = counted(make())
    assert calls <= most_calls and files <= most_files, f"{walk}: {calls} calls in {files} files"


def test_an_import_leaves_out_what_may_never_be_named() -> None:
    program = (
        "import sys, gc, funcnn\nassert gc.isenabled()\n"
        "early = [name for name in ('compiler', 'layers', 'nn', 'optim', 'profiler') if 'funcnn.' + name in sys.modules]\n"
        "assert not early, early\nassert funcnn.jit(lambda x: x + 1)(funcnn.ones(2)).tolist() == [2.0, 2.0]\n"
        "assert funcnn.optim.SGD and funcnn.nn.Linear and gc.isenabled()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not done.returncode, done.stderr
