"""Steps beside busy processes: ``python -m benchmarks.neighbours [--write]``, funcnn, PyTorch and, where installed, JAX.

A parallel step waits for its threads, and a thread that spins keeps a core from the process beside it, until the scheduler
makes it wait when it is needed. Each figure is the median of one step, in a process of its own, with no, one and two processes
beside it that count; libraries take turns, in rounds. ``--environment NAME=VALUE`` tries another policy of the thread pool.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter, sleep
from typing import Any

from benchmarks.report import processor, table, write
from benchmarks.worker import ROOT

PATIENCE = 240  # seconds for one figure, compiling included
LIBRARIES = ("funcnn", "torch", "jax")
BUSY = (0, 1, 2)


def convolutional(lib: Any, batch: int) -> tuple[Any, Any, Any]:
    """A small network of two convolutions, its input and its targets."""
    nn = lib.nn
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 10),
    )  # fmt: skip
    return net, lib.randn(batch, 1, 28, 28), lib.randint(0, 10, (batch,))


def gradient(lib: Any) -> Callable[[], Any]:
    """Loss and gradients of a small network, batch 16."""
    net, x, target = convolutional(lib, 16)

    def step() -> Any:
        net.zero_grad()
        loss = lib.nn.functional.cross_entropy(net(x), target)
        loss.backward()
        return loss

    return step


def hessian_vector(lib: Any) -> Callable[[], Any]:
    """The product of the Hessian of a two-layer perceptron's loss with a vector."""
    transform = lib if lib.__name__ == "funcnn" else __import__("torch.func", fromlist=["grad"])
    w1, w2, x = lib.randn(256, 512) * 0.1, lib.randn(512, 256) * 0.1, lib.randn(128, 256)
    direction = lib.randn(256, 512)

    def loss(w: Any) -> Any:
        return ((x @ w).tanh() @ w2).square().mean()

    return lambda: transform.grad(lambda w: (transform.grad(loss)(w) * direction).sum())(w1)


def lenet(batch: int) -> Callable[[Any], Callable[[], Any]]:
    """A training step of LeNet, compiled where the library is funcnn."""

    def make(lib: Any) -> Callable[[], Any]:
        from benchmarks.rows import lenet_step

        step = lenet_step(lib, lib.randn(batch, 1, 32, 32), lib.randint(0, 10, (batch,)))
        return lib.jit(step) if lib.__name__ == "funcnn" else step

    return make


def block(lib: Any) -> Callable[[], Any]:
    """Forward and backward of a residual block of ResNet, 64 channels of 56 x 56, batch 8."""
    nn = lib.nn
    net = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64),
    )  # fmt: skip
    x = lib.randn(8, 64, 56, 56)

    def step() -> Any:
        net.zero_grad()
        (net(x) + x).relu().sum().backward()

    return step


ROWS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "gradient of a small CNN, batch 16, eager": gradient,
    "Hessian-vector product of a perceptron": hessian_vector,
    "LeNet step, batch 1, jit": lenet(1),
    "LeNet step, batch 64, jit": lenet(64),
    "residual block 8x64x56x56, eager": block,
}


def jax_row(row: str) -> Callable[[], Any] | None:
    """The two rows that are functions, written for JAX and compiled; None for those of modules."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 6)
    if row.startswith("Hessian"):
        w1, w2 = jax.random.normal(keys[0], (256, 512)) * 0.1, jax.random.normal(keys[1], (512, 256)) * 0.1
        x, direction = jax.random.normal(keys[2], (128, 256)), jax.random.normal(keys[3], (256, 512))
        loss = lambda w: jnp.square(jnp.tanh(x @ w) @ w2).mean()
        product = jax.jit(jax.grad(lambda w: (jax.grad(loss)(w) * direction).sum()))
        return lambda: product(w1).block_until_ready()
    if not row.startswith("gradient"):
        return None
    conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME")
    pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    shapes = ((8, 1, 3, 3), (16, 8, 3, 3), (784, 10))
    weights = [jax.random.normal(k, s) * 0.1 for k, s in zip(keys, shapes, strict=False)]
    x, target = jax.random.normal(keys[4], (16, 1, 28, 28)), jax.random.randint(keys[5], (16,), 0, 10)

    def cross_entropy(weights: Any) -> Any:
        h = pool(jax.nn.relu(conv(pool(jax.nn.relu(conv(x, weights[0]))), weights[1])))
        return -jax.nn.log_softmax(h.reshape(16, -1) @ weights[2])[jnp.arange(16), target].mean()

    step = jax.jit(jax.value_and_grad(cross_entropy))
    return lambda: jax.block_until_ready(step(weights))


def measure(library: str, row: str, seconds: float) -> float | None:
    """The median milliseconds of a step, in this process."""
    step = jax_row(row) if library == "jax" else ROWS[row](__import__(library))
    if step is None:
        return None
    warm = perf_counter() + 1
    while perf_counter() < warm:
        step()
    times, end = [], perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        step()
        times.append(perf_counter() - start)
    return median(times) * 1e3


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that count, beside what runs inside."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        if busy:
            sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def ask(library: str, row: str, seconds: float, environment: dict[str, str]) -> float | None:
    """One figure from a fresh process; None where the library has no such row."""
    command = [sys.executable, "-m", "benchmarks.neighbours", "--measure", library, row, "--seconds", str(seconds)]
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": PATIENCE}
    done = subprocess.run(command, env={**clean, **environment}, check=True, **options)
    answer = done.stdout.split()[-1]
    return None if answer == "None" else float(answer)


def figures(rows: list[str], rounds: int, seconds: float, environment: dict[str, str]) -> list[list[str]]:
    """A line for each row and library: milliseconds with no neighbour, and how many times longer beside one and two."""
    libraries = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    lines = []
    for row in rows:
        found: dict[tuple[str, int], list[float]] = {}
        for busy in [b for _ in range(rounds) for b in BUSY]:
            with neighbours(busy):
                for library in libraries:
                    answer = ask(library, row, seconds, environment)
                    if answer is not None:
                        found.setdefault((library, busy), []).append(answer)
        for library in libraries:
            if (library, 0) in found:
                quiet, *beside = [median(found[library, busy]) for busy in BUSY]
                ratios = [f"{value:.2f} ({value / quiet:.1f})" for value in beside]
                lines.append([row, library, f"{quiet:.2f}", *ratios])
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and put it into ``RESULTS.md`` if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    parser.add_argument("--rows", default="", help="only rows with this text in their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for one figure")
    parser.add_argument("--environment", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--measure", nargs=2, metavar=("LIBRARY", "ROW"), help="one figure in this process")
    args = parser.parse_args(arguments)
    if args.measure:
        print(measure(*args.measure, args.seconds))
        return
    environment = dict(pair.split("=", 1) for pair in args.environment)
    rows = [row for row in ROWS if args.rows in row]
    lines = figures(rows, args.rounds, args.seconds, environment)
    header = ["milliseconds a step (times the quiet one)", "library", "quiet", "one neighbour", "two neighbours"]
    text = table(header, lines)
    print(text)
    if args.write:
        place = f"{processor()}, {len(os.sched_getaffinity(0))} CPUs"
        write("neighbours", f"## Beside busy processes\n\n`python -m benchmarks.neighbours`, medians of {args.rounds} "
              f"rounds. {place}.\n\n{text}")  # fmt: skip


if __name__ == "__main__":
    main()
