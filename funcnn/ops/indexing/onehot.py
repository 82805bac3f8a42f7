"""one_hot: class indices as rows with a single 1."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, concrete
from funcnn.kernels.cpu.indexing import launch
from funcnn.ops.base import costs
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import to_tensor


def _one_hot_shape(x: Any, classes: int) -> tuple:
    if x.dtype.kind not in "iu":
        raise DTypeError(f"one_hot: expected integer classes, got {x.dtype}")
    return (Aval((*x.shape, classes), dtypes.int64),)


one_hot_p = Primitive(
    "one_hot",
    _one_hot_shape,
    cpu=launch.ONE_HOT,
    looks=launch.LOOK_AT_CLASSES,
    batch=lambda n, ins, batched, classes: one_hot_p(ins[0], classes=classes),
    refuse=lambda meaning, words, ins, classes: IndexError(
        f"one_hot: class {words[3]} is out of range for {classes} classes"
    ),
    flops=costs.none,
)


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """int64 (*, num_classes) with a 1 at each class index. -1 counts the classes, which a traced tensor cannot."""
    x = to_tensor(tensor)
    if num_classes == -1:
        if numel(tuple(x._v.shape)) == 0:
            raise ShapeError("one_hot: num_classes must be given for an empty tensor")
        num_classes = int(concrete(x, "one_hot with num_classes=-1 of").max()) + 1
    return one_hot_p(x, classes=num_classes)
