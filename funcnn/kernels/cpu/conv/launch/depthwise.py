"""When depthwise convolution applies on the CPU: one input channel a group, one or two dimensions."""

from __future__ import annotations

from math import prod

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.depthwise import TILE_ROWS, depthwise, reverse_taps
from funcnn.kernels.cpu.conv.depthwise_weight import TILE_TAPS, depthwise_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.draft import FIRST, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.tiles import row_columns
from funcnn.kernels.launch import Array, LaunchPlan, Workers

TAP_NS = 0.1  # a multiply-add
MOST_IMAGE_GROUPS = 16  # groups of images that a weight gradient has sums for, at most
LEAST_CHANNELS = 8  # at least


def _planes(size: int) -> int:
    """Returns how many input planes a chunk has, each of so many multiply-adds."""
    return max(1, int(2e5 / max(size, 1)))


def _one_each(p: Problem) -> bool:
    """Whether there is one input channel a group, and planes to work on."""
    return p.inner == 1 and p.dims < 3 and not p.empty


def _outputs(draft: Draft, p: Problem, weights: Array) -> None:
    """Plans the outputs of a problem, which need not be the draft's, from the first operand."""
    n, channels, _, height, width = p.x
    layout, part = tables.forward((1, height, width), 1, p.kernel, *p.window, tables.COPY_EVERY_IMAGE)
    _, P, Q, _ = part.grid
    nine = p.kernel == (1, 3, 3) and p.stride == p.dilation == (1, 1, 1)
    columns = row_columns(p.itemsize) // (2 if nine else 1)
    room = layout.size + (TILE_ROWS + 2) * layout.places[2] + 2 * TILE_ROWS * columns  # tiles read beyond the plane
    room = -(-room // 16) * 16
    scratch = draft.room(room, each_worker=True, zeros=True)
    planes = _planes(part.offsets.size * P * Q * p.lanes)
    draft.run(
        depthwise, FIRST, weights, draft.bias(p.w[0]), RESULT, scratch, room, draft.constant(part.offsets), planes,
        layout.layout, (P, Q, p.lanes, channels, n), columns, nine, Workers(TAP_NS * prod(p.y) * part.offsets.size),
    )  # fmt: skip


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = bias + w * x. By the definition where weights that are not finite would meet padding."""
    if not _one_each(p):
        return None
    draft = Draft(p)
    if any(p.padding):
        draft.require_finite(SECOND, prod(p.w), reference.forward)
    _outputs(draft, p, SECOND)
    return draft.plan()


def forward_pays(p: Problem) -> bool:
    """Whether it pays: for several channels."""
    return p.groups >= LEAST_CHANNELS


def input_grad(p: Problem) -> LaunchPlan | None:
    """Plans, with stride 1 and one output a channel, the forward pass of dy with the taps reversed."""
    around = tuple(d * (k - 1) - before for before, d, k in zip(p.padding, p.dilation, p.kernel, strict=True))
    if not _one_each(p) or p.lanes > 1 or max(p.stride) > 1 or min(around) < 0:
        return None
    draft, backward = Draft(p), p._replace(x=p.y, y=p.x, padding=around)
    weights = draft.room(prod(p.w))
    draft.run(reverse_taps, SECOND, weights, p.w[0], p.taps, once=True)
    draft.require_finite(SECOND, prod(p.w), reference.input_grad)
    _outputs(draft, backward, weights)
    return draft.plan()


def weight_grad(p: Problem) -> LaunchPlan | None:
    """Plans dw from x and dy. By the definition where it is not finite: such elements of x or dy may have met padding or gaps."""
    if not _one_each(p):
        return None
    draft, lanes = Draft(p), vector_bytes() // p.itemsize
    n, channels, _, height, width = p.x
    layout, part = tables.forward((1, height, width), 1, p.kernel, *p.window, tables.COPY_EVERY_IMAGE)
    around = tables.cotangent(p.y[2:], part.grid[3], lanes)
    offsets = tables.to_tiles(part.offsets, TILE_TAPS)
    images = -(-n // MOST_IMAGE_GROUPS)
    run = max(1, _planes(part.offsets.size * around.size * p.lanes) // images)
    reach = max(layout.size, int(offsets.max()) + around.size)  # vectors read beyond the plane
    room = -(-reach // 16) * 16 + around.size
    sums, scratch = (
        draft.room(-(-n // images) * p.w[0] * offsets.size, "float64"),
        draft.room(room, each_worker=True, zeros=True),
    )
    draft.run(
        depthwise_weight_grad, FIRST, SECOND, RESULT, sums, scratch, room, draft.constant(offsets), (channels, p.lanes, n),
        (images, run), tables.pieces(around.size, lanes), layout.layout, around.layout,
        Workers(TAP_NS * prod(p.y) * part.offsets.size),
    )  # fmt: skip
    draft.require_finite(RESULT, prod(p.w), reference.weight_grad)
    return draft.plan()
