"""The start on a new machine: ``python -m benchmarks.cold [--write]``, fresh processes with an empty kernel cache.

What ``python -m funcnn.warmup`` takes to compile every kernel; the first LeNet training step ever, then the same in a second
process, each from before ``import funcnn`` to the end of the step; and ``import funcnn`` above ``import numpy``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.overhead import import_time
from benchmarks.report import processor, table, write
from benchmarks.worker import ROOT

PATIENCE = 480  # seconds, four times the limit of the longest measurement
STEP = """
import time; start = time.perf_counter()
import funcnn as fn
from benchmarks.rows import lenet_step
lenet_step(fn, fn.randn(32, 1, 32, 32), fn.randint(0, 10, (32,)))()
print(time.perf_counter() - start)
"""


def run(cache: str, *command: str) -> tuple[str, int]:
    """The last line that a fresh Python prints with that kernel cache, and how many kernels it compiled."""
    environment = {**os.environ, "FUNCNN_CACHE_DIR": cache, "FUNCNN_LOG_COMPILES": "1"}
    options: dict[str, Any] = {
        "capture_output": True,
        "text": True,
        "cwd": ROOT,
        "env": environment,
        "timeout": PATIENCE,
    }
    try:
        done = subprocess.run([sys.executable, *command], **options)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done within {PATIENCE} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    compiled = sum(line.startswith("funcnn: compiling ") for line in done.stderr.splitlines())
    return (done.stdout.splitlines() or [""])[-1], compiled


def warmup() -> list[list[str]]:
    """A row: all kernels compiled from nothing; what a step after it still compiles should be nothing."""
    with tempfile.TemporaryDirectory() as cache:
        start = perf_counter()
        run(cache, "-m", "funcnn.warmup")
        seconds = perf_counter() - start
        _, compiled = run(cache, "-c", STEP)
    return [["`python -m funcnn.warmup`", f"{seconds:.1f}", "120", f"all ({compiled} in a step after it)"]]


def steps() -> list[list[str]]:
    """Two rows: the first step ever, and in a second process."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for label, limit in (("first LeNet step ever, batch 32", "20"), ("the same in a second process", "2")):
            seconds, compiled = run(cache, "-c", STEP)
            rows.append([label, f"{float(seconds):.2f}", limit, str(compiled)])
    return rows


def imports() -> list[list[str]]:
    """A row: what importing costs above NumPy."""
    over = (import_time("import funcnn") - import_time("import numpy")) / 1e3
    return [["`import funcnn` above `import numpy`", f"{over:.3f}", "0.050", "0"]]


def attempt(measurement: Callable[[], list[list[str]]]) -> list[list[str]]:
    """The rows of a measurement, or one that tells its error."""
    try:
        return measurement()
    except RuntimeError as error:
        return [[measurement.__name__, f"error: {error}", "-", "-"]]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and put it into ``RESULTS.md`` if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    args = parser.parse_args(arguments)
    rows = [row for measurement in (warmup, steps, imports) for row in attempt(measurement)]
    text = (
        f"## Cold start\n\n`python -m benchmarks.cold`: fresh processes with an empty kernel cache. {processor()}, "
        f"{os.cpu_count()} CPUs.\n\n{table(['what', 'seconds', 'limit', 'kernels compiled'], rows)}"
    )
    print(text)
    if args.write:
        write("cold", text)


if __name__ == "__main__":
    main()
