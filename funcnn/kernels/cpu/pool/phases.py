"""A row split by phase for windows any number of columns apart, where ``pool_rows`` has no vectors of its own for it.

A line is made with whole vectors first, and lies in the first-level cache when it is split; what windows cost is then little
more than a copy. An element at a time, with a division for its place, took ten times as long.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function
from funcnn.kernels.cpu.vector.instructions import shift


@apart_function
def part_three(line, target, second, third, count):
    """Three phases of a line, ``count`` elements of each: loops of a known step become loads of whole vectors and shuffles."""
    for u in range(count):
        target[u], second[u], third[u] = line[3 * u], line[3 * u + 1], line[3 * u + 2]


@apart_function
def part_four(line, target, second, third, fourth, count):
    """Four phases of a line."""
    for u in range(count):
        target[u], second[u], third[u], fourth[u] = line[4 * u], line[4 * u + 1], line[4 * u + 2], line[4 * u + 3]


@device_function
def part(line, width, step, target, apart):
    """Writes target[e * apart + u] = line[step * u + e] for any step: the phases of a line of ``width`` elements."""
    whole = width // step
    if step == 3:
        part_three(line, target, shift(target, apart), shift(target, 2 * apart), whole)
    elif step == 4:
        part_four(line, target, shift(target, apart), shift(target, 2 * apart), shift(target, 3 * apart), whole)
    else:
        for e in range(step):
            phase = shift(target, e * apart)
            for u in range(whole):
                phase[u] = line[step * u + e]
    for w in range(whole * step, width):
        target[(w - whole * step) * apart + whole] = line[w]
