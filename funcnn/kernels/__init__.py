"""Kernels: loops over arrays and nothing else. They never validate; shape rules and checks have done that before.

What the author of a kernel needs is imported from here; ``fn.primitive`` makes an operation of it:

    from funcnn.kernels import device_function, kernel, parallel_for, pointer, workers
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnn.kernels.cpu.build.compile import device_function, kernel
    from funcnn.kernels.cpu.build.parallel import parallel_for
    from funcnn.kernels.cpu.threads.number import workers
    from funcnn.kernels.cpu.vector.instructions import pointer

_LAZY = {  # imported when they are first named: this package is imported before anything guards imports from interrupts
    "kernel": "funcnn.kernels.cpu.build.compile",
    "device_function": "funcnn.kernels.cpu.build.compile",
    "parallel_for": "funcnn.kernels.cpu.build.parallel",
    "workers": "funcnn.kernels.cpu.threads.number",
    "pointer": "funcnn.kernels.cpu.vector.instructions",
}

__all__ = ["device_function", "kernel", "parallel_for", "pointer", "workers"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'funcnn.kernels' has no attribute {name!r}")
