"""Tables of which numbers make an output, as ``kernels.cpu.table_taps`` reads them: tap-major, rows of whole vectors."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.table_taps import WIDE


def widths(index: np.ndarray) -> tuple[int, int]:
    """Taps and pitch of a table."""
    return index.shape[0], -(-index.shape[1] // WIDE) * WIDE


def padded(rows: np.ndarray) -> np.ndarray:
    """Rows filled up to whole vectors with zeros, flat; indices are then 32-bit."""
    taps, pitch = widths(rows)
    out = np.zeros((taps, pitch), np.int32 if rows.dtype.kind == "i" else rows.dtype)
    out[:, : rows.shape[1]] = rows
    return out.reshape(-1)
