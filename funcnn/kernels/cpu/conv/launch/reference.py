"""Convolution and its two gradients by the definition: the last implementation of each, which serves every call.

The others come to it with what they cannot do: nothing to sum over, and numbers that are not finite where they multiply
zeros of their own (of the padding, of gaps in the pixel grid, of Winograd's transforms).
"""

from __future__ import annotations

from math import prod

from funcnn.kernels.cpu.conv.launch.draft import FIRST, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.conv.reference import reference_forward, reference_input_grad, reference_weight_grad
from funcnn.kernels.launch import LaunchPlan, Workers

TERM_NS = 0.3  # a multiply-add


def _sizes(p: Problem) -> tuple:
    """Returns what all three kernels end with: taps, channels, images, planes, and threads."""
    terms = p.x[0] * prod(p.w) * prod(p.y[2:])
    return p.kernel, (p.inner, p.lanes, p.groups), p.x[0], (p.x[2:], p.y[2:], *p.window), Workers(TERM_NS * terms)


def forward(p: Problem) -> LaunchPlan:
    """Computes y = w * x + bias; room for a plane of y in float64 for each thread."""
    draft = Draft(p)
    sums = draft.room(prod(p.y[2:]), "float64", each_worker=True)
    draft.run(reference_forward, FIRST, SECOND, draft.bias(p.w[0]), RESULT, sums, *_sizes(p))
    return draft.plan()


def input_grad(p: Problem) -> LaunchPlan:
    """Plans dx from dy and w."""
    draft = Draft(p)
    sums = draft.room(prod(p.x[2:]), "float64", each_worker=True)
    draft.run(reference_input_grad, FIRST, SECOND, draft.bias(p.x[1]), RESULT, sums, *_sizes(p))
    return draft.plan()


def weight_grad(p: Problem) -> LaunchPlan:
    """Plans dw from x and dy."""
    draft = Draft(p)
    draft.run(reference_weight_grad, FIRST, SECOND, RESULT, *_sizes(p))
    return draft.plan()
