"""Random programs beside PyTorch: 500 of them here, 20,000 by ``python -m benchmarks.fuzz_programs``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn

fuzz = pytest.importorskip("benchmarks.fuzz_programs")
torch = pytest.importorskip("torch")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, 500, 50))
def test_random_programs_are_pytorch(start: int) -> None:
    found = fuzz.fuzz(torch, fn, range(start, start + 50))
    assert not found, "\n\n".join(f"{failure}\n{program}" for _, program, failure in found.values())


@pytest.mark.filterwarnings("ignore")
def test_programs_reach_every_operation() -> None:
    """So that a line of the table whose tensors never fit does not go unnoticed."""
    drawn = {step.op.name for seed in range(3000, 4500) for step in fuzz.make(torch, seed).steps}
    missing = {op.name for op in fuzz.OPS} - drawn
    assert not missing, sorted(missing)


class _Wrong:
    """funcnn with one operation that is wrong, or writes to its input."""

    def __init__(self, **wrong: Any):
        self.__dict__.update(wrong)

    def __getattr__(self, name: str) -> Any:
        return getattr(fn, name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, wrong", [
    ("exp", lambda x: fn.exp(x) + 1e-3),
    ("roll", lambda x, *where: x if where[0] == 0 else fn.roll(x, *where)),
    ("square", lambda x: fn.square(x).detach()),
])  # fmt: skip
def test_a_fault_is_found_and_made_short(name: str, wrong: Any) -> None:
    library = _Wrong(**{name: wrong})
    for seed in range(2000):
        program = fuzz.make(torch, seed)
        failure = fuzz.check(torch, library, program, jit=False)
        if failure is not None:
            short = fuzz.shorten(torch, library, program, failure)
            assert any(step.op.name.startswith(name) for step in short.steps)
            assert len(short.steps) <= 4  # the fault, a view or two, a write that shows it
            return
    pytest.fail(f"no program of 2,000 notices that {name} is wrong")


def test_results_are_compared_in_shape_dtype_and_value() -> None:
    x = torch.tensor([1.0, 2.0])
    assert fuzz.differs(x, fn.tensor([1.0, 2.0])) == ""
    assert "shape" in fuzz.differs(x, fn.tensor([[1.0, 2.0]]))
    assert "dtype" in fuzz.differs(x, fn.tensor(np.array([1.0, 2.0])))
    assert fuzz.differs(x, fn.tensor([1.0, 2.1])) == "values"
    assert "missing" in fuzz.differs(x, None)
