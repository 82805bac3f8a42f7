"""How attention runs on the CPU: one launch forward and one backward, for all heads of all examples."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.attention import backward, forward
from funcnn.kernels.cpu.elementwise.loops import repeat_number
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import (
    CONSTANT,
    INPUT,
    OUTPUT,
    SCRATCH,
    Array,
    Constant,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Workers,
)  # fmt: skip

LEAST_CHUNKS = 16  # chunks of work that the backward kernel is given at least, where there are keys enough
PRODUCTS_FOR_SPLITTING = 10_000_000  # products; below, one chunk for each head of the keys
FLOPS_PER_NS = 80  # a nanosecond, of one thread
MASK, ORIGINS, KEY, SHAPE, CHANCE, OFFSETS = (Array(CONSTANT, i) for i in range(6))


@lru_cache(256)
def _origins(lead: tuple[int, ...], steps: tuple[int, ...]) -> Constant:
    """Returns where the mask of each head begins, if it goes so far on along each leading axis."""
    heads = prod(lead)
    grid = np.indices(lead).reshape(len(lead), heads)
    return Constant(np.array(steps, np.int64) @ grid if lead else np.zeros(heads, np.int64))


def _steps(mask: Operand, rank: int) -> tuple[int, ...]:
    """Returns how far a contiguous mask goes on along each axis of the scores; 0 where it is repeated."""
    steps, step = [0] * rank, 1
    for axis, size in enumerate(reversed(mask.shape)):
        steps[rank - 1 - axis] = step if size > 1 else 0
        step *= size
    return tuple(steps)


class _Call:
    """What both kernels take: the numbers that describe their arrays. first: the number of the input ``rest[0]``."""

    def __init__(
        self, q: Operand, k: Operand, v: Operand, rest: tuple[Operand, ...], first: int, params: dict[str, Any]
    ):
        lead, dropout, apart = q.shape[:-2], params["dropout"], params["apart"]
        self.heads, self.keyed = prod(lead), prod(k.shape[:-2])
        self.queries, self.keys, self.e, self.d = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
        self.itemsize, self.examples = q.itemsize, prod(lead[:apart])
        steps, self.mask = (0,) * q.ndim, MASK
        if params["masked"]:
            steps, self.mask = _steps(rest[0], q.ndim), Array(INPUT, first)
        self.key = Array(INPUT, first + len(rest) - 1) if dropout > 0.0 else KEY
        counters, each = -(-self.keys // 4) if dropout > 0.0 else 0, self.heads // self.examples
        group = self.heads // self.keyed
        self.shape = [self.heads, group, self.queries, self.keys, self.e, self.d, int(params["causal"]), *steps[-2:],
                      counters, each]  # fmt: skip
        self.chance = [dropout, 1.0 / (1.0 - dropout) if dropout < 1.0 else 0.0, params["scale"]]
        self.dtype, self.origins = q.dtype, _origins(lead, steps[:-2])

    def constants(self, *more: Any) -> tuple[Constant, ...]:
        """Lists the constants in the order of their names above; more: what the kernel wants besides at the end of the shape, and places."""
        nothing, key = np.empty(0, self.dtype), np.zeros(2, np.uint32)
        shape, chance = np.array([*self.shape, *more], np.int64), np.array(self.chance, self.dtype)
        return (Constant(nothing), self.origins, Constant(key), Constant(shape), Constant(chance))

    def cost(self, products: int) -> Cost:
        """Returns the cost of so many multiply-adds at each score."""
        flops = 2.0 * products * self.heads * self.queries * self.keys
        return Cost(nanoseconds=flops / FLOPS_PER_NS)


def _forward(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    q, k, v, *rest = operands
    o, kept = Array(OUTPUT, 0), params.get("residuals", True)
    lse = Array(OUTPUT, 1) if kept else Array(SCRATCH, 2)
    if not (q.size and v.size):
        fill = (Launch(repeat_number, (Array(CONSTANT, 0), lse)),) * kept  # no query finds keys
        infinite, outputs = Constant(np.full(1, np.inf, q.dtype)), (Output("zeros"), Output())[: 1 + kept]
        return LaunchPlan(fill, (ANY,) * len(operands), outputs, constants=(infinite,) * kept)
    call, inputs = _Call(q, k, v, tuple(rest), 3, params), (CONTIGUOUS,) * len(operands)
    cost = call.cost(call.e + call.d)
    scratch = (
        Scratch(q.dtype.name, call.keyed * forward.packed_size(call.keys, call.e, call.d, q.itemsize)),
        Scratch(q.dtype.name, forward.forward_scratch(call.e, call.d, q.itemsize), each_worker=True),
        *(() if kept else (Scratch(q.dtype.name, 1),)),
    )
    args = (
        *(Array(INPUT, i) for i in range(3)), call.mask, ORIGINS, call.key, Array(SCRATCH, 0), Array(SCRATCH, 1), o, lse, kept,
        SHAPE, CHANCE, Workers(cost.nanoseconds),
    )  # fmt: skip
    launch = Launch(forward.attention_forward, args)
    return LaunchPlan((launch,), inputs, (Output(),) * (1 + kept), scratch, call.constants(), cost=cost)


def _splits(call: _Call) -> tuple[int, int]:
    """Returns among how many chunks the keys of a head are split, and how many of them one has: whatever the threads, for the bits."""
    blocks, keyed = -(-call.keys // backward.BLOCK_POSITIONS), call.keyed // call.examples
    products = call.heads // call.examples * call.queries * call.keys * (3 * call.e + 2 * call.d)
    splits = min(blocks, -(-LEAST_CHUNKS // keyed)) if products > PRODUCTS_FOR_SPLITTING else 1
    span = -(-blocks // splits) * backward.BLOCK_POSITIONS
    return -(-call.keys // span), span


def _backward(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    g, q, k, v, _, _, *rest = operands
    if not g.size or not k.size:
        return LaunchPlan((), (ANY,) * len(operands), (Output("zeros"),) * 3)
    inputs = (CONTIGUOUS,) * len(operands)
    call = _Call(q, k, v, tuple(rest), 6, params)
    cost = call.cost(3 * call.e + 2 * call.d)
    splits, span = _splits(call)
    places = backward.backward_scratch(call.queries, call.e, call.d, span, q.itemsize)
    scratch = [Scratch(q.dtype.name, int(places[-1]), each_worker=True)]
    dq, dk, dv = (Array(OUTPUT, i) for i in range(3))
    parts = dq
    if splits > 1:
        parts = Array(SCRATCH, 1)
        scratch.append(Scratch(q.dtype.name, splits * q.size))
    args = (
        *(Array(INPUT, i) for i in (1, 2, 3)), call.mask, ORIGINS, call.key, *(Array(INPUT, i) for i in (4, 5, 0)), parts,
        Array(SCRATCH, 0), OFFSETS, dq, dk, dv, SHAPE, CHANCE, Workers(cost.nanoseconds),
    )  # fmt: skip
    launch, constants = Launch(backward.attention_backward, args), (*call.constants(splits, span), Constant(places))
    return LaunchPlan((launch,), inputs, (Output(),) * 3, tuple(scratch), constants, cost=cost)


attention = (Implementation("kernel", _forward),)
attention_grad = (Implementation("kernel", _backward),)
