"""Convolution and its two gradients by the definition: the last implementation of each, which serves every call.

The others come to it with what they cannot do: nothing to sum over, and numbers that are not finite where they multiply
zeros of their own (of the padding, of gaps in the pixel grid, of Winograd's transforms).
"""

from __future__ import annotations

from math import prod

import numpy as np

from funcnn.kernels.cpu.conv.launch.volume import bias_of, volume, where_of
from funcnn.kernels.cpu.conv.reference import reference_forward, reference_input_grad, reference_weight_grad
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads

TERM_NS = 0.3  # nanoseconds a multiply-add


def _sizes(x: np.ndarray, w: np.ndarray, y: np.ndarray, where: tuple, groups: int) -> tuple:
    """What all three kernels end with: taps, channels, images, planes, and threads."""
    inner, *kernel = w.shape[1:]
    channels = (inner, w.shape[0] // groups, groups)
    work = threads.workers(TERM_NS * x.shape[0] * w.size * prod(y.shape[2:]))
    return tuple(kernel), channels, x.shape[0], (x.shape[2:], y.shape[2:], *where), work


def _sums(y: np.ndarray, sizes: tuple) -> np.ndarray:
    """Room for a plane of y in float64 for each thread."""
    return empty((sizes[-1] * prod(y.shape[2:]),), np.dtype(np.float64))


def forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    """y = w * x + bias."""
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    sizes = _sizes(x, w, y, where_of(stride, padding, dilation), groups)
    reference_forward(x.reshape(-1), w.reshape(-1), bias_of(ins, y), y.reshape(-1), _sums(y, sizes), *sizes)


def input_grad(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple) -> None:
    """dx of ``size`` from dy and w."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    sizes = _sizes(dx, w, dy, where_of(stride, padding, dilation), groups)
    reference_input_grad(dy.reshape(-1), w.reshape(-1), bias_of(ins, dx), dx.reshape(-1), _sums(dx, sizes), *sizes)


def weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw from x and dy."""
    x, dy, dw = volume(ins[0]), volume(ins[1]), volume(outs[0])
    sizes = _sizes(x, dw, dy, where_of(stride, padding, dilation), groups)
    reference_weight_grad(x.reshape(-1), dy.reshape(-1), dw.reshape(-1), *sizes)


def mend_weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw again by the definition, if it is not finite because x or dy is not: such numbers may have met padding or gaps."""
    if not np.isfinite(outs[0]).all() and not all(np.isfinite(array).all() for array in ins[:2]):
        weight_grad(ins, outs, stride, padding, dilation, groups, size)
