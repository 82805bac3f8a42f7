"""The profile as aligned text, and the sums of like events that the roofline picture shows, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from funcnn.profiler.record import Event


@dataclass
class Row:
    """Events that are alike, added up."""

    kind: str
    name: str
    direction: str
    where: str  # what they were grouped by besides the name: path, shapes or ""
    calls: int = 0
    time: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    compute: float = 0.0  # seconds that the machine's limits would allow
    memory: float = 0.0
    best: float = 0.0
    threads: int = 1  # the most that one of them was allowed

    def add(self, event: Event) -> None:
        """One more event."""
        compute, memory = event.bounds
        self.calls += 1
        self.time += event.seconds
        self.flops += event.flops
        self.bytes += event.bytes
        self.compute += compute
        self.memory += memory
        self.best += max(compute, memory)
        self.threads = max(self.threads, event.threads)

    @property
    def mean(self) -> float:
        """Seconds a call."""
        return self.time / self.calls

    @property
    def gflops(self) -> float:
        """GFLOP/s."""
        return self.flops / self.time / 1e9 if self.time else 0.0

    @property
    def gbs(self) -> float:
        """GB/s."""
        return self.bytes / self.time / 1e9 if self.time else 0.0

    @property
    def percent(self) -> float:
        """The share of the binding limit that was reached."""
        return 100 * self.best / self.time if self.time else 0.0

    @property
    def limit(self) -> str:
        """The limit that binds on the whole."""
        return "compute" if self.compute > self.memory else "memory" if self.memory else ""


COLUMNS = ("time", "mean", "calls", "flops", "bytes", "gflops", "gbs", "percent", "name")
GROUPS = ("name", "path", "shapes")


def rows(events: Iterable[Event], by: str = "name") -> list[Row]:
    """Events of one kind, name and direction (and path, or shapes) added up."""
    found: dict[Any, Row] = {}
    for event in events:
        where = {"path": event.path, "shapes": " ".join(str(s).replace(" ", "") for s in event.shapes)}.get(by, "")
        key = (event.kind, event.name, event.direction, where)
        row = found.get(key)
        if row is None:
            row = found[key] = Row(*key)
        row.add(event)
    return list(found.values())


def check_limit(what: str, limit: Any) -> None:
    """Refuse a number of rows that is none. Raises ``ValueError``."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"{what}: limit must be an int of 0 or more, or None for all rows, got {limit!r}")


def table(events: list[Event], wall: float, sort_by: str, limit: int | None, by: str, kind: str | None) -> str:
    """See ``profile.table``."""
    for name, value, known in (
        ("sort_by", sort_by, COLUMNS), ("by", by, GROUPS), ("kind", kind, (None, "operation", "kernel")),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"table: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    check_limit("table", limit)
    parts = []
    for each in ("operation", "kernel") if kind is None else (kind,):
        ranked = rows((e for e in events if e.kind == each), by)
        ranked.sort(key=lambda row: getattr(row, sort_by), reverse=sort_by != "name")
        parts.append("\n".join(_block(each, ranked, limit, by, wall)))
    return "\n\n".join(parts) + _footer(events, wall)


def _block(kind: str, ranked: list[Row], limit: int | None, by: str, wall: float) -> list[str]:
    """The lines of one kind, its columns as wide as they must be."""
    shown = ranked if limit is None else ranked[:limit]
    head = [kind, *([] if by == "name" else [by]), "", "calls", "time ms", "wall %", "mean us", "MFLOP", "MB", "GFLOP/s", "GB/s",
            "limit", "% of it"]  # fmt: skip
    cells = [_cells(row, by, wall) for row in shown]
    texts = 2 if by == "name" else 3
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < texts else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in [head, *cells]
    ]
    lines.insert(1, "-" * len(lines[0]))
    if len(shown) < len(ranked):
        rest = ranked[len(shown) :]
        lines.append(f"... and {len(rest)} more, {sum(r.time for r in rest) * 1e3:.3f} ms")
    return [line.rstrip() for line in lines]


def _cells(row: Row, by: str, wall: float) -> list[str]:
    share = 100 * row.time / wall if wall else 0.0
    numbers = [
        f"{row.time * 1e3:.3f}",
        f"{share:.1f}",
        f"{row.mean * 1e6:.1f}",
        f"{row.flops / 1e6:.2f}",
        f"{row.bytes / 1e6:.2f}",
    ]
    rates = [f"{row.gflops:.1f}", f"{row.gbs:.1f}", row.limit, f"{row.percent:.1f}" if row.limit else ""]
    return [row.name, *([] if by == "name" else [row.where]), row.direction, str(row.calls), *numbers, *rates]


def _footer(events: list[Event], wall: float) -> str:
    """What the lines add up to, and what did not belong."""
    outer = [e for e in events if not e.parent]
    busy = sum(e.seconds for e in outer)
    flops, size = (sum(getattr(e, what) for e in outer) for what in ("flops", "bytes"))
    text = f"\n\n{wall * 1e3:.3f} ms of wall time, {busy * 1e3:.3f} ms in operations and kernels"
    text += f"; {flops / 1e6:.2f} MFLOP, {size / 1e6:.2f} MB"
    cold = [e for e in events if e.cold and e.kind == "kernel"]
    if cold:
        spent = sum(e.seconds for e in cold) * 1e3
        text += f"\n{len(cold)} kernel calls compiled or loaded their kernel, {spent:.1f} ms of the time above; "
        text += "run the code once before profiling it to leave that out"
    return text
