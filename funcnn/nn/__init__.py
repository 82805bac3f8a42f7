"""PyTorch's ``nn``: Module and containers, modules generated from the pure layers, and the way across in both directions."""

from __future__ import annotations

from funcnn.kernels.interrupts import whole as _whole

_whole(
    __name__, "binding", "containers", "facade", "functional", "hooks", "init", "module", "parameter", "pure", "state",
    "traversal", "utils",
)  # fmt: skip

import funcnn.layers as _layers
from funcnn.nn import functional, init, utils
from funcnn.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from funcnn.nn.facade import LayerModule, generated, module
from funcnn.nn.module import Module
from funcnn.nn.parameter import Buffer, Parameter
from funcnn.nn.pure import pure

globals().update({layer.__name__: generated(layer) for layer in _layers.GENERATED})

__all__ = [
    "Buffer", "LayerModule", "Module", "ModuleDict", "ModuleList", "Parameter", "ParameterDict", "ParameterList",
    "Sequential", "functional", "init", "module", "pure", "utils", *(layer.__name__ for layer in _layers.GENERATED),
]  # fmt: skip
