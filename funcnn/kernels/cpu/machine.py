"""Describes the CPU to kernels: the width of its vectors, the tile that fits its registers, the size of its last cache."""

from __future__ import annotations

import platform
from functools import cache


@cache
def vector_bytes() -> int:
    """Returns the width of the CPU's vector registers in bytes: 64 with AVX-512, 32 with AVX2, else 16 (SSE, NEON)."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") and features.get("fma") else 16


@cache
def tile_shape(itemsize: int) -> tuple[int, int]:
    """Returns the rows and columns of ``tile_product``'s tile for elements of ``itemsize`` bytes."""
    many = vector_bytes() == 64 or platform.machine().lower() in ("aarch64", "arm64")  # 32 registers, else 16
    return (8, 3 * vector_bytes() // itemsize) if many else (6, 2 * vector_bytes() // itemsize)


@cache
def last_cache(root: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """Returns the bytes of the largest cache that the system reports, or 8 MiB where it reports none."""
    from pathlib import Path

    found = [1 << 23]
    for path in Path(root).glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        if text.rstrip("KM").isdigit():
            found.append(int(text.rstrip("KM")) * unit)
    return max(found[1:] or found)


def beyond_cache(size: int) -> bool:
    """Whether ``size`` bytes are more than the last cache holds."""
    return size > last_cache()
