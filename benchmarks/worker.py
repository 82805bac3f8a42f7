"""One library in a process of its own: it takes one command a line on its input and answers each with a line of JSON.

``{"do": "prepare", "row": ..., "dtype": ...}`` makes a row and runs it until its times are steady; ``{"do": "time", "phase": ...,
"seconds": ...}`` answers with the median time of one call; ``{"do": "limits"}`` with what the machine can do. An exception is
answered as ``{"error": ...}``, and the process goes on.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.rows import ROWS, Case

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 1e-3  # seconds: a sample repeats a short call until it lasts that long
PATIENCE = 240  # seconds that an answer may take, compiling included


class Bench:
    """What runs inside the process."""

    def __init__(self, library: str, threads: int):
        self.lib: Any = importlib.import_module(library)
        self.lib.set_num_threads(threads)
        self.case = Case()
        self.repeats: dict[str, int] = {}

    def prepare(self, row: str, dtype: str) -> dict[str, Any]:
        """Make the row and warm both phases; tells what each does, and what is lost to rounding."""
        self.case, self.repeats = Case(), {}  # lets the last row's memory go first
        self.lib.set_default_dtype(getattr(self.lib, dtype))
        self.case = ROWS[row](self.lib)
        phases = {name: phase for name in ("forward", "train") if (phase := getattr(self.case, name))}
        for name in phases:
            self.repeats[name] = 1
            self.warm(name)
        does: dict[str, Any] = {name: {"flops": phase.flops, "bytes": phase.bytes} for name, phase in phases.items()}
        if self.case.lost:
            with self.lib.no_grad():
                does["lost"] = self.case.lost()
        return does

    def warm(self, phase: str) -> None:
        """Call until two times in a row agree to a tenth, for a second at most; then choose how many calls make a sample."""
        self.sample(phase)
        start, times = perf_counter(), [self.sample(phase), self.sample(phase)]
        while abs(times[-1] - times[-2]) > 0.1 * times[-1] and perf_counter() - start < 1:
            times.append(self.sample(phase))
        self.repeats[phase] = max(1, round(SAMPLE / min(times) + 0.5))

    def sample(self, phase: str) -> float:
        """Seconds for one call, over a sample."""
        call, repeats = getattr(self.case, phase).call, self.repeats[phase]
        with self.lib.no_grad() if phase == "forward" else nullcontext():
            start = perf_counter()
            for _ in range(repeats):
                call()
            return (perf_counter() - start) / repeats

    def time(self, phase: str, seconds: float) -> float:
        """The median over samples for so long, at least one; a sample before them is not counted."""
        self.sample(phase)
        start, times = perf_counter(), [self.sample(phase)]
        while perf_counter() - start < seconds:
            times.append(self.sample(phase))
        return median(times)

    def limits(self, dtype: str) -> dict[str, float]:
        """What this machine reaches with so many threads: flops a second, bytes a second copied in memory and in the cache."""
        from funcnn.profiler import machine_limits

        measured, threads = machine_limits(), self.lib.get_num_threads()
        return {
            "flops": measured.peak(dtype, threads) * 1e9,
            "memory": measured.bandwidth(threads=threads) * 1e9,
            "cache": measured.bandwidth(0, threads) * 1e9,
            "cache_bytes": measured.cache_bytes / 2,
        }

    def pace(self, dtype: str) -> float:
        """Flops a second that the threads reach at this moment."""
        import numpy as np

        from funcnn.profiler.limits import current_peak

        return current_peak(np.dtype(dtype), self.lib.get_num_threads()) * 1e9


def serve(library: str, threads: int) -> None:
    """Answer commands until the input ends; whatever a library prints goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bench = Bench(library, threads)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(bench, command.pop("do"))(**command)
        except Exception as error:
            text = str(error).splitlines()
            answer = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        print(json.dumps(answer), file=answers)


class Worker:
    """A library's process seen from outside; it is started when first asked, and anew when it has ended.

    Between answers it is stopped by a signal, for OpenBLAS' and OpenMP's threads spin on for a while after their work.
    """

    def __init__(self, library: str, threads: int, root: Path = ROOT):
        self.library, self.threads, self.root = library, threads, root
        self.process: subprocess.Popen | None = None

    def ask(self, **command: Any) -> Any:
        """The answer to a command. Raises ``RuntimeError`` when that is an error, or the process ends or stays silent."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it ended between the rows; reading tells
            pass
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.end()
            raise RuntimeError(f"no answer within {PATIENCE} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)
            raise RuntimeError(f"the process ended with {self.end()}")
        self.process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def start(self) -> None:
        """Start the process, its thread pools as large as asked."""
        self.end()
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        command = [sys.executable, "-m", "benchmarks.worker", self.library, str(self.threads)]
        environment = {**os.environ, **dict.fromkeys(names, str(self.threads)), "PYTHONPATH": str(self.root)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=self.root, env=environment, **pipes)

    def end(self) -> int | None:
        """End the process, if it runs; its exit code if it had ended by itself."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        process.kill()
        process.communicate()
        return process.returncode


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
