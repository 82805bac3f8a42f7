"""What a traced program is written in: variables, and equations over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from funcnn.core.aval import Tracer


class StageVar(Tracer):
    """A variable of the program being traced. ``weak``: it stands for a Python number."""

    __slots__ = ("index", "weak")

    def __init__(self, owner: Any, index: int, shape: tuple, dtype: np.dtype, weak: bool = False):
        super().__init__(owner, tuple(shape), dtype)
        self.index, self.weak = index, weak


@dataclass(frozen=True)
class Equation:
    """``outs = prim(ins, **params)`` over variable indices, and for profilers where it was traced."""

    prim: Any
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    params: dict
    path: str
    backward: bool
