"""How kernels are declared, compiled, kept on disk, checked and inspected."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnn.kernels.cpu.build import inspection as inspection


def __getattr__(name: str) -> Any:
    if name == "inspection":  # imported when it is first named: an import of funcnn inspects nothing
        return import_module("funcnn.kernels.cpu.build.inspection")
    raise AttributeError(f"module 'funcnn.kernels.cpu.build' has no attribute {name!r}")
