"""Random programs under ``fn.grad``: ``python -m benchmarks.fuzz_grad --count 5000 --seed 0``.

The programs are those of ``fuzz_programs``, with more aliases and writes among their steps: views, ``detach``, ``.data``,
writes to either side in any order, with gradients recorded or not. The gradients of their leaves must be PyTorch's by
``backward``, and under ``fn.grad``, ``jit(grad)``, ``grad(jit)``, ``vmap(grad)`` and ``grad(vmap)``; where PyTorch records
second derivatives, those of ``grad(grad)`` must agree, too. Needs torch.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.fuzz_programs import Program, apply, differs, make, start, tensors_of
from benchmarks.fuzz_table import OPS, Op, at, number

WEIGHTS = {
    "detach": 12,
    "clone": 3,
    "copy_": 8,
    "set all": 6,
    "set number": 3,
    "mul_": 6,
    "add_": 4,
    "getitem": 5,
    "narrow": 3,
}
REFUSALS = (  # what grad and vmap refuse, and say so
    "would be overwritten by a value traced inside it", "leaf tensor that requires grad", "is traced", "traced tensor",
    "the memory is read-only", "overlap and cannot be written", "saved values", "overwritten by an in-place operation",
    "was kept and is read", "has no derivative", "where two dtypes", "outlived it",
)  # fmt: skip


def _quiet(f: Callable) -> Callable:
    """A step under ``no_grad``."""

    def run(m: Any, x: Any, *rest: Any) -> Any:
        with m.no_grad():
            return f(m, x, *rest)

    return run


def _data(m: Any, x: Any) -> Any:
    """PyTorch does not notice writes to ``.data``, and differentiates with what lies there; ``detach`` it does."""
    return x.data if m.__name__ == "funcnn" else x.detach()


EXTRA = [
    Op("data", ("any",), _data, ()),
    Op("detach twice", ("any",), lambda m, x: x.detach().detach(), ()),
    Op("detach getitem", ("any",), lambda m, x, i: x.detach()[i], (at,)),
    Op("copy_ itself", ("any",), lambda m, x: x.copy_(x), (), True),
    Op("mul_ quietly", ("float", "float:fits"), _quiet(lambda m, x, y: x.mul_(y)), (), True),
    Op("copy_ quietly", ("float", "float:fits"), _quiet(lambda m, x, y: x.copy_(y)), (), True),
    Op("set number quietly", ("float",), _quiet(lambda m, x, i, k: x.__setitem__(i, k)), (at, number), True),
    Op("sum quietly", ("float",), _quiet(lambda m, x: x.sum()), ()),
]  # fmt: skip
DRAWN = [*OPS, *[op for op in OPS for _ in range(WEIGHTS.get(op.name, 1) - 1)], *[op for op in EXTRA for _ in range(6)]]


def program_of(torch: Any, seed: int) -> Program:
    """The program of a seed."""
    return make(torch, seed, 9, DRAWN, ("float64", "float64", "float32", "int64"))


# ---- the gradients, by each way ---------------------------------------------------------------------------------------
class Case:
    """A program with PyTorch's answers: gradients at two points, and second derivatives at the first. None: it has none."""

    def __init__(self, torch: Any, program: Program):
        self.program, self.leaves = program, sum(program.leaves)
        self.counted: list[bool] = []  # which results require grad, says PyTorch
        self.first = self.second = self.pair = None
        if not self.leaves:
            return
        self.first, self.second = self._answers(torch, program)
        self.moved = Program([_moved(a) if leaf else a for a, leaf in zip(program.arrays, program.leaves, strict=True)],
                             program.leaves, program.steps)  # fmt: skip
        counted = self.counted
        other, _ = self._answers(torch, self.moved)
        if self.first is not None and other is not None and counted == self.counted:
            self.pair = [torch.stack(both) for both in zip(self.first, other, strict=True)]
        self.counted = counted

    def _answers(self, torch: Any, program: Program) -> tuple[list | None, list | None]:
        pool = start(torch, tensors_of(torch, program), program.leaves)
        given = [t for t, leaf in zip(pool, program.leaves, strict=True) if leaf]
        try:
            for step in program.steps:
                apply(torch, step, pool)
            self.counted = [t.requires_grad and t.numel() > 0 for t in pool[len(program.leaves) :]]
            if not any(self.counted):
                return None, None
            loss = _weighed([t for t, counts in zip(pool[len(program.leaves) :], self.counted, strict=True) if counts])
            first = torch.autograd.grad(loss, given, create_graph=True, allow_unused=True, materialize_grads=True)
        except Exception:  # it may end in a step that PyTorch refuses, in any way
            return None, None
        try:
            second = torch.autograd.grad(_weighed(first), given, allow_unused=True, materialize_grads=True)
        except RuntimeError:  # one that PyTorch has not, or that nothing depends on
            second = None
        return [g.detach() + 0 for g in first], None if second is None else [g + 0 for g in second]

    def loss(self, m: Any, *given: Any) -> Any:
        """The program as a function of its leaves; its other tensors are made inside."""
        left = iter(given)
        pairs = zip(self.program.arrays, self.program.leaves, strict=True)
        pool = [next(left) if leaf else m.tensor(array.copy()) for array, leaf in pairs]
        for step in self.program.steps:
            apply(m, step, pool)
        made = pool[len(self.program.leaves) :]
        return _weighed([t for t, counts in zip(made, self.counted, strict=True) if counts])

    def given(self, m: Any, program: Program) -> list:
        """Fresh tensors for the leaves."""
        return [m.tensor(a.copy()) for a, leaf in zip(program.arrays, program.leaves, strict=True) if leaf]


