"""Interrupts of what a process does once: importing, compiling and loading; a part of ``benchmarks.interrupts``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from funcnn.kernels.cpu.build.compile import device_function, kernel


@device_function
def twice(x):
    """2 x."""
    return x * 2


@kernel
def doubled(x):
    """x *= 2; compiles fast."""
    for i in range(x.size):
        x[i] = twice(x[i])


FRESH = """
import signal, sys, time
def ring(*given):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, ring)
sys.unraisablehook = lambda raised: None
{ahead}
def work():
{work}
start = time.perf_counter()
try:
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    work()
    signal.setitimer(signal.ITIMER_REAL, 0)
except KeyboardInterrupt:
    pass
signal.setitimer(signal.ITIMER_REAL, 0)
seconds = time.perf_counter() - start
assert signal.getsignal(signal.SIGALRM) is ring, "a handler was left"
first = work()
import threading
import funcnn
made = []
thread = threading.Thread(target=lambda: made.append(work()), daemon=True)  # waits for whatever was left locked
thread.start()
thread.join(60)
assert made == [first], (made, first)
from funcnn.core.context import ctx
assert (ctx.top, ctx.stage, ctx.grad) == (None, None, True) and not funcnn.kernels.cpu.build.compile._lock._is_owned()
for name, module in sorted(sys.modules.items()):
    if name.startswith("funcnn.") and name.count(".") == 1:
        assert getattr(funcnn, name[7:]) is module or name[7:] in ("nn", "layers"), name
print(repr(first), seconds)
"""
USE = """
    import funcnn as fn, numpy as np  # NumPy by itself cannot be imported in two attempts
    x = fn.tensor(np.linspace(-1, 1, 80).astype('f4').reshape(2, 40))
    return fn.nn.functional.softmax(x, 1).numpy().tolist(), fn.jit(lambda x: (x * 2).sum())(x).item()
"""
COMPILE = """
    import numpy as np
    from benchmarks.interrupts_fresh import doubled
    x = np.arange(3.0)
    doubled(x)
    return x.tolist()
"""
STAGES = {  # what stands before the timer, and what is interrupted
    "import": ("", USE),
    "load": ("import funcnn, funcnn.nn", USE),
    "compile": ("import funcnn, numba", COMPILE),
}


def fresh(stage: str, seconds: float, cache: str, root: Path) -> tuple[str, float]:
    """Interrupt a new process after so many seconds of a stage: what it printed, and how long the stage took."""
    ahead, work = STAGES[stage]
    env = {**os.environ, "PYTHONPATH": str(root), "FUNCNN_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(ahead=ahead, work=work), str(seconds)],
        env=env, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.strip()[-600:]}", 0.0
    text, _, took = done.stdout.strip().rpartition(" ")
    return text, float(took)


def in_processes(count: int, seed: int, truth: dict[str, tuple[str, float]] | None = None) -> Iterator[tuple[str, str]]:
    """Interrupts in processes of their own: the stage, and what was wrong.

    truth: what each stage prints and about how long it takes, where that is known; kernels then load from the usual cache.
    """
    rng, root = random.Random(seed), Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as kept:
        if truth is None:
            truth = {}
            for stage in STAGES:
                fresh(stage, 1e6, kept, root)  # fills the cache
                with tempfile.TemporaryDirectory() as empty:
                    truth[stage] = fresh(stage, 1e6, empty if stage == "compile" else kept, root)
        else:
            kept = os.environ.get("FUNCNN_CACHE_DIR", "")

        def once(drawn: tuple[str, float]) -> tuple[str, str]:
            stage, seconds = drawn
            with tempfile.TemporaryDirectory() as empty:
                got, _ = fresh(stage, seconds, empty if stage == "compile" else kept, root)
            return f"a new process: {stage}", "" if got == truth[stage][0] else got

        stages = [list(truth)[number % len(truth)] for number in range(count)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a process for each CPU; the threads here only wait
            yield from pool.map(once, [(stage, rng.uniform(0.001, truth[stage][1])) for stage in stages])
