"""What ``import funcnn`` offers beside the classes: PyTorch's top-level functions."""

from __future__ import annotations

from typing import Any

from funcnn.ops.base.registry import OPERATIONS
from funcnn.ops.movement import pad  # noqa: F401  # only for its methods
from funcnn.ops.tensor import convert, methods  # noqa: F401  # only for their methods
from funcnn.ops.tensor.exposed import LATER, SYNONYMS, functions


def public() -> dict[str, Any]:
    """Returns every top-level function by name."""
    return {**dict(functions()), **{name: made.function for name, made in OPERATIONS.items()}, **SYNONYMS}


def later() -> dict[str, tuple[str, ...]]:
    """Returns the path of the module of every top-level function that is imported when it is first named."""
    return {name: ("ops", *module.split(".")) for module, names in LATER.items() for name in names.split()}
