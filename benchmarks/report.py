"""Tables in markdown, and their places in ``RESULTS.md``: each benchmark owns what stands between its two markers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from time import monotonic

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, all columns but the first to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def put_between(text: str, name: str, body: str) -> str:
    """The text with ``body`` between ``<!-- name -->`` and ``<!-- /name -->``, which are added at the end if missing."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    if opening not in text:
        text = f"{text.rstrip()}\n\n{opening}\n{closing}\n"
    before, rest = text.split(opening, 1)
    if closing not in rest:
        raise ValueError(f"{opening} has no {closing} after it")
    return f"{before}{opening}\n{body.strip()}\n{closing}{rest.split(closing, 1)[1]}"


def write(name: str, body: str) -> None:
    """Put a benchmark's text into ``RESULTS.md``."""
    RESULTS.write_text(put_between(RESULTS.read_text(), name, body))


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """PyTorch's time over ours: above 1, funcnn is faster."""
    return theirs / ours if ours and theirs else None


def mean_ratio(ratios: Iterable[float | None]) -> float | None:
    """The geometric mean of the ratios that there are."""
    known = [r for r in ratios if r]
    return geometric_mean(known) if known else None


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Bystanders:
    """How much of the processors went to others: what the system counts as busy less what this process's children took."""

    def __init__(self) -> None:
        self.start = self.now()

    @staticmethod
    def now() -> tuple[float, float, float]:
        """Seconds on the clock, of all processors busy (nan where the system does not tell), and of ours."""
        try:
            user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
            busy = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            busy = float("nan")
        return monotonic(), busy, sum(os.times()[:4])

    def share(self) -> float:
        """Their share of all processors' time since the start, in percent; children count when they have ended."""
        wall, busy, ours = (after - before for after, before in zip(self.now(), self.start, strict=True))
        return max(0.0, 100 * (busy - ours) / (wall * (os.cpu_count() or 1)))
