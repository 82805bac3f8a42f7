"""What a convolution or one of its gradients is asked for, as all launch code of the family takes it.

Kernels know three dimensions, (D, H, W); of fewer the first are 1.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.implementation import Operand

Three = tuple[int, int, int]


class Problem(NamedTuple):
    """The shapes of x (N, C, D, H, W), w (K, C / groups, *taps) and y (N, K, O, P, Q), of which two are given.

    stride, padding, dilation: of (D, H, W). dims: how many dimensions were named. bias: whether a third operand has a number
    for each channel of the result. precision: see ``set_float32_conv_precision``.
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: Three
    padding: Three
    dilation: Three
    groups: int
    dims: int
    dtype: np.dtype
    bias: bool
    precision: str

    @property
    def inner(self) -> int:
        """Returns the input channels of a group."""
        return self.w[1]

    @property
    def lanes(self) -> int:
        """Returns the output channels of a group."""
        return self.w[0] // self.groups

    @property
    def kernel(self) -> Any:
        """Returns the taps in each dimension."""
        return self.w[2:]

    @property
    def taps(self) -> int:
        """Returns the taps of one input and one output channel."""
        return prod(self.w[2:])

    @property
    def itemsize(self) -> int:
        """Returns the bytes of an element."""
        return self.dtype.itemsize

    @property
    def window(self) -> tuple[Three, Three, Three]:
        """Returns stride, padding and dilation."""
        return self.stride, self.padding, self.dilation

    @property
    def flops(self) -> int:
        """Multiplications and additions of the definition."""
        return 2 * prod(self.y) * self.inner * self.taps

    @property
    def empty(self) -> bool:
        """Whether there is nothing to multiply, or nothing to make."""
        return 0 in self.x or 0 in self.w or 0 in self.y


def _three(value: tuple, fill: int = 1) -> Any:
    return (fill,) * (3 - len(value)) + tuple(value)


def _volume(shape: tuple) -> tuple[int, ...]:
    return (*shape[:2], *_three(shape[2:]))


def _problem(x: tuple, w: tuple, y: tuple, operands: tuple, params: dict[str, Any], bias: bool) -> Problem:
    stride, padding, dilation = _three(params["stride"]), _three(params["padding"], 0), _three(params["dilation"])
    like, precision = operands[0].dtype, params["precision"]
    shapes = _volume(x), _volume(w), _volume(y)
    return Problem(*shapes, stride, padding, dilation, params["groups"], len(x) - 2, like, bias, precision)


def of_output(operands: tuple[Operand, ...], params: dict[str, Any]) -> Problem:
    """Returns the problem of y from x, w and perhaps a bias."""
    x, w = operands[0].shape, operands[1].shape
    around = zip(x[2:], w[2:], params["stride"], params["padding"], params["dilation"], strict=True)
    out = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in around)
    return _problem(x, w, (x[0], w[0], *out), operands, params, len(operands) > 2)


def of_input_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> Problem:
    """Returns the problem of dx of ``size`` from dy, w and perhaps a bias."""
    dy, w = operands[0].shape, operands[1].shape
    return _problem(
        (dy[0], w[1] * params["groups"], *params["size"]), w, dy, operands, params, len(operands) > 2
    )  # fmt: skip


def of_weight_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> Problem:
    """Returns the problem of dw with taps of ``size`` from x and dy."""
    x, dy = operands[0].shape, operands[1].shape
    return _problem(x, (dy[1], x[1] // params["groups"], *params["size"]), dy, operands, params, False)
