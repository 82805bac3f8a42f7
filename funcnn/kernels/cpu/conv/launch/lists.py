"""How convolution and its two gradients run on the CPU: an ordered list of implementations for each of the three."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.launch import channels, depthwise, direct, few, gather, pointwise, reference, winograd
from funcnn.kernels.cpu.conv.launch.volume import bias_of, volume, where_of
from funcnn.kernels.implementation import UNPLANNED, host


# ---- depthwise --------------------------------------------------------------------------------------------------------
def _depthwise_forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    if any(padding) and not np.isfinite(w).all():
        gather.forward(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups)
    else:
        depthwise.forward(x, w, bias_of(ins, y), y, where_of(stride, padding, dilation))


def _depthwise_input_grad(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, **where: Any) -> None:
    """With stride 1 and one output a channel: the forward pass of dy with the taps turned round."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    if not np.isfinite(w).all():
        gather.input_grad(ins, outs, padding=padding, dilation=dilation, groups=groups, **where)
        return
    around = tuple(d * (k - 1) - p for p, d, k in zip(padding, dilation, ins[1].shape[2:], strict=True))
    turned = np.ascontiguousarray(w[..., ::-1, ::-1])
    depthwise.forward(dy, turned, bias_of(ins, dx), dx, where_of((1,) * len(padding), around, dilation))


def _depthwise_weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    depthwise.weight_grad(volume(ins[0]), volume(ins[1]), volume(outs[0]), where_of(stride, padding, dilation))
    reference.mend_weight_grad(ins, outs, stride, padding, dilation, groups, size)


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


def _depthwise_for_weight_grad(ins: list, groups: int, stride: tuple, **where: Any) -> bool:
    return bool(ins[0].size and ins[1].size) and depthwise.applies(ins[0].shape[1], groups, stride)


# ---- Winograd -----------------------------------------------------------------------------------------------------------
def _winograd_forward(ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, stride: tuple) -> None:
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    _, before, apart = where_of(stride, padding, dilation)
    taps = w.shape[2]
    patches = winograd.Patches(x.shape, y.shape, taps, before[0], apart, groups, y.dtype)
    table = tables.by_depth(patches.c, taps)
    if not winograd.forward(x, w, bias_of(ins, y), y, before, patches, table, table.size, patches.k * table.size):
        gather.forward(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _winograd_input_grad(
    ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, stride: tuple, size: tuple
) -> None:
    """The forward pass of dy with the taps turned round, inputs and outputs exchanged."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    _, before, apart = where_of(stride, padding, dilation)
    around = tuple(d * (k - 1) - p for p, d, k in zip(before, apart, w.shape[2:], strict=True))
    patches = winograd.Patches(dy.shape, dx.shape, w.shape[2], around[0], apart, groups, dx.dtype)
    taps, each = w[0, 0].size, w[0].size
    table = tables.turned_by_depth(patches.c, w.shape[2], each)
    if not winograd.forward(dy, w, bias_of(ins, dx), dx, around, patches, table, taps, patches.c * each):
        gather.input_grad(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size)


def _winograd_weight_grad(
    ins: list, outs: list, padding: tuple, dilation: tuple, groups: int, stride: tuple, size: tuple
) -> None:
    _, before, apart = where_of(stride, padding, dilation)
    if not winograd.weight_grad(volume(ins[0]), volume(ins[1]), volume(outs[0]), before, apart, groups):
        gather.weight_grad(ins, outs, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size)


def _winograd_for(ins: list, groups: int, padding: tuple, dilation: tuple, **where: Any) -> bool:
    x, w = ins[:2]
    around = zip(x.shape[-2:], padding[-2:], dilation[-2:], strict=False)
    out, given = tuple(size + 2 * (p - d) for size, p, d in around), (w.shape[2:], w.shape[0])
    return winograd.applies(x, *given, out, winograd.OTHERS, padding=padding, dilation=dilation, groups=groups, **where)


def _winograd_for_input_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    kernel, outputs = ins[1].shape[2:], ins[1].shape[1] * groups
    return winograd.applies(ins[0], kernel, outputs, size, winograd.OTHERS, groups=groups, **where)


def _winograd_for_weight_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    dy = ins[1].shape
    return winograd.applies(ins[0], size, dy[1], dy[2:], winograd.WEIGHTS, groups=groups, **where)


FORWARD = (
    host("channels", channels.forward, UNPLANNED, channels.applies),
    host("few", few.forward, UNPLANNED, few.applies),
    host("depthwise", _depthwise_forward, UNPLANNED, _depthwise_for),
    host("pointwise", pointwise.forward, UNPLANNED, pointwise.applies),
    host("winograd", _winograd_forward, UNPLANNED, _winograd_for),
    host("direct", direct.forward, UNPLANNED, direct.applies),
    host("gather", gather.forward, UNPLANNED, gather.applies),
    host("reference", reference.forward, UNPLANNED),
)
INPUT_GRAD = (
    host("channels", channels.input_grad, UNPLANNED, channels.applies_to_input_grad),
    host("few", few.input_grad, UNPLANNED, few.applies_to_input_grad),
    host("depthwise", _depthwise_input_grad, UNPLANNED, _depthwise_for_input_grad),
    host("pointwise", pointwise.input_grad, UNPLANNED, pointwise.applies),
    host("winograd", _winograd_input_grad, UNPLANNED, _winograd_for_input_grad),
    host("direct", direct.input_grad, UNPLANNED, direct.applies_to_input_grad),
    host("gather", gather.input_grad, UNPLANNED, gather.applies),
    host("reference", reference.input_grad, UNPLANNED),
)
WEIGHT_GRAD = (
    host("channels", channels.weight_grad, UNPLANNED, channels.applies_to_weight_grad),
    host("few", few.weight_grad, UNPLANNED, few.applies_to_weight_grad),
    host("depthwise", _depthwise_weight_grad, UNPLANNED, _depthwise_for_weight_grad),
    host("pointwise", pointwise.weight_grad, UNPLANNED, pointwise.applies_to_weights),
    host("winograd", _winograd_weight_grad, UNPLANNED, _winograd_for_weight_grad),
    host("direct", direct.weight_grad, UNPLANNED, direct.applies_to_weight_grad),
    host("gather", gather.weight_grad, UNPLANNED, gather.applies),
    host("reference", reference.weight_grad, UNPLANNED),
)
