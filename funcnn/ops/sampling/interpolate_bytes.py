"""Interpolation of uint8 images as PyTorch does it: nearest pixels, or linear and cubic in whole numbers of 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.kernels.cpu.sampling.host import RESIZE_BYTES
from funcnn.ops.base import costs
from funcnn.ops.base.batching import merge_batch, split_batch


def _shape(x: Any, axes: tuple) -> tuple:
    if x.dtype != np.uint8:
        raise DTypeError(f"interpolate: expected uint8, got {x.dtype}")
    return (Aval((*x.shape[:2], *(axis.m for axis in axes)), x.dtype),)


resize_bytes_p = Primitive(
    "interpolate_bytes",
    _shape,
    cpu=RESIZE_BYTES,
    batch=lambda n, ins, batched, axes: split_batch(resize_bytes_p(merge_batch(ins[0]), axes=axes), n),
    keeps="",
    flops=costs.none,
)
