"""What a matrix product does to a tile before it is written: affine for each row or lane, residual, activation.

The tile lies in the first-level cache, ``wide`` elements a row, so each step is a short loop over it; a separate operation
would read and write all of the result again. Order: ``act(c * scale + shift + residual)``.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.functions import sigmoid, tanh
from funcnn.kernels.cpu.vector.instructions import pointer, shift

NO_AFFINE, EACH_ROW, EACH_LANE = (
    0,
    1,
    2,
)  # scale and shift are absent, or have one element for each row or for each lane
ACTIVATIONS = (None, "relu", "sigmoid", "tanh")


@device_function
def finish_tile(c, rows, lanes, wide, extra, each, scaled, first, size):
    """Writes ``c = c * scale + shift``: extra is shift, then scale if ``scaled``, of ``size`` elements each; ``first`` is the tile's."""
    if each == EACH_LANE:
        add, times = pointer(extra, first), pointer(extra, size + first if scaled else 0)
        for i in range(rows):
            row = shift(c, i * wide)
            if scaled:
                for j in range(lanes):
                    row[j] = row[j] * times[j] + add[j]
            else:
                for j in range(lanes):
                    row[j] = row[j] + add[j]
    elif each == EACH_ROW:
        for i in range(rows):
            row, add = shift(c, i * wide), extra[first + i]
            times = extra[size + first + i] if scaled else like(add, 1)
            for j in range(lanes):
                row[j] = row[j] * times + add


@device_function
def add_residual(c, rows, lanes, wide, residual, down, across):
    """Adds elements whose strides are those of the result."""
    for i in range(rows):
        row, more = shift(c, i * wide), shift(residual, i * down)
        if across == 1:
            for j in range(lanes):
                row[j] = row[j] + more[j]
        else:
            for j in range(lanes):
                row[j] = row[j] + more[j * across]


@device_function
def activate(c, count, activation):
    """``ACTIVATIONS[activation]`` of the whole tile, what lies beside it included; NaN stays."""
    if activation == 1:
        for j in range(count):
            c[j] = like(c[j], 0) if c[j] <= 0 else c[j]
    elif activation == 2:
        for j in range(count):
            c[j] = sigmoid(c[j])
    elif activation == 3:
        for j in range(count):
            c[j] = tanh(c[j])
