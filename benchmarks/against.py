"""This checkout beside another one: ``python -m benchmarks.against CHECKOUT [--rows REGEX] [--rounds N] [--seconds S]``.

Every row of ``benchmarks.kernels`` that both have, each checkout in a process of its own, rounds interleaved; the one that
waits is stopped. A figure is the median over rounds, the ratio this checkout's time over the other's: above 1 it is slower. The
spread is that of the rounds' own ratios, from the lowest to the highest: a row is slower where it lies above 1 as a whole.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from benchmarks.report import table
from benchmarks.rows import ROWS
from benchmarks.worker import ROOT, Worker

PHASES = ("forward", "train")
SLOWER = 1.05  # from this median on, with a spread above 1, a row is listed
HEADER = ["row", "forward, ms", "other", "ratio", "spread", "forward + backward, ms", "other", "ratio", "spread"]


def compare(workers: dict[str, Worker], row: str, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """``{phase: {checkout: [seconds, ...]}}``, for the phases that the row has in both."""
    does = [set(worker.ask(do="prepare", row=row, dtype="float32")) for worker in workers.values()]
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for phase in PHASES:
            if all(phase in phases for phases in does):
                times = found.setdefault(phase, {name: [] for name in workers})
                for name, worker in workers.items():
                    times[name].append(worker.ask(do="time", phase=phase, seconds=seconds))
    return found


def cells(row: str, found: dict[str, dict[str, list[float]]]) -> list[str]:
    """A row of the table."""
    line = [row]
    for phase in PHASES:
        if phase not in found:
            line += ["-"] * 4
            continue
        here, there = found[phase]["here"], found[phase]["other"]
        ratios = [a / b for a, b in zip(here, there, strict=True)]
        line += [f"{median(here) * 1e3:.3f}", f"{median(there) * 1e3:.3f}", f"{median(ratios):.2f}"]
        line.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
    return line


def slower(results: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """The rows and phases that took longer in every round, by SLOWER or more in the median."""
    names = []
    for row, found in results.items():
        for phase, times in found.items():
            ratios = [a / b for a, b in zip(times["here"], times["other"], strict=True)]
            if median(ratios) >= SLOWER and min(ratios) > 1:
                names.append(f"{row}, {phase}: {median(ratios):.2f}")
    return names


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="the root of the other checkout")
    parser.add_argument("--rows", default="", help="only rows in which this pattern is found")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.02, help="for one figure")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    roots = {"here": ROOT, "other": args.checkout.resolve()}
    workers = {name: Worker("funcnn", args.threads, root) for name, root in roots.items()}
    results: dict[str, Any] = {}
    try:
        for row in (row for row in ROWS if re.search(args.rows, row)):
            try:
                results[row] = compare(workers, row, args.rounds, args.seconds)
                print("  ".join(cells(row, results[row])), file=sys.stderr, flush=True)
            except RuntimeError as error:  # the other checkout lacks the row
                print(f"{row}: left out, {error}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    print(table(HEADER, [cells(row, found) for row, found in results.items()]))
    for phase in PHASES:
        times = [found[phase] for found in results.values() if phase in found]
        if times:
            ratios = [median(t["here"]) / median(t["other"]) for t in times]
            print(f"- {phase}: geometric mean of {len(ratios)} ratios {geometric_mean(ratios):.3f}")
    print("slower:", *(slower(results) or ["none"]), sep="\n- ")


if __name__ == "__main__":
    main()
