"""What one eager operation costs, funcnn beside PyTorch: ``python -m benchmarks.overhead``.

Each library runs in processes of its own (their thread pools disturb each other), in interleaved rounds with one thread; a
figure is the median over rounds of the best of several repeats. Times are microseconds for one operation on 10 float32
elements, without and with gradient recording; then the time of ``import`` above NumPy's, and of one LeNet training step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path
from statistics import median
from typing import Any

OPERATIONS = {
    "x + y": "x + y",
    "x * 2.0": "x * 2.0",
    "1.0 - x": "1.0 - x",
    "x * y": "x * y",
    "x.exp()": "x.exp()",
    "x.sigmoid()": "x.sigmoid()",
    "x.erf()": "x.erf()",
    "x.relu()": "x.relu()",
    "x > y": "x > y",
    "x.sum()": "x.sum()",
    "x.reshape(2, 5)": "x.reshape(2, 5)",
    "x[2:5]": "x[2:5]",
}
LIMITS = {"plain": 5.0, "recorded": 8.0}
ELEMENTWISE = ("x + y", "x * 2.0", "1.0 - x", "x * y", "x.exp()", "x.sigmoid()", "x.erf()", "x.relu()", "x > y")


def best(statement: str, names: dict[str, Any], number: int = 2000, repeats: int = 7) -> float:
    """Microseconds for one run of a statement, the best of several repeats."""
    timer = timeit.Timer(statement, globals=names)
    return min(timer.repeat(repeats, number)) / number * 1e6


def measure(library: str) -> dict[str, float]:
    """All figures of one library, in this process."""
    if library == "torch":
        import torch as lib

        lib.set_num_threads(1)
    else:
        import funcnn as lib
    found = {}
    y = lib.ones(10)
    for label, statement in OPERATIONS.items():
        found[f"plain {label}"] = best(statement, {"x": lib.ones(10), "y": y})
        found[f"recorded {label}"] = best(statement, {"x": lib.ones(10, requires_grad=True), "y": y})
    found["backward of 10 operations"] = best(
        "z = x\nfor _ in range(10): z = z * y\nz.sum().backward()",
        {"x": lib.ones(10, requires_grad=True), "y": y}, number=100,
    )  # fmt: skip
    step = lenet_step(lib)
    found["LeNet step, batch 32, eager (ms)"] = best("step()", {"step": step}, number=3, repeats=5) / 1e3
    if library == "funcnn":
        found["LeNet step, batch 32, jit (ms)"] = best("step()", {"step": lib.jit(step)}, number=3, repeats=5) / 1e3
    return found


def lenet_step(lib: Any) -> Any:
    """A training step of LeNet through the module surface, the same text for both libraries."""
    nn, F = lib.nn, lib.nn.functional
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(576, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    opt = lib.optim.AdamW(model.parameters(), lr=1e-3)
    x, target = lib.randn(32, 1, 32, 32), lib.randint(0, 10, (32,))

    def step() -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        opt.step()
        return loss

    step()
    return step


def import_time(code: str) -> float:
    """Milliseconds that a fresh interpreter takes for an import statement, the best of eight."""
    program = f"import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as installed: bytecode is kept
    with tempfile.TemporaryDirectory() as kept:
        env["PYTHONPYCACHEPREFIX"] = kept
        command = [sys.executable, "-c", program]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=env) for _ in range(8)]
    return min(float(done.stdout) for done in runs) * 1e3


def in_process(library: str) -> dict[str, float]:
    """``measure`` in a process of its own, with one thread."""
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.overhead", "--measure", library]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ, **single})
    return json.loads(done.stdout.splitlines()[-1])


def has_torch() -> bool:
    """Whether PyTorch is there to compare with."""
    return subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0


def main(rounds: int) -> None:
    """Measure in interleaved rounds and print a table."""
    libraries = ["funcnn", "torch"] if has_torch() else ["funcnn"]
    gathered: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
    for _ in range(rounds):
        for library in libraries:
            gathered[library].append(in_process(library))
    figures = {library: {k: median(run[k] for run in runs) for k in runs[0]} for library, runs in gathered.items()}
    print("| microseconds, 10 float32 elements | funcnn | torch | funcnn / torch |")
    print("| --- | ---: | ---: | ---: |")
    for label, ours in figures["funcnn"].items():
        theirs = figures.get("torch", {}).get(label.replace(", jit", ", eager"))
        beside = f"{theirs:.2f} | {ours / theirs:.2f}" if theirs else "- | -"
        print(f"| {label} | {ours:.2f} | {beside} |")
    for kind, limit in LIMITS.items():
        worst = max(figures["funcnn"][f"{kind} {label}"] for label in ELEMENTWISE)
        print(f"elementwise, {kind}: at most {worst:.2f} us (limit {limit:.0f} us)")
    numpy_ms, ours_ms = import_time("import numpy"), import_time("import funcnn")
    print(
        f"import numpy {numpy_ms:.0f} ms, import funcnn {ours_ms:.0f} ms: {ours_ms - numpy_ms:.0f} ms more (limit 50 ms)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=("funcnn", "torch"))
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
    else:
        main(arguments.rounds)
