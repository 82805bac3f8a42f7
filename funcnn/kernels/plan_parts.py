"""What a plan gathers while it is made: scratch and constants, each of which is an argument at once."""

from __future__ import annotations

from typing import Any

from funcnn.kernels.launch import CONSTANT, SCRATCH, Array, Constant, LaunchPlan, Scratch

LINE_BYTES = 64  # bytes of a cache line


class Parts:
    """Gathers the scratch and the constants of a plan."""

    def __init__(self) -> None:
        self.scratch: list[Scratch] = []
        self.constants: list[Constant] = []

    def room(
        self,
        dtype: Any,
        size: int,
        shape: tuple[int, ...] | None = None,
        *,
        each_worker: bool = False,
        zeros: bool = False,
    ) -> Array:
        """Adds scratch for one evaluation, or for each worker, and returns the argument that names it."""
        self.scratch.append(Scratch(str(dtype), size, each_worker, zeros))
        return Array(SCRATCH, len(self.scratch) - 1, shape)

    def each(self, dtype: Any, size: int) -> Array:
        """Adds scratch for each worker, and returns the argument that names it; ``size`` is what ``lines`` gives."""
        return self.room(dtype, size, each_worker=True)

    def constant(self, value: Any, shape: tuple[int, ...] | None = None) -> Array:
        """Adds an array that the plan owns, or a ``Constant`` that other plans share, and returns the argument that names it."""
        self.constants.append(value if isinstance(value, Constant) else Constant(value))
        return Array(CONSTANT, len(self.constants) - 1, shape)

    def plan(self, launches: tuple, inputs: tuple, outputs: tuple, **more: Any) -> LaunchPlan:
        """Makes the plan of these launches."""
        return LaunchPlan(launches, inputs, outputs, tuple(self.scratch), tuple(self.constants), **more)


def lines(count: int, itemsize: int = 4) -> int:
    """Rounds ``count`` elements and one cache line up to whole lines, so that no two workers write to the same line."""
    each = LINE_BYTES // itemsize
    return (-(-count // each) + 1) * each
