"""The roofline picture (Williams, Waterman and Patterson, CACM 52(4), 2009): rates over flops a byte, under the limits.

Under the slope of the bandwidth a kernel waits for memory, under the flat line it computes; its distance from the line
above it is what could be gained. Both axes are logarithmic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from funcnn.profiler import report
from funcnn.profiler.limits import MachineLimits, machine_limits
from funcnn.profiler.record import Event

COLORS = {"forward": "#1f6fb4", "backward": "#d1561c"}
DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))


def draw(events: list[Event], path: Path, limit: int | None) -> None:
    """Draw the longest kernels, and operations that ran none, into an image file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot: the picture needs matplotlib; install it with `pip install matplotlib`") from None
    report.check_limit("plot", limit)
    rows = chosen(events, limit)
    figure = Figure(figsize=(10, 6.5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = [(row.flops / row.bytes, row.gflops) for row in rows]
    areas = [30 + 370 * row.time / max(r.time for r in rows) for row in rows]
    low, high = min([0.05, *(x / 3 for x, _ in places)]), max([100.0, *(x * 3 for x, _ in places)])
    counts = sorted({row.threads for row in rows} or {machine_limits().threads})
    for threads in counts:
        _limits(axes, machine_limits(), threads, low, high, named=len(counts) > 1 or threads < machine_limits().threads)
    for row, place, area in zip(rows, places, areas, strict=True):
        marker = "o" if row.kind == "kernel" else "s"
        axes.scatter(*place, s=area, marker=marker, color=COLORS[row.direction], alpha=0.75, linewidths=0, zorder=3)
    _decorate(axes, rows, low, high)
    canvas.draw()
    _label(axes, canvas.get_renderer(), rows, places, [area**0.5 / 2 for area in areas])
    figure.savefig(path)


def chosen(events: list[Event], limit: int | None) -> list[report.Row]:
    """The longest rows of kernels with flops, and of operations that called no kernel."""
    lone = [e for e in events if e.kind == "kernel" or not e.kernels]
    rows = [row for row in report.rows(lone) if row.flops and row.bytes and row.time]
    return sorted(rows, key=lambda row: -row.time)[:limit]


def _limits(axes: Any, limits: MachineLimits, threads: int, low: float, high: float, named: bool) -> None:
    """The measured lines of so many threads, those that the percentages mean, each with its figure on it."""
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
    on = f", {threads} thread{'s' * (threads > 1)}" if named else ""
    single, near = limits.peak(np.float32, threads), limits.bandwidth(0, threads)
    roofs = [(single, "float32", "-"), (limits.peak(np.float64, threads), "float64", "--")]
    for peak, name, dashes in roofs:
        axes.plot([peak / near, high], [peak, peak], dashes, color="0.25", lw=1.3)
        axes.annotate(f"{name} multiply-add{on} {peak:.0f} GFLOP/s", (high, peak), (-4, 3), ha="right", **style)
    slopes = [(limits.bandwidth(threads=threads), "memory", "-"), (near, "last cache", "--")]
    for bandwidth, name, dashes in slopes:
        corner = single / bandwidth
        axes.plot([low, corner], [low * bandwidth, single], dashes, color="0.25", lw=1.3)
        turned = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
        text = f"{name} copy{on} {bandwidth:.0f} GB/s"
        axes.annotate(text, (low * 1.25, low * 1.25 * bandwidth), (0, 5), **turned, **style)


def _decorate(axes: Any, rows: list[report.Row], low: float, high: float) -> None:
    """Scales, names of the axes, and what the marks mean."""
    top = machine_limits().float32_all
    floor = min([top / 1e3, *(row.gflops / 3 for row in rows)])
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, top * 2.5))
    axes.set(
        xlabel="arithmetic intensity, flops a byte",
        ylabel="GFLOP/s",
        title="Roofline: kernels under the machine's measured limits",
    )
    axes.grid(True, which="major", color="0.9", lw=0.6, zorder=0)
    marks = [
        ("o", COLORS["forward"], "forward kernel"),
        ("o", COLORS["backward"], "backward kernel"),
        ("s", "0.6", "operation without a kernel"),
    ]
    for marker, color, name in marks:
        axes.scatter([], [], marker=marker, color=color, label=name)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9, title="area: share of the time", title_fontsize=8)


def _label(axes: Any, renderer: Any, rows: list, places: list, radii: list[float]) -> None:
    """A name beside each mark, where it covers no other name and no mark."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    unit = renderer.points_to_pixels(1.0)
    spots = [axes.transData.transform(place) for place in places]
    taken = [Bbox([s - r * unit, s + r * unit]) for s, r in zip(spots, radii, strict=True)]
    taken += [axes.get_legend().get_window_extent(renderer), *(t.get_window_extent(renderer) for t in axes.texts)]
    inside = axes.get_window_extent(renderer)
    for row, place, radius in zip(rows, places, radii, strict=True):
        tried: list[tuple] = []
        for gap in (5, 12, 22, 36, 52):
            for dx, dy in DIRECTIONS:
                text = axes.annotate(
                    f"{row.name} {row.percent:.0f}%", place, (dx * (gap + radius), dy * (gap + radius)),
                    textcoords="offset points", fontsize=8, zorder=4, color=COLORS[row.direction],
                    ha=("right", "center", "left")[dx + 1], va=("top", "center", "bottom")[dy + 1],
                    bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7},
                    arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the line to the mark
                hits = sum(box.overlaps(other) for other in taken)
                hits += 3 * (not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)))
                tried.append((hits, len(tried), text, box))
            if not min(tried)[0]:
                break
        best = min(tried)
        for found in tried:
            if found is not best:
                found[2].remove()
        taken.append(best[3])
