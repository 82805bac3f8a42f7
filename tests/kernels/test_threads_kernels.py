"""Threads: how many, the same bits for any number, several Python threads at once on every layer, and a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import SHARES, parallel_for
from tests.plain import compiled_only

ROOT = Path(__file__).parents[2]


@device_function
def square_chunk(chunk, worker, x, y, seen, size):
    for i in range(chunk * size, min(x.size, (chunk + 1) * size)):
        y[i] += x[i] * x[i]
    seen[chunk] = worker


@kernel
def squares(x, y, seen, size, threads):
    """y += x * x, ``size`` numbers in a chunk."""
    parallel_for(square_chunk, (x.size + size - 1) // size, threads, (x, y, seen, size))


@pytest.mark.parametrize("many", [1, 2, 3, SHARES + 2])
def test_every_chunk_runs_once_on_a_worker(many):
    if many > 3 and threads.start() != "omp":
        pytest.skip("only OpenMP starts more threads than there are CPUs")
    x = np.random.default_rng(0).standard_normal(10_001)
    for size in (500, 4000, 100):  # 21 chunks, fewer than workers, and more than there can be shares
        y, seen = np.zeros_like(x), np.full(101, -1)
        squares(x, y, seen, size, many)
        np.testing.assert_array_equal(y, x * x)
        seen = seen[: -(-x.size // size)]
        assert ((seen >= 0) & (seen < many)).all()
    squares(x[:0], y, seen, 500, many)  # no chunk at all


def test_the_number_of_threads_can_be_chosen():
    before = fn.get_num_threads()
    try:
        assert before == threads.available()
        fn.set_num_threads(1)
        assert fn.get_num_threads() == 1 and threads.workers(1e12) == 1
        fn.set_num_threads(10_000)
        assert fn.get_num_threads() == threads.available()
    finally:
        fn.set_num_threads(before)
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="set_num_threads: expected a positive int"):
            fn.set_num_threads(wrong)


def test_small_work_stays_serial():
    assert threads.workers(10) == 1
    assert threads.workers(1e9) == fn.get_num_threads()


def test_the_quota_of_a_control_group_counts(tmp_path):
    assert threads._quota(str(tmp_path)) == 1 << 20  # there is none
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads._quota(str(tmp_path)) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads._quota(str(tmp_path)) == 1 << 20
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads._quota(str(tmp_path)) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads._quota(str(tmp_path)) == 1 << 20


def python(code: str, layer: str) -> str:
    """What a script in a process of its own prints; skips the test where there is no such threading layer."""
    env = {"PYTHONPATH": str(ROOT), "NUMBA_THREADING_LAYER": layer, "LD_LIBRARY_PATH": str(Path(sys.prefix, "lib"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} is not installed")
    assert done.returncode == 0, done.stderr
    return done.stdout


LAYERS = pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])  # pip puts tbb's library into the prefix


AT_ONCE = """
import threading, numpy as np, funcnn as fn
import funcnn.nn.functional as F
from funcnn.kernels.cpu import threads
threads.WORTHWHILE = 0
x, w = fn.randn(4, 8, 30, 30), fn.randn(8, 8, 3, 3)
right = F.conv2d(x, w, padding=1).numpy()
wrong = []
def work():
    for _ in range(100):
        if not np.array_equal(F.conv2d(x, w, padding=1).numpy(), right):
            wrong.append(1)
pool = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in pool], [t.join() for t in pool]
print(len(wrong), threads.start())
"""


@compiled_only
@LAYERS
def test_several_python_threads_at_once(layer):
    assert python(AT_ONCE, layer).split() == ["0", layer]


FORKED = """
import os, numpy as np, funcnn as fn
import funcnn.nn.functional as F
from funcnn.kernels.cpu import threads
threads.WORTHWHILE = 0
x, w = fn.randn(4, 8, 30, 30), fn.randn(8, 8, 3, 3)
right = F.conv2d(x, w, padding=1).numpy()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(F.conv2d(x, w, padding=1).numpy(), right) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(F.conv2d(x, w, padding=1).numpy(), right))
"""


@compiled_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@LAYERS
def test_a_forked_child_works(layer):
    assert python(FORKED, layer).split() == ["0", "True"]
