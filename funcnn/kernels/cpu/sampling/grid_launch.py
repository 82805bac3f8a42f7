"""How images are sampled at given places on the CPU, with the gradients of images and places: launch plans."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.sampling import grid_sample as kernels
from funcnn.kernels.cpu.sampling.grid_taps import BLOCK_POINTS, ROOM_FLOATS, ROOM_INTS, SKIPPED, ZEROS
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts, lines

POINT_NS, TAP_NS = 10.0, 0.15  # of the tables of a place; of a number that is read


def _images(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns (N, C, *space) as (N, C, P)."""
    return shape[0], shape[1], prod(shape[2:])


def _places(grid: Operand) -> tuple[int, int, int]:
    """Returns (N, *out, axes) as (N, P, axes)."""
    return grid.shape[0], prod(grid.shape[1:-1]), grid.shape[-1]


class Call:
    """A kernel with tables for its workers, and what comes before it."""

    def __init__(self, grid: Operand, channels: int, params: dict[str, Any]):
        self.grid, self.taps = grid, params["taps"]
        self.how = (params["taps"], params["padding"], params["align"])
        places = grid.size // grid.shape[-1]
        products = self.taps ** grid.shape[-1]
        self.work = places * (POINT_NS + TAP_NS * channels * products)
        self.cost = Cost(nanoseconds=self.work)
        self.parts, self.before = Parts(), []  # type: ignore[var-annotated]

    def images(self, number: int, x: Operand) -> tuple[Array, bool]:
        """Returns input ``number`` (N, C, pixels), or (N, pixels, C) where enough channels are read at enough places, and whether so."""
        n, c, pixels = _images(x.shape)
        if self.taps == 1 or c < 8 or 8 * self.grid.size // self.grid.shape[-1] < n * pixels:
            return Array(INPUT, number), False
        transposed, given = self.parts.room(x.dtype, x.size), Array(INPUT, number, (n, c, pixels))
        self.before.append(Launch(kernels.transpose_images, (given, transposed, Workers(TAP_NS * x.size))))
        return transposed, True

    def plan(self, kernel: Any, arrays: list, place: int, out: Array, space: tuple, room: int, ins: int) -> LaunchPlan:
        """Returns the plan of a kernel that takes ``arrays``, the grid, which is input ``place``, and the output."""
        image, dtype = (1,) * (3 - len(space)) + tuple(space), self.grid.dtype
        each = lines(ROOM_FLOATS + room)
        args = (
            *arrays, Array(INPUT, place, _places(self.grid)), out, image, self.how,
            self.parts.constant(np.array([0.5], dtype)), self.parts.each("int64", ROOM_INTS),
            self.parts.each(dtype, each), each, Workers(self.work),
        )  # fmt: skip
        launches = (*self.before, Launch(kernel, args))
        return self.parts.plan(launches, (CONTIGUOUS,) * ins, (Output(),), cost=self.cost)


def _sample(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, grid = operands
    out = (*x.shape[:2], _places(grid)[1])
    if not prod(out):
        return LaunchPlan((), (ANY, ANY), (Output(),))
    call = Call(grid, x.shape[1], params)
    arrays = [*call.images(0, x)]
    return call.plan(
        kernels.sample, arrays, 1, Array(OUTPUT, 0, out), x.shape[2:], kernels.TRANSPOSED_POINTS * x.shape[1], 2
    )


def _image_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    dy, grid = operands
    space = params["space"]
    shape = (*dy.shape[:2], prod(space))
    if not dy.size or not prod(shape):
        return LaunchPlan((), (ANY, ANY), (Output("zeros"),))
    skipped = {**params, "padding": SKIPPED if params["padding"] == ZEROS else params["padding"]}
    call, room = Call(grid, dy.shape[1], skipped), kernels.GROUP_CHANNELS * (BLOCK_POINTS + prod(space))
    return call.plan(kernels.image_grad, [Array(INPUT, 0)], 1, Array(OUTPUT, 0, shape), space, room, 2)


def _grid_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    dy, x, grid = operands
    if not grid.size:
        return LaunchPlan((), (ANY,) * 3, (Output(),))
    call = Call(grid, x.shape[1], params)
    arrays = [Array(INPUT, 0, _images(dy.shape)), *call.images(1, x)]
    return call.plan(
        kernels.grid_grad, arrays, 2, Array(OUTPUT, 0), x.shape[2:], kernels.TRANSPOSED_POINTS * x.shape[1], 3
    )


samples = (Implementation("kernel", _sample),)
image_grads = (Implementation("kernel", _image_grad),)
grid_grads = (Implementation("kernel", _grid_grad),)
