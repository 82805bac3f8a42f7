"""What a kernel says of its arguments, as data: how much of each array it touches, and what it only reads.

Nothing of it costs a call. ``FUNCNN_CHECK=1`` compares it with the arrays at each call (``check.py``), and what plans a call
may compare it once. Every function here is given the kernel's arguments that bear the names of its parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

CHECK = os.environ.get("FUNCNN_CHECK") == "1"


class Row(NamedTuple):
    """Names a row of a table of addresses."""

    dtype: Any
    touched: list[int]  # how many elements from each address on


class Facts(NamedTuple):
    """Declared beside the kernel: ``@kernel(touches={"x": lambda out: out.size})``."""

    touches: Mapping[str, Callable[..., int]] = {}  # argument -> how many of its elements are read or written, at most
    tables: Mapping[str, Callable[..., list[Row]]] = {}  # argument -> rows of its addresses [0], whose lengths are [1]
    reads: tuple[
        str, ...
    ] = ()  # arguments that are only read although the code may write them, by what another one says


NO_FACTS = Facts()


def given_by_name(kernel: Any, args: tuple) -> dict[str, Any]:
    """Maps the arguments of a call to the names of the kernel's parameters."""
    code = kernel.function.__code__
    return dict(zip(code.co_varnames[: code.co_argcount], args, strict=False))


def evaluated(rule: Callable, named: dict[str, Any]) -> Any:
    """Evaluates a declaration for these arguments."""
    code = rule.__code__
    return rule(*[named[name] for name in code.co_varnames[: code.co_argcount]])
