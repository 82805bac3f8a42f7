"""The command: every program in both precisions, spread over processes, so that no later process compiles anything.

Numba holds one compiler lock in a process, so kernels compile side by side only in several processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from funcnn.kernels.cpu.build.cache import cache_directory
from funcnn.kernels.cpu.build.watch import Watch
from funcnn.kernels.cpu.threads.number import available
from funcnn.warmup.programs import DTYPES, PROGRAMS


def compile_one(task: tuple[str, str]) -> tuple[str, str, int]:
    """Run a program in one precision; its name, the precision, and how many kernels were compiled for it."""
    before = Watch.count
    PROGRAMS[task[0]](task[1])
    return (*task, Watch.count - before)


def progress(results: Iterable, total: int, quiet: bool) -> Iterator:
    """The results as they come, with tqdm's bar where it is installed, else a line each."""
    try:
        from tqdm import tqdm
    except ImportError:
        for done, result in enumerate(results, 1):
            if not quiet:
                print(f"[{done}/{total}] {result[0]} ({result[1]})", flush=True)
            yield result
    else:
        every = 0.1 if sys.stderr.isatty() else 10  # seconds; into a file every refresh is a line
        bar = tqdm(results, total=total, unit="program", disable=quiet, mininterval=every)
        for result in bar:
            bar.set_postfix_str(f"{result[0]} ({result[1]})", refresh=False)
            yield result


def main(arguments: list[str] | None = None) -> None:
    """Compile everything and say how much it was."""
    parser = argparse.ArgumentParser(
        prog="python -m funcnn.warmup", description="Compile every CPU kernel into the cache."
    )
    parser.add_argument("-j", "--jobs", type=int, default=available(), help="processes (default: the CPUs)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"expected at least one process, got -j {options.jobs}")
    tasks = [(name, dtype) for name in PROGRAMS for dtype in DTYPES]
    start = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        done = as_completed([pool.submit(compile_one, task) for task in tasks])
        results = progress((future.result() for future in done), len(tasks), options.quiet)
        compiled = sum(result[2] for result in results)
    seconds = time.perf_counter() - start
    print(f"{compiled} kernels compiled in {seconds:.0f} s with {options.jobs} processes, kept in {cache_directory()}")
