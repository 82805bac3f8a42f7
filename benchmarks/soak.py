"""Memory over many eager training steps of LeNet: ``python -m benchmarks.soak [--steps 10000]``.

The module surface with Adam, a fresh batch of 16 each step. The first hundred steps compile, fill the allocator's lists and
warm NumPy; after them the resident memory may move by ``TOLERANCE`` MB at most, at any of twenty samples, or the script fails.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from benchmarks.report import table

SETTLED = 100  # steps after which memory counts
SAMPLES = 20
TOLERANCE = 4.0  # MB; a leak of one parameter gradient (240 KB) a hundred steps would show after 1700


def resident() -> float:
    """The memory of this process in MB; where the system does not tell, the most there has been."""
    import resource
    import sys

    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def soak(steps: int, batch: int = 16) -> list[tuple[int, float, float, float]]:
    """Train so many steps; (step, seconds, resident MB, loss) once settled and then at equal distances."""
    import funcnn as fn
    from benchmarks.rows import lenet

    fn.manual_seed(0)
    model = lenet(fn)
    optimizer = fn.optim.Adam(model.parameters(), lr=1e-3)
    every = max(1, (steps - SETTLED) // SAMPLES)
    samples, start = [], perf_counter()
    for step in range(1, steps + 1):
        x, target = fn.randn(batch, 1, 32, 32), fn.randint(0, 10, (batch,))
        optimizer.zero_grad()
        loss = fn.nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        if step >= SETTLED and (step - SETTLED) % every == 0:
            samples.append((step, perf_counter() - start, resident(), loss.item()))
    return samples


def main(arguments: list[str] | None = None) -> None:
    """Train, print the samples, and fail when memory moved. Raises ``SystemExit`` then."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args(arguments)
    if args.steps < SETTLED + SAMPLES:
        parser.error(f"--steps must be at least {SETTLED + SAMPLES}: memory counts after {SETTLED}")
    samples = soak(args.steps, args.batch)
    lines = [[str(step), f"{t:.1f}", f"{mb:.1f}", f"{loss:.3f}"] for step, t, mb, loss in samples]
    print(table(["step", "seconds", "resident, MB", "loss"], lines))
    growth = max(abs(mb - samples[0][2]) for _, _, mb, _ in samples)
    verdict = (
        f"from step {SETTLED} to {samples[-1][0]} memory moved by {growth:.2f} MB at most (allowed: {TOLERANCE:.0f})"
    )
    print(f"\n{verdict}")
    if growth > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
