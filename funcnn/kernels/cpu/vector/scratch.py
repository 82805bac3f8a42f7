"""Scratch that a kernel makes for itself, in the size that it works out: ``room``, and ``intact`` when it is done with.

With ``FUNCNN_CHECK=1`` such scratch lies between bands and is filled as they are (``check.py``), and ``intact`` raises where a
band changed; without, the one is ``np.empty`` and the other nothing.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, making_function
from funcnn.kernels.cpu.build.facts import CHECK
from funcnn.kernels.cpu.vector.instructions import pointer

WIDE = 64  # numbers of a band
NOWHERE = {1: 0x2A, 2: 0x2AAA, 4: 0x2AAAAAAA, 8: 0x2AAAAAAAAAAAAAAA}  # an index there is no memory for


def _outside_twin(x: Any) -> Any:
    return x.dtype.type(np.nan if x.dtype.kind == "f" else NOWHERE[x.dtype.itemsize])


@intrinsic(twin=_outside_twin)
def outside(typingctx: Any, x: Any) -> Any:
    """What stands outside an array: NaN, or an integer that no index may be."""
    from numba.core import types

    number = float("nan") if isinstance(x.dtype, types.Float) else NOWHERE[x.dtype.bitwidth // 8]
    return x.dtype(x), lambda context, builder, signature, values: context.get_constant(x.dtype, number)


def _room(count: Any, dtype: Any) -> Any:  # pragma: no cover, what FUNCNN_CHECK=1 leaves of it is tested
    """``count`` numbers of a dtype, uninitialised."""
    return np.empty(count, dtype)


def _intact(scratch: Any) -> None:
    """Nothing: the scratch is done with."""


def _banded_room(count: Any, dtype: Any) -> Any:
    whole = np.empty(count + 2 * WIDE, dtype)
    for i in range(whole.size):
        whole[i] = outside(whole)
    return whole[WIDE : WIDE + count]


def _intact_bands(scratch: Any) -> None:  # pragma: no cover, plain Python has no memory in front of an array
    mark = outside(scratch)
    before, behind = pointer(scratch, -WIDE), pointer(scratch, scratch.size)
    for i in range(WIDE):
        if (before[i] != mark and before[i] == before[i]) or (behind[i] != mark and behind[i] == behind[i]):
            raise RuntimeError("it wrote outside scratch that it made for itself")


banded = CHECK and os.environ.get("NUMBA_DISABLE_JIT") != "1"  # plain Python checks every index anyway
room: Any = making_function(_banded_room if banded else _room)
intact: Any = device_function(_intact_bands if banded else _intact)
