"""Threads: how many, the same bits for any number, several Python threads at once on every layer, and a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import MOST_SHARES, parallel_for
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.threads.code import CALLER, DONE, LOCK, SIZE
from funcnn.kernels.cpu.threads.pool import Pool, pool
from tests.plain import compiled_only

ROOT = Path(__file__).parents[3]


@device_function
def square_chunk(chunk, worker, x, y, seen, size):
    for i in range(chunk * size, min(x.size, (chunk + 1) * size)):
        y[i] += x[i] * x[i]
    seen[chunk] = worker


@kernel
def squares(x, y, seen, size, threads):
    """y += x * x, ``size`` numbers in a chunk."""
    parallel_for(square_chunk, (x.size + size - 1) // size, threads, (x, y, seen, size))


@pytest.mark.parametrize("many", [1, 2, 3, MOST_SHARES + 2])
def test_every_chunk_runs_once_on_a_worker(many):
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


@compiled_only
def test_a_worker_that_does_not_come_is_not_waited_for():
    """The scheduler may keep a worker from its core for as long as it likes: the caller does all chunks itself."""
    x = np.random.default_rng(0).standard_normal(10_001)
    y, seen = np.zeros_like(x), np.full(101, -1)
    squares(x, y, seen, 100, 2)  # the pool is there
    size = pool.word(SIZE)
    before = size.value
    size.value = before + 5  # of whom five never look at the gate
    try:
        for _ in range(100):
            y[:] = 0
            squares(x, y, seen, 100, before + 6)
            np.testing.assert_array_equal(y, x * x)
            assert seen.max() <= before
    finally:
        size.value = before


@compiled_only
def test_many_short_calls_from_several_python_threads_lose_no_chunk():
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(3_000)
        for many, pause in zip(rng.integers(1, 6, 2_000), rng.random(2_000), strict=True):
            y, seen = np.zeros_like(x), np.full(101, -1)
            squares(x, y, seen, 100, many)
            if not np.array_equal(y, x * x) or (seen[:30] < 0).any():
                wrong.append(many)
            if pause < 0.01:
                time.sleep(0.002)  # longer than workers spin, so that they are woken, too

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    [worker.start() for worker in workers], [worker.join() for worker in workers]
    assert wrong == []
    assert pool.word(LOCK).value == 0 and pool.word(DONE).value <= len(pool.threads)


def python(code: str, **env: str) -> str:
    """What a script in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PARALLEL = """
import os
before = dict(os.environ)
import numpy as np, funcnn as fn
import funcnn.nn.functional as F
from funcnn.kernels.cpu.threads import number as threads
threads.NANOSECONDS_FOR_THREADS = 0
x, w = fn.randn(4, 8, 30, 30), fn.randn(8, 8, 3, 3)
right = F.conv2d(x, w, padding=1).numpy()
"""
OTHERS = """
assert dict(os.environ) == before
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
print(any(name in maps for name in ("libgomp", "libomp", "libtbb", "omppool", "tbbpool", "workqueue")))
"""


@compiled_only
def test_threads_and_environment_of_other_libraries_stay_as_they_were():
    """A library that is loaded afterwards, PyTorch say, finds no OpenMP that we set up."""
    assert python(PARALLEL + OTHERS).split() == ["False"]


AT_ONCE = """
import threading
wrong = []
def work():
    for _ in range(100):
        if not np.array_equal(F.conv2d(x, w, padding=1).numpy(), right):
            wrong.append(1)
pool = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in pool], [t.join() for t in pool]
print(len(wrong))
"""


@compiled_only
def test_several_python_threads_at_once():
    assert python(PARALLEL + AT_ONCE).split() == ["0"]


FORKED = """
from funcnn.kernels.cpu.threads.pool import pool
child = os.fork()
if child == 0:
    same = all(np.array_equal(F.conv2d(x, w, padding=1).numpy(), right) for _ in range(20))
    os._exit(0 if same and len(pool.threads) == threads.available() - 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(F.conv2d(x, w, padding=1).numpy(), right))
"""


@compiled_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    assert python(PARALLEL + FORKED).split() == ["0", "True"]


@compiled_only
def test_the_pool_ends_with_the_interpreter():
    """Workers that still spin, or sleep, are gone before their code is; what runs at exit afterwards works alone."""
    late = "import atexit; atexit.register(lambda: print(np.array_equal(F.conv2d(x, w, padding=1).numpy(), right)))\n"
    before = PARALLEL.replace("import numpy", "import atexit; atexit.register(lambda: again())\nimport numpy")
    again = "again = lambda: print(np.array_equal(F.conv2d(x, w, padding=1).numpy(), right))\n"
    assert python(before + again).split() == ["True"]
    assert python(PARALLEL + late).split() == ["True"]


def test_a_child_forgets_the_threads_of_its_parent():
    mine = Pool()
    mine.load()
    mine.word(LOCK).value, mine.forked = 1, False
    lock = mine.word(CALLER).value
    mine.forget()
    assert mine.word(LOCK).value == 0 and mine.threads == [] and mine.forked
    assert mine.word(CALLER).value not in (0, lock)
    mine.start(1)
    assert not mine.forked and mine.word(SIZE).value == 1 and mine.threads[0].is_alive()
    worker = mine.threads[0]
    mine.stop()
    assert mine.word(SIZE).value == 0 and not worker.is_alive()
