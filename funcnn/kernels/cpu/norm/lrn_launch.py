"""How local response normalization runs on the CPU: launch plans, for x (N, C, S)."""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.norm import lrn as kernels
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts

BLOCK_ELEMENTS = 1 << 15  # of a block of all channels
FORWARD_NS, BACKWARD_NS = 3.0, 5.0  # nanoseconds of an element on one thread


def _width(x: Operand) -> int:
    return max(16, min(x.shape[2], 1024, BLOCK_ELEMENTS // max(x.shape[1], 1)))


def _forward(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, settings, kept = (
        operands[0],
        [params[name] for name in ("size", "alpha", "beta", "k")],
        params.get("residuals", True),
    )
    outputs, parts = (Output(),) * (1 + kept), Parts()
    if not x.size:
        return LaunchPlan((), (ANY,), outputs)
    work, width = FORWARD_NS * x.size, _width(x)
    base = Array(OUTPUT, 1) if kept else parts.each(x.dtype, width)
    arrays = Array(INPUT, 0, x.shape), Array(OUTPUT, 0), base
    launch = Launch(kernels.local_response, (*arrays, kept, *settings, width, Workers(work)))
    cost = Cost(nanoseconds=work)
    return parts.plan((launch,), (CONTIGUOUS,), outputs, cost=cost)


def _backward(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, settings, parts = operands[1], [params[name] for name in ("size", "alpha", "beta")], Parts()
    if not x.size:
        return LaunchPlan((), (ANY,) * 3, (Output(),))
    work, width = BACKWARD_NS * x.size, _width(x)
    arrays = Array(INPUT, 0), Array(INPUT, 1, x.shape), Array(INPUT, 2), Array(OUTPUT, 0)
    scratch = parts.each(x.dtype, (x.shape[1] + 1) * width)
    launch = Launch(kernels.local_response_grad, (*arrays, scratch, *settings, width, Workers(work)))
    cost = Cost(nanoseconds=work)
    return parts.plan((launch,), (CONTIGUOUS,) * 3, (Output(),), cost=cost)


local_response, local_response_grad = (Implementation("kernel", _forward),), (Implementation("kernel", _backward),)
