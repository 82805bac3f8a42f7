"""Whether all elements of an array are finite: where one is not, another plan takes the place of the one that runs."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.launch import GIVE_WAY

CHUNK_ELEMENTS = 1 << 15


@device_function
def look_at(chunk, worker, numbers, status):
    """Looks at CHUNK_ELEMENTS elements: zero times each is zero unless one is infinite or NaN."""
    source, bad = pointer(numbers, chunk * CHUNK_ELEMENTS), numbers.dtype.type(0)
    for i in range(min(CHUNK_ELEMENTS, numbers.size - chunk * CHUNK_ELEMENTS)):
        bad += source[i] * 0
    if bad != 0:  # NaN is not 0
        status[0] = GIVE_WAY


@kernel(touches={"status": lambda: 1})
def give_way_unless_finite(numbers, status, threads):
    """Gives way where an element is infinite or NaN."""
    parallel_for(look_at, (numbers.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS, threads, (numbers, status))
