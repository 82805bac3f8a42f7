"""Why a row is slower than PyTorch's, by the row's name; ``benchmarks.kernels`` prints these for rows below 1.0."""

from __future__ import annotations

_CACHE_BOUND = "both read the array at the bandwidth of the shared cache; about 8 us of Python stand around the kernel"

NOTES: dict[str, str] = {
    **{
        f"{name} {shape}": _CACHE_BOUND
        for name in ("sum", "mean")
        for shape in ("16x64x56x56 over (0,2,3)", "4096x1000 over 1")
    },
    "amax 4096x1000 over 1": "joining the lanes at the end of a row costs three instructions a step, for NaN to win",
}

SHORTFALLS: dict[str, str] = {}
