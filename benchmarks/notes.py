"""Why a row is slower than PyTorch's, by the row's name; ``benchmarks.kernels`` prints these for rows below 1.0."""

from __future__ import annotations

NOTES: dict[str, str] = {}
