"""Copies of transposed arrays and of strided regions, against NumPy; one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.movement.permute import transpose_planes
from funcnn.kernels.cpu.movement.regions import collapsed
from funcnn.kernels.cpu.movement.strided import CHUNK_ELEMENTS, copy_strided
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 70, 3), (1, 16, 64), (3, 37, 65), *sized([(2, 200, 300)], [])])
def test_transposed_planes(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for threads in (1, 2):
        out = np.full((shape[0], shape[2], shape[1]), np.nan, dtype)
        transpose_planes(x.reshape(-1), out.reshape(-1), *shape, threads)
        np.testing.assert_array_equal(out, x.transpose(0, 2, 1))


LONG = sized([2 * CHUNK_ELEMENTS + 9], [9])[0]
VIEWS = {  # the shape of what is copied from, elements to copy to, and the region of each
    "whole": ((3, 4, 5), 60, lambda x: x, lambda y: y.reshape(3, 4, 5)),
    "reversed": ((3, 4, 5), 60, lambda x: x[::-1, :, ::-1], lambda y: y.reshape(3, 4, 5)),
    "permuted": ((3, 4, 5), 60, lambda x: x, lambda y: y.reshape(5, 3, 4).transpose(1, 2, 0)),
    "repeated": ((3, 1, 5), 60, lambda x: np.broadcast_to(x, (3, 4, 5)), lambda y: y.reshape(3, 4, 5)),
    "into a slice": ((3, 4), 72, lambda x: x, lambda y: y.reshape(9, 8)[2::3, ::2]),
    "onto a diagonal": ((4,), 20, lambda x: x, lambda y: y[1::6]),
    "one element": ((), 9, lambda x: x, lambda y: y[7:8].reshape(())),
    "long rows": ((2, LONG), 2 * LONG, lambda x: x[:, ::-1], lambda y: y.reshape(2, LONG)),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("name", VIEWS)
def test_regions_are_copied(name, dtype):
    shape, room, read, written = VIEWS[name]
    x = np.arange(max(1, int(np.prod(shape)))).reshape(shape).astype(dtype)
    for threads in (1, 2):
        out, expected = np.full((2, room), 77, dtype)
        source, target = read(x), written(expected)
        firsts = [
            (part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) // x.itemsize
            for part, whole in ((source, x), (target, expected))
        ]
        axes = collapsed(target.shape, *([s // x.itemsize for s in part.strides] for part in (source, target)))
        target[...] = source
        copy_strided(x.reshape(-1), firsts[0], out, firsts[1], np.array(axes, np.int64).T.reshape(-1), threads)
        np.testing.assert_array_equal(out, expected)


def test_axes_that_lie_one_in_the_other_are_one() -> None:
    assert collapsed((2, 3, 4), (12, 4, 1), (12, 4, 1)) == [(24, 1, 1)]
    assert collapsed((2, 3, 4), (12, 4, 1), (24, 8, 2)) == [(24, 1, 2)]
    assert collapsed((2, 1, 4), (0, 9, 1), (4, 4, 1)) == [(2, 0, 4), (4, 1, 1)]
    assert collapsed((1, 1), (5, 5), (7, 7)) == collapsed((), (), ()) == [(1, 1, 1)]


def test_a_region_reaches_to_its_last_element() -> None:
    table = np.array([3, 4, 8, -1, 5, 2])  # (3, 4) elements: 8 apart and backwards, to places 5 and 2 apart
    touches = copy_strided.facts.touches
    assert touches["x"](3, table) == 1 + 3 + 2 * 8 and touches["out"](7, table) == 1 + 7 + 2 * 5 + 3 * 2
