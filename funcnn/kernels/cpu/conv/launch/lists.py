"""How convolution and its two gradients run on the CPU: an ordered list of implementations for each of the three."""

from __future__ import annotations

from collections.abc import Callable

from funcnn.kernels.cpu.conv.launch import channels, depthwise, direct, few, gather, pointwise, reference, winograd
from funcnn.kernels.cpu.conv.launch.problem import of_input_grad, of_output, of_weight_grad
from funcnn.kernels.implementation import Implementation

Way = tuple[str, Callable, Callable | None]  # name, plan and, of a problem, whether it pays


def _implementations(problem: Callable, *ways: Way) -> tuple[Implementation, ...]:
    """problem: what makes one of operands and parameters."""
    return tuple(_implementation(problem, *way) for way in ways)


def _implementation(problem: Callable, name: str, plan: Callable, pays: Callable | None) -> Implementation:
    chosen = None if pays is None else lambda operands, params: pays(problem(operands, params))
    return Implementation(name, lambda operands, params: plan(problem(operands, params)), chosen)


FORWARD = _implementations(
    of_output,
    ("channels", channels.forward, channels.forward_pays),
    ("few", few.forward, few.forward_pays),
    ("depthwise", depthwise.forward, depthwise.forward_pays),
    ("pointwise", pointwise.forward, None),
    ("winograd", winograd.forward, winograd.forward_pays),
    ("direct", direct.forward, direct.forward_pays),
    ("gather", gather.forward, None),
    ("reference", reference.forward, None),
)
INPUT_GRAD = _implementations(
    of_input_grad,
    ("channels", channels.input_grad, channels.input_grad_pays),
    ("few", few.input_grad, few.input_grad_pays),
    ("depthwise", depthwise.input_grad, depthwise.forward_pays),
    ("pointwise", pointwise.input_grad, None),
    ("winograd", winograd.input_grad, winograd.input_grad_pays),
    ("direct", direct.input_grad, direct.input_grad_pays),
    ("gather", gather.input_grad, None),
    ("reference", reference.input_grad, None),
)
WEIGHT_GRAD = _implementations(
    of_weight_grad,
    ("channels", channels.weight_grad, channels.forward_pays),
    ("few", few.weight_grad, few.weight_grad_pays),
    ("depthwise", depthwise.weight_grad, depthwise.forward_pays),
    ("pointwise", pointwise.weight_grad, pointwise.weight_grad_pays),
    ("winograd", winograd.weight_grad, winograd.weight_grad_pays),
    ("direct", direct.weight_grad, direct.weight_grad_pays),
    ("gather", gather.weight_grad, None),
    ("reference", reference.weight_grad, None),
)
