"""jit and memory: arguments that overlap, results that alias, layouts; everything as in eager code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn


def start() -> Any:
    """Numbers that no two cases of overlap could mix up."""
    return fn.tensor(np.arange(1.0, 13.0, dtype=np.float32))


def foreign(x: Any) -> Any:
    """Another tensor on the memory of ``x``, of which funcnn does not know that it is one."""
    return fn.from_numpy(np.frombuffer(memoryview(x.numpy()), x.numpy().dtype))


OVERLAPS: dict[str, Callable] = {
    "twice": lambda x: (x, x),
    "view": lambda x: (x, x[:6]),
    "base": lambda x: (x[2:9], x),
    "detached": lambda x: (x, x.detach()),
    "detached view": lambda x: (x[1:5].detach(), x),
    "siblings": lambda x: (x[:5], x[3:]),
    "contained": lambda x: (x[1:9], x[2:5]),
    "same slice twice": lambda x: (x[1:9], x[1:9]),
    "strided": lambda x: (x[::2], x[::3]),
    "interleaved": lambda x: (x[::2], x[1::2]),
    "apart": lambda x: (x[:4], x[8:]),
    "transposed": lambda x: (x.view(3, 4), x.view(3, 4).t()),
    "columns": lambda x: (x.view(3, 4)[:, :3], x.view(3, 4)[:, 2:]),
    "reversed": lambda x: (fn.from_numpy(x.numpy()[::-1]), x),
    "foreign": lambda x: (x, foreign(x)),
    "two foreign": lambda x: (foreign(x)[1:], foreign(x)[:7]),
    "nothing": lambda x: (x, x[:0]),
}

PROGRAMS: dict[str, Callable] = {
    "add, read": lambda a, b: (a.add_(1), b * 1)[1],
    "read, add, read": lambda a, b: (b * 2, a.mul_(3), b + 0)[::2],
    "both write": lambda a, b: (a.mul_(2), b.add_(10), a.sum(), b.sum())[2:],
    "a view of one": lambda a, b: (b[:1], a.zero_(), b[:1] + 1),
    "an earlier view": lambda a, b: (lambda v: (a.fill_(7), v * 2, v.add_(1), b + 0))(b[:1])[1::2],
    "a whole copy": lambda a, b: (a.copy_(a * 2 + 1), b.reshape(-1)[:2].mul_(5), a + 0)[2],
    "nothing written": lambda a, b: (a.sum(), b.sum()),
}


def outcome(f: Callable, overlap: str, runs: int = 2) -> list:
    """What ``f`` returns for overlapping arguments, and the memory afterwards, at several calls."""
    found = []
    for _ in range(runs):
        x = start()
        results = f(*OVERLAPS[overlap](x))
        found += [t.tolist() for t in (results if isinstance(results, tuple) else (results,))] + [x.tolist()]
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_arguments_that_share_memory(program: str) -> None:
    for grad in (True, False):
        compiled = fn.jit(PROGRAMS[program])  # one function for all overlaps: each must be told from the others
        with fn.set_grad_enabled(grad):
            for overlap in [*OVERLAPS, *reversed(OVERLAPS)]:
                assert outcome(compiled, overlap) == outcome(PROGRAMS[program], overlap), overlap
        assert compiled.traces <= len(OVERLAPS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_argument_that_shares_memory_with_what_is_closed_over(program: str) -> None:
    for overlap in OVERLAPS:
        found = []
        for transformed in (lambda f: f, fn.jit):
            x = start()
            given, held = OVERLAPS[overlap](x)
            f = transformed(lambda a, held=held: PROGRAMS[program](a, held))
            g = transformed(lambda a, held=given: PROGRAMS[program](held, a))
            other = (
                start()[: len(given)]
                if given.ndim == 1
                else start().view(*given.shape)
                if given.is_contiguous()
                else None
            )
            for call in (lambda: f(given), lambda: g(held), lambda: f(given)) + (
                () if other is None else (lambda: f(other),)
            ):
                results = call()
                found.append(
                    [t.tolist() for t in (results if isinstance(results, tuple) else (results,))] + [x.tolist()]
                )
        assert found[: len(found) // 2] == found[len(found) // 2 :], overlap
