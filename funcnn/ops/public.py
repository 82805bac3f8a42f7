"""What ``import funcnn`` offers beside the classes: PyTorch's top-level functions."""

from __future__ import annotations

from typing import Any

# Families without a top-level function, whose methods and functions come with them.
from funcnn.ops.attention import attention, multihead  # noqa: F401
from funcnn.ops.base.registry import OPERATIONS
from funcnn.ops.conv import fold  # noqa: F401
from funcnn.ops.indexing import embedding  # noqa: F401
from funcnn.ops.movement import pad  # noqa: F401
from funcnn.ops.sampling import grid_sample, interpolate  # noqa: F401
from funcnn.ops.softmax import loss  # noqa: F401
from funcnn.ops.tensor import convert, methods  # noqa: F401
from funcnn.ops.tensor.exposed import SYNONYMS, functions


def public() -> dict[str, Any]:
    """Returns every top-level function by name."""
    return {**dict(functions()), **{name: made.function for name, made in OPERATIONS.items()}, **SYNONYMS}
