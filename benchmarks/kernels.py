"""Every kernel beside PyTorch: ``python -m benchmarks.kernels [--rows REGEX] [--rounds N] [--quick] [--json PATH] [--write]``.

Each library runs in a process of its own, with the same number of threads; rounds are interleaved (funcnn, torch, funcnn, ...),
the one that waits is stopped, and a figure is the median over rounds. A ratio is PyTorch's time over funcnn's. ``limit`` is
the share of what the machine can do: the time that the flops take at the measured peak or the bytes at the measured copy
bandwidth (of the cache, when they fit half of it), whichever is longer, over the measured time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

from benchmarks.notes import NOTES, SHORTFALLS
from benchmarks.report import Bystanders, mean_ratio, number, processor, ratio, table, write
from benchmarks.rows import EXTRA, MAIN, ROWS
from benchmarks.worker import Worker

PHASES = ("forward", "train")
STEADY = 0.93  # of the measured peak
TRIES = 5
WANTED = 70  # percent of the limit that a row should reach
HEADER = [
    "row", "forward, ms", "torch", "ratio", "forward + backward, ms", "torch", "ratio", "GFLOP/s", "GB/s", "% of limit",
    "error (torch), 1e-7",
]  # fmt: skip


def measure(workers: dict[str, Worker], row: str, dtype: str, rounds: int, seconds: float) -> dict[str, Any]:
    """All times of a row: ``{library: {phase: [seconds, ...], "does": ...}}``; an error ends that library's part only."""
    found: dict[str, Any] = {library: {phase: [] for phase in PHASES} for library in workers}

    def ask(library: str, **command: Any) -> Any:
        try:
            return workers[library].ask(**command)
        except RuntimeError as error:
            found[library]["error"] = str(error)

    for library in workers:
        found[library]["does"] = ask(library, do="prepare", row=row, dtype=dtype) or {}
    for _ in range(rounds):
        for phase in PHASES:
            for library, figures in found.items():
                if phase in figures["does"] and "error" not in figures:
                    time = ask(library, do="time", phase=phase, seconds=seconds)
                    figures[phase] += [time] if time is not None else []
    return found


def steadily(
    workers: dict[str, Worker], row: str, dtype: str, rounds: int, seconds: float, flops: float
) -> tuple[dict[str, Any], bool]:
    """``measure`` while the threads reach STEADY of ``flops`` before and after, and whether they did in the end.

    A virtual machine's CPUs are at times two halves of one core: what is measured then says nothing about the code.
    """
    found: dict[str, Any] = {}
    for _ in range(TRIES):
        for _ in range(TRIES):
            if workers["funcnn"].ask(do="pace", dtype=dtype) >= STEADY * flops:
                break
            sleep(3)
        found = measure(workers, row, dtype, rounds, seconds)
        if workers["funcnn"].ask(do="pace", dtype=dtype) >= STEADY * flops:
            return found, True
    return found, False


def summary(found: dict[str, Any], limits: dict[str, float]) -> dict[str, Any]:
    """Medians, ratios and what funcnn reaches: ``{phase: {"ours", "torch", "ratio", "gflops", "gbs", "limit"}}``."""
    row: dict[str, Any] = {name: figures["error"] for name, figures in found.items() if "error" in figures}
    row["lost"] = [figures["does"].get("lost") for figures in found.values()]
    for phase in PHASES:
        times = {name: median(figures[phase]) for name, figures in found.items() if figures[phase] and name not in row}
        ours, theirs = times.get("funcnn"), times.get("torch")
        row[phase] = {"ours": ours, "torch": theirs, "ratio": ratio(ours, theirs)}
        if ours:
            row[phase] |= reached(found["funcnn"]["does"][phase], ours, limits)
    return row


def reached(does: dict[str, float], seconds: float, limits: dict[str, float]) -> dict[str, float | None]:
    """GFLOP/s, GB/s and the share of the limit that binds; None for what was not counted."""
    bandwidth = limits["cache" if does["bytes"] <= limits["cache_bytes"] else "memory"]
    least = max(does["flops"] / limits["flops"], does["bytes"] / bandwidth)
    return {
        "gflops": does["flops"] / seconds / 1e9 or None,
        "gbs": does["bytes"] / seconds / 1e9 or None,
        "limit": 100 * least / seconds or None,
    }


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """A row's cells; an error stands in the place of the first time."""
    line = [name]
    for phase in PHASES:
        figures = row[phase]
        for library, key in (("funcnn", "ours"), ("torch", "torch")):
            short = f"error: {row[library][:80]}" if phase == "forward" and library in row else None
            line.append(short or number(figures[key] and figures[key] * 1e3, 3))
        line.append(number(figures["ratio"]))
    for key in ("gflops", "gbs", "limit"):
        both = [number(row[phase].get(key), 0 if key != "gbs" else 1) for phase in PHASES if row[phase]["ours"]]
        line.append(" / ".join(both) if any(cell != "-" for cell in both) else "-")
    lost = [number(share * 1e7, 1) for share in row["lost"] if share is not None]
    return [*line, f"{lost[0]} ({', '.join(lost[1:])})" if lost[1:] else lost[0] if lost else "-"]


def section(rows: dict[str, dict[str, Any]], names: Iterable[str]) -> str:
    """The table of those rows that were measured; nothing when none was."""
    lines = [cells(name, rows[name]) for name in names if name in rows]
    return table(HEADER, lines) if lines else ""