def _moved(array: np.ndarray) -> np.ndarray:
    return np.asarray(array[::-1] * 0.5 + 0.125 if array.ndim else array * 0.5 + 0.125, array.dtype)


def _weighed(terms: Any) -> Any:
    return sum((t * (t.detach().tanh() + 0.5)).sum().double() for t in terms)


def _backward(fn: Any, case: Case) -> list:
    given = [t.requires_grad_() for t in case.given(fn, case.program)]
    case.loss(fn, *given).backward()
    return [fn.zeros_like(t) if t.grad is None else t.grad for t in given]


def _grad(fn: Any, case: Case) -> Callable:
    return fn.grad(lambda *given: case.loss(fn, *given), tuple(range(case.leaves)))


def _batches(fn: Any, case: Case) -> list:
    pairs = zip(case.given(fn, case.program), case.given(fn, case.moved), strict=True)
    return [fn.stack([x, y]) for x, y in pairs]


def _grad_of_vmap(fn: Any, case: Case) -> list:
    whole = fn.grad(lambda *given: fn.vmap(lambda *each: case.loss(fn, *each))(*given).sum(), tuple(range(case.leaves)))
    return whole(*_batches(fn, case))


def _twice(fn: Any, case: Case) -> list:
    inner = _grad(fn, case)
    return fn.grad(lambda *given: _weighed(inner(*given)), tuple(range(case.leaves)))(*case.given(fn, case.program))


WAYS: dict[str, tuple[Callable, Callable]] = {  # what is computed, and PyTorch's answer
    "backward": (_backward, lambda case: case.first),
    "grad": (lambda fn, case: _grad(fn, case)(*case.given(fn, case.program)), lambda case: case.first),
    "jit of grad": (lambda fn, case: fn.jit(_grad(fn, case))(*case.given(fn, case.program)), lambda case: case.first),
    "grad of jit": (
        lambda fn, case: fn.grad(fn.jit(lambda *given: case.loss(fn, *given)), tuple(range(case.leaves)))(
            *case.given(fn, case.program)
        ),
        lambda case: case.first,
    ),
    "vmap of grad": (lambda fn, case: fn.vmap(_grad(fn, case))(*_batches(fn, case)), lambda case: case.pair),
    "grad of vmap": (_grad_of_vmap, lambda case: case.pair),
    "grad of grad": (_twice, lambda case: case.second),
}


def check(fn: Any, case: Case, way: str) -> str | None:
    """How the gradients differ from PyTorch's, "refused" where the way says that it cannot, None where they agree."""
    run, answer = WAYS[way]
    expected = answer(case)
    if expected is None or not all(
        bool(np.isfinite(g.numpy()).all()) for g in expected
    ):  # as of prod at infinity: whim
        return "none"
    try:
        got = run(fn, case)
    except (fn.TracerError, fn.GradientError, fn.ShapeError) as error:
        if any(text in str(error) for text in REFUSALS):
            return "refused"
        return f"{type(error).__name__}: {error}"[:150]
    rough = any(a.dtype == np.float32 for a in [*case.program.arrays])
    for theirs, ours in zip(expected, got, strict=True):
        how = differs(theirs, ours, rough)
        if how:
            return how
    return None


def fuzz(torch: Any, fn: Any, seeds: range, few: bool = False) -> tuple[Counter, dict[str, list[int]]]:
    """How often each way came to what, and the seeds of what differs, by its kind.

    few: only ``grad`` and one more way of each program, another of the next.
    """
    ends: Counter = Counter()
    wrong: dict[str, list[int]] = {}
    for seed in seeds:
        case = Case(torch, program_of(torch, seed))
        names = list(WAYS)
        for way in {"grad", names[seed % len(names)]} if few else names:
            how = check(fn, case, way)
            end = "agree" if how is None else how if how in ("none", "refused") else "differ"
            ends[way, end] += 1
            if end == "differ":
                wrong.setdefault(f"{way}: {how}", []).append(seed)
    return ends, wrong


def main() -> None:
    """Run and report. Raises ``SystemExit`` with 1 when something differs."""
    parser = argparse.ArgumentParser(description="Gradients of random programs beside PyTorch's.")
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print the first program of each kind")
    options = parser.parse_args()
    import torch

    import funcnn as fn

    torch.set_num_threads(1)
    fn.set_num_threads(1)
    warnings.simplefilter("ignore")
    ends, wrong = fuzz(torch, fn, range(options.seed, options.seed + options.count))
    for kind, seeds in sorted(wrong.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):6d}  {kind}: {seeds[:8]}")
        if options.show:
            print(program_of(torch, seeds[0]))
    for way in WAYS:
        counts = [f"{ends[way, end]} {end}" for end in ("agree", "differ", "refused", "none")]
        print(f"{way:14s} {', '.join(counts)}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
