"""Philox: the known answers of Random123 (Salmon et al., 2011), and that all twins give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from funcnn.kernels import philox as twins
from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.random.philox import philox_words
from funcnn.kernels.cpu.vector.instructions import pointer

ROOT = Path(__file__).parents[3]
ONES = 0xFFFFFFFF
ANSWERS = [  # key, counter, words
    ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES), (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0xA4093822, 0x299F31D0),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@kernel
def fill_words(key0, key1, stream, start, out):
    """Whole blocks of four words, from counter ``start`` on."""
    philox_words(key0, key1, start, out.size // 4, stream, pointer(out, 0))


def fill(key, stream, count, start=0):
    out = np.full(-(-count // 4) * 4, 7, np.uint32)
    fill_words(np.uint64(key[0]), np.uint64(key[1]), np.uint64(stream), np.uint64(start), out)
    return out[:count]


@pytest.mark.parametrize("key, counter, words", ANSWERS)
def test_known_answers(key, counter, words):
    assert twins.block(*key, *counter) == words
    start, stream = (counter[1] << 32) + counter[0], (counter[3] << 32) + counter[2]
    assert tuple(fill(key, stream, 4, start)) == words


def test_known_answer_of_the_numpy_twin():
    assert tuple(twins.words_numpy(0, 0, 0, 4)) == ANSWERS[0][2]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 4099])
def test_twins_give_the_same_bits(count):
    key, stream = (0x12345678, 0x9ABCDEF0), 3
    expected = twins.words_python(*key, stream, count)
    np.testing.assert_array_equal(twins.words_numpy(*key, stream, count), expected)
    np.testing.assert_array_equal(fill(key, stream, count), expected)


def test_start_skips_blocks_of_four_words():
    np.testing.assert_array_equal(fill((1, 2), 0, 90, 5), fill((1, 2), 0, 110)[20:])
    across = fill((1, 2), 0, 8, 2**32 - 1)
    assert tuple(across[4:]) == twins.block(1, 2, 0, 1, 0, 0)


def test_streams_and_keys_differ():
    runs = [fill(key, stream, 64) for key in ((0, 0), (1, 0), (0, 1)) for stream in (0, 1, 2**32)]
    assert len({run.tobytes() for run in runs}) == len(runs)


def test_words_are_uniform():
    words = fill((5, 6), 0, 1 << 16)
    assert abs(words.mean() / 2**32 - 0.5) < 0.005
    for bit in range(32):
        assert abs((words >> np.uint32(bit) & np.uint32(1)).mean() - 0.5) < 0.01


CUDA = """
import sys
import numpy as np
from funcnn.kernels.cuda.philox import philox_fill
assert "numba" not in sys.modules, "importing a CUDA kernel imported numba"
from numba import cuda
key0, key1, stream, start = (np.uint64(int(word)) for word in sys.argv[1:5])
for count in (1, 6, 45):
    out = cuda.to_device(np.zeros(count, np.uint32))
    philox_fill(-(-count // 4), key0, key1, stream, out, start)
    print(*out.copy_to_host())
out = cuda.to_device(np.zeros(45, np.uint32))
philox_fill(2, key0, key1, stream, out, start)  # fewer threads than counters
print(*out.copy_to_host())
"""


def test_cuda_twin_in_the_simulator():
    key, stream, start = (ONES, 17), (9 << 32) + 4, 2**32 - 3
    done = subprocess.run(
        [sys.executable, "-c", CUDA, *map(str, (*key, stream, start))],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = [np.array(line.split(), np.uint32) for line in done.stdout.splitlines()]
    for words, count in zip(got, (1, 6, 45, 45), strict=True):
        np.testing.assert_array_equal(words, fill(key, stream, count, start))
