"""What this machine can do at most, measured: multiply-adds, and copies from memory and from the last cache."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from funcnn.kernels.cpu.machine import last_cache, tile_shape
from funcnn.kernels.cpu.threads import number as pool
from funcnn.kernels.cpu.vector import peak as kernels

COUNT = {4: 96, 8: 48}  # length of a tile's sum, by itemsize: its operands fill half of a 32 KiB first-level cache
ROUNDS, BUDGET = 5, 1.5  # of measuring, and seconds after which no further one begins where they agree
STEADY, MOST = 0.2, 10  # how far rounds may differ, and how many are made at most to find two that do not
CHUNK_ELEMENTS = 1 << 15  # of float32, that one chunk copies


@dataclass(frozen=True)
class MachineLimits:
    """Measured limits: GFLOP/s of multiply-adds and GB/s of copies (bytes read plus written), for 1 and all threads."""

    threads: int  # what "all" means
    float32_one: float
    float32_all: float
    float64_one: float
    float64_all: float
    copy_one: float
    copy_all: float
    cached_copy_one: float  # arrays that fit the last cache
    cached_copy_all: float
    cache_bytes: int
    spread: float = 0.0  # the largest difference between the rounds that were kept, as a share of the limit

    def peak(self, dtype: Any = np.float32, threads: int | None = None) -> float:
        """GFLOP/s of ``threads`` threads (None: all); of double precision for float64, else of single."""
        double = np.dtype(dtype) == np.float64
        one, full = (self.float64_one, self.float64_all) if double else (self.float32_one, self.float32_all)
        return self._between(one, full, threads)

    def bandwidth(self, size: float = float("inf"), threads: int | None = None) -> float:
        """GB/s of copies of ``size`` bytes in all: from the last cache where half of it holds them, else from memory."""
        cached = size <= self.cache_bytes / 2
        one, full = (self.cached_copy_one, self.cached_copy_all) if cached else (self.copy_one, self.copy_all)
        return self._between(one, full, threads)

    def _between(self, one: float, full: float, threads: int | None) -> float:
        """The limit of some threads: on a line from one's to all's."""
        if threads is None or threads >= self.threads or self.threads == 1:
            return full
        return one + (full - one) * (threads - 1) / (self.threads - 1)

    def __str__(self) -> str:
        rows = [
            ("multiply-add float32", self.float32_one, self.float32_all, "GFLOP/s"),
            ("multiply-add float64", self.float64_one, self.float64_all, "GFLOP/s"),
            ("copy, memory", self.copy_one, self.copy_all, "GB/s"),
            (f"copy, {self.cache_bytes / 2**20:.0f} MiB cache", self.cached_copy_one, self.cached_copy_all, "GB/s"),
        ]
        head = f"{'':24}{'1 thread':>10}{f'{self.threads} threads':>12}"
        tail = f"rounds differ by {self.spread:.0%}" + (": the machine was busy" if self.spread > STEADY else "")
        return "\n".join([head, *(f"{name:24}{one:10.1f}{full:12.1f} {unit}" for name, one, full, unit in rows), tail])


@cache
def machine_limits() -> MachineLimits:
    """The limits of this machine, measured at the first call in a process, in one to two seconds.

    Everything is measured in several rounds, and each limit is the best that two rounds agree on; where they differ by more
    than ``STEADY``, up to ``MOST`` rounds are made. What still differs then stands in ``spread``, with one warning: other
    work had the machine, and the limits are those of what it left. Nothing is made up from another figure.
    """
    pool.start()
    count, size = pool.available(), last_cache()
    kinds = [np.dtype(kind) for kind in (np.float32, np.float64)]
    runs = [partial(current_peak, kind, n) for kind in kinds for n in (1, count)]
    far, near = _arrays(max(4 * size, 1 << 26)), _arrays(size // 8)
    runs += [partial(_bandwidth, *pair, n) for pair in (far, near) for n in (1, count)]
    best, spread = settled(runs)
    if spread > STEADY:
        warnings.warn(
            f"machine_limits: rounds of measuring differ by {spread:.0%}, so something else is using the machine; the limits, "
            "and what is a share of them, are too low or uncertain. Measure again in a new process when it is quiet",
            stacklevel=2,
        )
    return MachineLimits(count, *best, cache_bytes=size, spread=spread)  # type: ignore[arg-type]


def settled(runs: Sequence[Callable[[], float]]) -> tuple[list[float], float]:
    """The best rate of each run over rounds, and the largest distance of a best from the second best, as a share of it."""
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while True:
        rounds.append([run() for run in runs])
        if len(rounds) < 2:
            continue
        ranked = [sorted(rates, reverse=True) for rates in zip(*rounds, strict=True)]
        spread = max(1 - second / first for first, second, *_ in ranked)
        late = time.perf_counter() > start + BUDGET
        if (spread <= STEADY and (late or len(rounds) >= ROUNDS)) or len(rounds) >= MOST:
            return [rates[0] for rates in ranked], spread


def _arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A source and a target of ``size`` bytes, written once; not of the pool, which is to keep and count none of this."""
    source, target = (np.empty(size // 4, np.float32) for _ in range(2))
    source[:], target[:] = 1, 0
    return source, target


def current_peak(dtype: np.dtype, threads: int) -> float:
    """GFLOP/s of the register tile on a number of threads, measured now, in some 20 ms."""
    rows, columns = tile_shape(dtype.itemsize)
    count, chunks, tile = COUNT[dtype.itemsize], 4 * threads, rows * columns
    a, b = np.full(count * rows, 1e-3, dtype), np.full(count * columns, 1e-3, dtype)
    c = np.zeros(tile * threads, dtype)
    each = 2.0 * count * tile
    repeats = max(1, int(1e8 / each))  # 0.1 GFLOP a piece: about a millisecond
    run = kernels.multiply.dispatcher()  # not the kernel itself: a profile in progress is to see none of this
    return each * repeats * chunks / _best(lambda: run(a, b, c, count, columns, tile, repeats, chunks, threads)) / 1e9


def _bandwidth(source: np.ndarray, target: np.ndarray, threads: int) -> float:
    """GB/s of a copy."""
    chunks = max(threads, source.size // CHUNK_ELEMENTS)
    each = source.size // chunks
    run = kernels.copy.dispatcher()
    return 8 * each * chunks / _best(lambda: run(source, target, each, chunks, threads)) / 1e9


def _best(run: Callable, budget: float = 0.02) -> float:
    """Seconds of the fastest of several runs, after one that is not counted."""
    run()
    best, spent = float("inf"), 0.0
    while spent < budget:
        start = time.perf_counter()
        run()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
    return best
