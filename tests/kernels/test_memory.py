"""Recycled memory: arrays that nobody holds lend it to the next ones, views keep it, and it is bounded."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.memory import Pool, empty

F4 = np.dtype(np.float32)
LARGE = (300, 300)


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A pool of its own for each test."""
    gc.collect()  # what earlier tests left goes back to the pool that it is from
    fresh = Pool(1 << 24)
    monkeypatch.setattr(memory, "_pool", fresh)
    return fresh


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_handed_out_again(pool):
    first = empty(LARGE, F4)
    place = address(first)
    del first
    again = empty((299, 300), F4)  # the same size class
    assert address(again) == place and pool.hits == 1 and pool.misses == 1
    assert address(empty(LARGE, F4)) != place


def test_a_view_keeps_the_memory(pool):
    array = empty(LARGE, F4)
    view = array[7:].T.reshape(-1)[::2]
    tail = array[200:, 100:]
    del array
    assert pool.cached == 0 and pool.used > 0
    view[:] = 3
    del view
    assert pool.cached == 0  # the other view still stands on it
    del tail
    assert pool.used == 0 and pool.cached > 0


def test_arrays_are_ordinary():
    array = empty(LARGE, F4)
    assert type(array) is np.ndarray and array.flags.c_contiguous and array.flags.writeable
    assert address(array) % 64 == 0 and array.shape == LARGE and array.dtype == F4
    array[:] = 1.5
    copy = pickle.loads(pickle.dumps(array))
    assert (copy == 1.5).all() and type(array + 1) is np.ndarray
    assert empty((0, 3), F4).shape == (0, 3) and empty((), np.dtype(bool)).shape == ()


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) + 1, 100_000, (1 << 20) - 1, 3 << 20, 12_345_678])
def test_waste_is_at_most_an_eighth(pool, size):
    held = empty((size,), np.dtype(np.uint8))
    assert held.size <= pool.used <= size * 9 / 8 + 1


def test_the_cache_is_bounded(pool):
    arrays = [empty((1 << 20,), F4) for _ in range(8)]
    arrays += [empty((3 << 19,), F4) for _ in range(3)]
    del arrays
    assert pool.used == 0 and 0 < pool.cached <= pool.limit
    huge = empty((1 << 23,), F4)  # more than the limit: never kept
    del huge
    assert pool.cached <= pool.limit


def test_the_cache_can_be_emptied_and_is_counted(pool):
    held = empty(LARGE, F4)
    other = empty(LARGE, F4)
    del other
    stats = fn.memory_stats()
    assert stats["used_bytes"] == stats["cached_bytes"] == pool.cached and stats["peak_bytes"] == 2 * pool.used
    assert (stats["hits"], stats["misses"], stats["limit_bytes"]) == (0, 2, 1 << 24)
    fn.empty_cache()
    assert fn.memory_stats()["cached_bytes"] == 0 and held.sum() is not None
    del held
    assert fn.memory_stats()["used_bytes"] == 0


def test_threads_share_the_pool(pool):
    wrong = []

    def work(number):
        for _ in range(300):
            mine = empty((20_000 + 100 * number,), F4)
            mine[:] = number
            if not (mine == number).all():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    gc.collect()
    assert not wrong and pool.used == 0


def test_operations_recycle_their_outputs(pool):
    x = fn.ones(400, 400)
    for _ in range(20):
        x = x * 1.0
    assert pool.hits >= 15 and pool.misses <= 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: fn.zeros(500, 500), lambda: fn.ones(500, 500), lambda: fn.full((500, 500), 2.0), lambda: fn.empty(500, 500),
        lambda: fn.eye(500), lambda: fn.tensor(np.ones((500, 500), "f4")), lambda: fn.tensor([[1.0] * 500] * 500),
        lambda: fn.arange(250_000.0), lambda: fn.zeros_like(fn.ones(500, 500)), lambda: fn.randn(500, 500),
    ],
)  # fmt: skip
def test_what_is_made_is_counted_and_the_peak_can_begin_anew(make):
    gc.collect()
    fn.reset_peak_memory_stats()
    before = fn.memory_stats()
    assert before["peak_bytes"] == before["used_bytes"]
    made = make()
    after = fn.memory_stats()
    assert after["used_bytes"] - before["used_bytes"] >= 1_000_000 <= after["peak_bytes"] - before["used_bytes"]
    del made
    gc.collect()
    assert fn.memory_stats()["used_bytes"] == before["used_bytes"]


def test_who_owns_memory_and_who_has_it_alone():
    own, recycled = np.ones(4, np.float32), empty(LARGE, F4)
    assert memory.owns(own) and memory.owns(recycled) and not memory.owns(own[1:])
    assert memory.sole(own) and memory.sole(recycled)
    alone = np.ones(4, np.float32).reshape(2, 2)
    assert memory.sole(alone) and not memory.sole(own.reshape(2, 2)) and not memory.sole(alone[:1])


def test_an_unknown_size_of_the_machine_is_taken_for_little(monkeypatch):
    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory._limit() == 1 << 30
