"""How a tensor prints: PyTorch's layout, digits and summaries.

Numbers of one tensor share a width and a notation, found from the finite non-zero ones: integers as ``1.``, scientific
where they span more than three decades or reach beyond 1e8 or below 1e-4, else with ``precision`` digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Options:
    """Digits after the point, elements before summarising, edge items then shown, line width, notation (None: choose)."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {"default": Options(), "short": Options(precision=2, edgeitems=2), "full": Options(threshold=math.inf)}
_current = [Options()]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Changes how tensors print, from a ``profile`` ("default", "short", "full") or one setting at a time."""
    base = _current[0]
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {sorted(_PROFILES)}, got {profile!r}")
        base = replace(_PROFILES[profile], linewidth=80)
    given: dict[str, Any] = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _current[0] = replace(base, **{k: v for k, v in given.items() if v is not None}, sci_mode=sci_mode)


def _number_format(values: np.ndarray, options: Options) -> tuple[Callable[[float], str], int]:
    """Returns how to write one number of these, and the width they all take."""
    if values.dtype.kind == "b":
        width = max((len(str(bool(v))) for v in values.flat), default=0)
        return (lambda v: str(bool(v))), width
    if values.dtype.kind in "iu":
        return (lambda v: str(int(v))), max((len(str(int(v))) for v in values.flat), default=0)
    wide = values.astype(np.float64)
    finite = np.abs(wide[np.isfinite(wide) & (wide != 0)])
    digits = options.precision
    if not finite.size:
        return (lambda v: _point(f"{v:.0f}", v)), 1
    low, high = float(finite.min()), float(finite.max())
    whole = bool(np.all(finite == np.ceil(finite)))
    scientific = (high / low > 1000.0 or high > 1e8) if whole else (high / low > 1000.0 or high > 1e8 or low < 1e-4)
    if options.sci_mode is not None:
        scientific = options.sci_mode
    if scientific:
        write = lambda v: f"{v:.{digits}e}"
    elif whole:
        write = lambda v: _point(f"{v:.0f}", v)
    else:
        write = lambda v: f"{v:.{digits}f}"
    return write, max(len(write(v)) for v in wide[np.isfinite(wide) & (wide != 0)].flat)


def _point(text: str, value: float) -> str:
    return f"{text}." if math.isfinite(value) else text


def _vector(values: np.ndarray, indent: int, options: Options, summarize: bool, write: Callable, width: int) -> str:
    item = lambda v: write(v).rjust(width)
    edge = options.edgeitems
    if summarize and len(values) > 2 * edge:
        shown = [*(item(v) for v in values[:edge]), " ...", *(item(v) for v in values[-edge:])]
    else:
        shown = [item(v) for v in values]
    per_line = max(1, math.floor((options.linewidth - indent) / max(1, width + 2)))
    lines = [", ".join(shown[i : i + per_line]) for i in range(0, len(shown), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(values: np.ndarray, indent: int, options: Options, summarize: bool, write: Callable, width: int) -> str:
    if values.ndim == 0:
        return write(values[()]).rjust(width)
    if values.ndim == 1:
        return _vector(values, indent, options, summarize, write, width)
    edge = options.edgeitems
    inner = lambda part: _nested(part, indent + 1, options, summarize, write, width)
    if summarize and len(values) > 2 * edge:
        parts = [*(inner(v) for v in values[:edge]), "...", *(inner(v) for v in values[-edge:])]
    else:
        parts = [inner(v) for v in values]
    gap = "," + "\n" * (values.ndim - 1) + " " * (indent + 1)
    return "[" + gap.join(parts) + "]"


def _edges(values: np.ndarray, edge: int) -> np.ndarray:
    """Keeps only what a summary shows."""
    for axis in range(values.ndim):
        if values.shape[axis] > 2 * edge:
            values = np.take(values, [*range(edge), *range(-edge, 0)], axis=axis)
    return values


def format_tensor(array: np.ndarray, *, prefix: str = "tensor(", suffixes: tuple[str, ...] = ()) -> str:
    """Returns ``tensor([...], ...)`` for an array, as PyTorch prints it."""
    options = _current[0]
    notes: list[str] = []
    implied = array.dtype in (np.float32, np.int64, np.bool_)
    if array.size == 0:
        text = "[]"
        if array.ndim != 1:
            notes.append(f"size=({', '.join(map(str, array.shape))}{',' if array.ndim == 1 else ''})")
        implied = array.dtype == np.float32
    else:
        summarize = array.size > options.threshold
        shown = _edges(array, options.edgeitems) if summarize else array
        write, width = _number_format(shown, options)
        text = _nested(array, len(prefix), options, summarize, write, width)
    if not implied:
        notes.append(f"dtype=funcnn.{array.dtype}")
    return _with_notes(prefix + text, [*notes, *suffixes], len(prefix), options)


def _with_notes(text: str, notes: list[str], indent: int, options: Options) -> str:
    last = len(text) - text.rfind("\n") + 1  # PyTorch counts two more than there are
    for note in notes:
        if last + len(note) + 2 > options.linewidth:
            text += ",\n" + " " * indent + note
            last = indent + len(note)
        else:
            text += ", " + note
            last += len(note) + 2
    return text + ")"