def means(rows: Iterable[dict[str, Any]]) -> str:
    """The geometric means of the ratios, and how many rows are at least level."""
    lines, rows = [], list(rows)
    for phase, label in zip(PHASES, ("forward", "forward + backward"), strict=True):
        ratios = [row[phase]["ratio"] for row in rows if row[phase]["ratio"]]
        level = sum(round(r, 2) >= 1 for r in ratios)
        lines.append(
            f"- {label}: geometric mean {number(mean_ratio(ratios))}, {level} of {len(ratios)} at 1.0 or better"
        )
    return "\n".join(lines)


def behind(rows: dict[str, dict[str, Any]]) -> str:
    """Rows below 1.0 with the reason, where one is noted."""
    lines = []
    for name, row in rows.items():
        slow = [f"{row[phase]['ratio']:.2f} {phase}" for phase in PHASES if round(row[phase]["ratio"] or 1, 2) < 1]
        if slow:
            reason = NOTES.get(name, "no reason noted yet")
            lines.append(f"- {name} ({', '.join(slow).replace('train', 'forward + backward')}): {reason}")
    return "\n".join(["### Rows behind, and why", "", *lines]) if lines else ""


def below(rows: dict[str, dict[str, Any]]) -> str:
    """Rows that reach less of the limit than is asked for, with the reason, where one is noted."""
    lines = []
    for name, row in rows.items():
        shares = {phase: row[phase].get("limit") for phase in PHASES}
        if any(share and share < WANTED for share in shares.values()):
            both = " / ".join(number(share, 0) for share in shares.values() if share)
            lines.append(f"- {name} ({both} %): {SHORTFALLS.get(name, 'no reason noted yet')}")
    return "\n".join([f"### Rows below {WANTED} % of the limit that binds", "", *lines]) if lines else ""


def release(name: str) -> str:
    """The version of a package, or a word."""
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "absent"


def document(
    rows: dict[str, dict[str, Any]],
    limits: dict[str, float],
    args: argparse.Namespace,
    others: float,
    unsteady: list[str],
) -> str:
    """The whole text: how it was measured, both tables, the rows behind."""
    python = ".".join(map(str, sys.version_info[:2]))
    versions = ", ".join(f"{name} {release(name)}" for name in ("numpy", "numba", "torch"))
    told = (
        f"`python -m benchmarks.kernels`, {args.dtype}, {args.threads} threads, {args.rounds} interleaved rounds, medians; "
        f"each library in a process of its own.\n{processor()}, Python {python}, {versions}.\nMeasured limits: "
        f"{limits['flops'] / 1e9:.0f} GFLOP/s ({args.dtype}); copies, read and written, "
        f"{limits['memory'] / 1e9:.1f} GB/s in memory, "
        f"{limits['cache'] / 1e9:.1f} within {limits['cache_bytes'] / 2**20:.0f} MiB. "
        f"Meanwhile other processes took {others:.0f} % of the CPUs.\n"
        "Ratio: PyTorch's time over funcnn's. GFLOP/s, GB/s and the share of the limit that binds are funcnn's, forward /\n"
        "forward + backward; flops are the direct method's, bytes the least that must move.\n"
        "Error: the largest of a convolution's outputs against float64, as a share of the largest of them."
    )
    if not args.quick:
        told += (
            f"\nRows are measured again until the threads reach {STEADY:.0%} of the measured peak before and after, {TRIES}"
            f" times at most; not so: {', '.join(unsteady) or 'none'}."
        )
    main, more = section(rows, MAIN), section(rows, EXTRA)
    parts = ["## Kernels", told, main, main and means(row for name, row in rows.items() if name in MAIN)]
    parts += [more and f"### More rows\n\n{more}", behind(rows), below(rows)]
    return "\n\n".join(part for part in parts if part)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; ``names`` are the rows that the pattern finds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", help="only rows in which this pattern is found")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each library (all)"
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/RESULTS.md")
    args = parser.parse_args(arguments)
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.names = [name for name in ROWS if re.search(args.rows, name)]
    if not args.names:
        parser.error(f"--rows {args.rows!r} finds none of: {', '.join(ROWS)}")
    if args.write and len(args.names) < len(ROWS):
        parser.error("--write keeps whole tables; leave --rows out")
    return args


def has_torch() -> bool:
    """Whether PyTorch is there to compare with."""
    return subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure, print, and keep what was asked to be kept; returns the rows."""
    args = parse(arguments)
    workers = {name: Worker(name, args.threads) for name in ("funcnn", *["torch"] * has_torch())}
    found, rows, others = {}, {}, Bystanders()
    unsteady: list[str] = []
    try:
        limits = workers["funcnn"].ask(do="limits", dtype=args.dtype)
        for name in args.names:
            if args.quick:
                found[name] = measure(workers, name, args.dtype, args.rounds, 0.005)
            else:
                found[name], steady = steadily(workers, name, args.dtype, args.rounds, 0.02, limits["flops"])
                unsteady += [] if steady else [name]
            rows[name] = summary(found[name], limits)
            print("  ".join(cells(name, rows[name])), file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    text = document(rows, limits, args, others.share(), unsteady)
    print(text)
    if args.json:
        args.json.write_text(json.dumps({"limits": limits, "rows": rows, "rounds": found}, indent=1))
    if args.write:
        write("kernels", text)
    return rows


if __name__ == "__main__":
    main()
