"""funcnn: a JIT-compiled functional neural-network framework. Tensor functions have PyTorch's names, transformations JAX's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from funcnn.kernels.interrupts import whole as _whole

_whole(__name__, "core", "kernels", "ops", "transforms", "random")
_whole("funcnn.ops", "public")
_whole("funcnn.transforms", "autograd", "vmap")

from funcnn.core import tree
from funcnn.core.device import device
from funcnn.core.dtypes import (
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from funcnn.core.dtypes import default_float as get_default_dtype
from funcnn.core.errors import DTypeError, FuncnnError, GradientError, ShapeError, TracerError
from funcnn.core.format import set_printoptions
from funcnn.core.preference import prefer
from funcnn.core.size import Size
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.watch import no_compile
from funcnn.kernels.cpu.memory import empty_cache, memory_stats, reset_peak_memory_stats
from funcnn.kernels.cpu.threads.number import get_num_threads, set_num_threads
from funcnn.kernels.precision import get_float32_conv_precision, set_float32_conv_precision
from funcnn.ops.public import later as _later
from funcnn.ops.public import public as _public
from funcnn.transforms import autograd
from funcnn.transforms.grad import grad, value_and_grad, vjp
from funcnn.transforms.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from funcnn.transforms.vmap import vmap

from funcnn import random  # isort: skip  (it stands on what is above)

if TYPE_CHECKING:
    from funcnn import layers, nn, optim, testing
    from funcnn.ops.custom.operation import primitive
    from funcnn.transforms.jit import jit

__version__ = "0.1.0"

double, half, long, short = float64, float16, int64, int16
int, float, bool = int32, float32, bool_
globals().update(_public())


# What is imported when it is first named, which would take a third of the time of an import: modules, and functions by the
# modules that they are in.
_MODULES = ("layers", "nn", "optim", "profiler", "testing")
_FUNCTIONS = {"jit": ("transforms", "jit"), "primitive": ("ops", "custom", "operation"), **_later()}


def __getattr__(name: str):
    if name in _MODULES:
        _whole(__name__, name)
    elif name in _FUNCTIONS:
        package = __name__
        for part in _FUNCTIONS[name]:
            _whole(package, part)
            package = f"{package}.{part}"
        globals()[name] = getattr(sys.modules[package], name)
    else:
        raise AttributeError(f"module 'funcnn' has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "DTypeError", "FuncnnError", "GradientError", "ShapeError", "Size", "Tensor", "TracerError", "autograd", "bool",
    "bool_", "device", "double", "empty_cache", "enable_grad", "float", "float16", "float32", "float64", "get_default_dtype",
    "get_float32_conv_precision", "get_num_threads", "grad",
    "half", "inference_mode", "int", "int16", "int32", "int64", "int8", "is_grad_enabled", "jit", "layers", "long", "nn",
    "memory_stats", "no_compile", "no_grad", "optim", "prefer", "primitive", "promote_types", "random", "reset_peak_memory_stats",
    "set_default_dtype", "set_float32_conv_precision", "set_grad_enabled", "set_num_threads", "set_printoptions", "short",
    "testing", "tree", "uint16", "uint32", "uint64", "uint8", "value_and_grad", "vjp", "vmap", *_public(), *_later(),
]  # fmt: skip
