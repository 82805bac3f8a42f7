"""Rows whose oracle is PyTorch itself: one function of the namespace, applied to funcnn and to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import funcnn
from tests.cases.case import Case


def both(id: str, f: Callable, *inputs: Any, **options: Any) -> Case:
    """A row for ``f(namespace, *tensors)``, which must mean the same for ``funcnn`` and for ``torch``."""

    def ours(*tensors: Any) -> Any:
        return f(funcnn, *tensors)

    def theirs(*tensors: Any) -> Any:
        import torch

        return f(torch, *tensors)

    return Case(id, ours, inputs, torch=theirs, **options)
