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


def draw(events: list[Event], path: Path, limit: int) -> None:
    """Draw the longest kernels, and operations that ran none, into an image file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot: the picture needs matplotlib; install it with `pip install matplotlib`") from None
    rows = chosen(events, limit)
    figure = Figure(figsize=(10, 6.5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    intensities = [row.flops / row.bytes for row in rows]
    low, high = min([0.05, *(i / 3 for i in intensities)]), max([100.0, *(i * 3 for i in intensities)])
    _limits(axes, machine_limits(), low, high)
    for row, intensity in zip(rows, intensities, strict=True):
        marker = "o" if row.kind == "kernel" else "s"
        area = 30 + 370 * (row.time / max(r.time for r in rows))
        axes.scatter(
            intensity,
            row.gflops,
            s=area,
            marker=marker,
            color=COLORS[row.direction],
            alpha=0.75,
            linewidths=0,
            zorder=3,
        )
    _decorate(axes, rows, low, high)
    canvas.draw()
    _label(axes, canvas.get_renderer(), rows, intensities)
    figure.savefig(path)


def chosen(events: list[Event], limit: int) -> list[report.Row]:
    """The longest rows of kernels with flops, and of operations without a kernel."""
    inner = [e for e in events if e.kind == "kernel"]
    with_kernel = {e.parent for e in inner}
    lone = [e for e in events if e.kind == "operation" and e.name not in with_kernel]
    rows = [row for row in report.rows([*inner, *lone]) if row.flops and row.bytes and row.time]
    return sorted(rows, key=lambda row: -row.time)[:limit]


def _limits(axes: Any, limits: MachineLimits, low: float, high: float) -> None:
    """The measured lines of all threads, each with its figure on it."""
    x = np.geomspace(low, high, 200)
    roofs = [(limits.float32_all, "float32", "-"), (limits.float64_all, "float64", "--")]
    slopes = [(limits.copy_all, "memory", "-"), (limits.cached_copy_all, "last cache", "--")]
    top = limits.float32_all
    for peak, name, style in roofs:
        axes.plot(
            x[x * limits.cached_copy_all >= peak],
            np.full((x * limits.cached_copy_all >= peak).sum(), peak),
            style,
            color="0.25",
            lw=1.3,
        )
        axes.annotate(
            f"{name} multiply-add {peak:.0f} GFLOP/s",
            (high, peak),
            (-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for bandwidth, name, style in slopes:
        below = x[x * bandwidth <= top]
        axes.plot(below, below * bandwidth, style, color="0.25", lw=1.3)
        at = low * 1.25
        axes.annotate(
            f"{name} copy {bandwidth:.0f} GB/s", (at, at * bandwidth), (0, 5), textcoords="offset points", fontsize=8,
            rotation=45, rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip


def _decorate(axes: Any, rows: list[report.Row], low: float, high: float) -> None:
    """Scales, names of the axes, and what the marks mean."""
    top = machine_limits().float32_all
    floor = min([top / 1e4, *(row.gflops / 3 for row in rows)])
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


def _label(axes: Any, renderer: Any, rows: list[report.Row], intensities: list[float]) -> None:
    """A name beside each mark, where it covers no other name and no mark."""
    spots = (
        axes.transData.transform([(i, row.gflops) for i, row in zip(intensities, rows, strict=True)]) if rows else []
    )
    legend = axes.get_legend().get_window_extent(renderer)
    taken = [legend, *(t.get_window_extent(renderer) for t in axes.texts)]
    inside = axes.get_window_extent(renderer)
    for row, intensity in zip(rows, intensities, strict=True):
        tried: list[tuple] = []
        for distance in (8, 16, 26, 40, 56):
            for dx, dy in DIRECTIONS:
                text = axes.annotate(
                    f"{row.name} {row.percent:.0f}%", (intensity, row.gflops), (dx * distance, dy * distance),
                    textcoords="offset points", fontsize=8, zorder=4, color=COLORS[row.direction],
                    ha=("right", "center", "left")[dx + 1], va=("top", "center", "bottom")[dy + 1],
                    bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
                    arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
                box = text.get_window_extent(renderer)
                hits = sum(box.overlaps(other) for other in taken) + sum(bool(box.contains(*spot)) for spot in spots)
                hits += 3 * (not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)))
                tried.append((hits, len(tried), text, box))
                if not hits:
                    break
            if not tried[-1][0]:
                break
        best = min(tried, key=lambda t: t[:2])
        for _, _, text, _ in tried:
            if text is not best[2]:
                text.remove()
        taken.append(best[3])
