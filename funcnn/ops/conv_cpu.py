"""How convolution and its two gradients run on the CPU: an ordered list of implementations for each of the three."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.primitive import Implementation
from funcnn.ops import conv_depthwise as depthwise
from funcnn.ops import conv_winograd as winograd
from funcnn.ops.conv_gather import bias_of, forward, input_grad, volume, weight_grad, where_of


# ---- depthwise --------------------------------------------------------------------------------------------------------
def _depthwise_forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    if any(padding) and not np.isfinite(w).all():
        forward(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups)
    else:
        depthwise.forward(x, w, bias_of(ins, y), y, where_of(stride, padding, dilation))


def _depthwise_input_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    """With stride 1 and one output a channel: the forward pass of dy with the taps turned round."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    if not np.isfinite(w).all():
        input_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)
        return
    around = tuple(d * (k - 1) - p for p, d, k in zip(padding, dilation, ins[1].shape[2:], strict=True))
    turned = np.ascontiguousarray(w[..., ::-1, ::-1])
    depthwise.forward(dy, turned, bias_of(ins, dx), dx, where_of((1,) * len(padding), around, dilation))


def _depthwise_for(ins: list, groups: int, stride: tuple, **where: Any) -> bool:
    return depthwise.applies(ins[0].shape[1], groups, stride)


def _depthwise_for_input_grad(
    ins: list, groups: int, stride: tuple, padding: tuple, dilation: tuple, size: tuple
) -> bool:
    kernel = ins[1].shape[2:]
    whole = all(p <= d * (k - 1) for p, d, k in zip(padding, dilation, kernel, strict=True))
    return (
        ins[0].shape[1] == groups
        and depthwise.applies(ins[1].shape[1] * groups, groups, stride)
        and max(stride) == 1
        and whole
    )


# ---- Winograd -----------------------------------------------------------------------------------------------------------
def _winograd_forward(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    x, w, y = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1]), outs[0]
    patches = winograd.Patches(x.shape, y.shape, dilation, groups, y.dtype)
    taps = 9 * patches.c
    if not winograd.forward(x, w, bias_of(ins, y), y, padding, patches, np.arange(taps), taps, patches.k * taps):
        forward(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_input_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    """The forward pass of dy with the taps turned round, inputs and outputs exchanged."""
    dy, w, dx = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1]), outs[0]
    patches = winograd.Patches(dy.shape, dx.shape, dilation, groups, dx.dtype)
    around = tuple(2 * d - p for p, d in zip(padding, dilation, strict=True))
    table = np.add.outer(np.arange(patches.c) * patches.k * 9, np.arange(8, -1, -1)).reshape(-1)
    if not winograd.forward(dy, w, bias_of(ins, dx), dx, around, patches, table, 9, patches.k * patches.c * 9):
        input_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_weight_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    x, dy = np.ascontiguousarray(ins[0]), np.ascontiguousarray(ins[1])
    if not winograd.weight_grad(x, dy, outs[0], padding, dilation, groups):
        weight_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_for(ins: list, groups: int, size: Any = None, **where: Any) -> bool:
    return winograd.applies(ins[0], tuple(ins[1].shape[2:]), ins[1].shape[0], groups=groups, **where)


def _winograd_for_input_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    return winograd.applies(ins[0], tuple(ins[1].shape[2:]), ins[1].shape[1] * groups, groups=groups, **where)


def _winograd_for_weight_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    return winograd.applies(ins[0], size, ins[1].shape[1], groups=groups, **where)


FORWARD = (
    Implementation(_depthwise_forward, _depthwise_for),
    Implementation(_winograd_forward, _winograd_for),
    Implementation(forward),
)
INPUT_GRAD = (
    Implementation(_depthwise_input_grad, _depthwise_for_input_grad),
    Implementation(_winograd_input_grad, _winograd_for_input_grad),
    Implementation(input_grad),
)
WEIGHT_GRAD = (Implementation(_winograd_weight_grad, _winograd_for_weight_grad), Implementation(weight_grad))
