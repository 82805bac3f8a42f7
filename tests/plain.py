"""Kernels as plain Python: with ``NUMBA_DISABLE_JIT=1`` nothing is compiled, which shows the lines that tests reach.

``scripts/check_kernel_coverage.py`` runs ``tests/kernels`` so. Python is a thousand times slower: tests take fewer numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.build.compile import Intrinsic, Kernel, rebound

PLAIN = os.environ.get("NUMBA_DISABLE_JIT") == "1"
compiled_only = pytest.mark.skipif(PLAIN, reason="is about compiled code; kernels run as plain Python")


def sized(compiled: Any, plain: Any) -> Any:
    """The size for compiled kernels, or the smaller one for plain Python."""
    return plain if PLAIN else compiled


@contextmanager
def surrounded(around: Callable) -> Iterator[None]:
    """Inside, ``around(kernel, args)`` makes every kernel call from Python."""
    compiling.around[around] = around
    try:
        yield
    finally:
        del compiling.around[around]


def plain(kernel: Kernel) -> Any:
    """A kernel as plain Python beside compiled ones: NumPy checks every index into memory that it allots itself."""
    return rebound(kernel.function, lambda helper: helper.twin if isinstance(helper, Intrinsic) else plain(helper))
