"""What kernels want to know of the CPU: the width of its vectors, the register tile that fits, its last cache."""

from __future__ import annotations

import platform
from functools import cache


@cache
def vector_bytes() -> int:
    """The width of the CPU's vector registers in bytes: 64 with AVX-512, 32 with AVX2, else 16 (SSE, NEON)."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") and features.get("fma") else 16


@cache
def tile_shape(itemsize: int) -> tuple[int, int]:
    """Rows and columns of ``tile_product``'s tile for numbers of ``itemsize`` bytes."""
    many = vector_bytes() == 64 or platform.machine().lower() in ("aarch64", "arm64")  # 32 registers, else 16
    return (8, 3 * vector_bytes() // itemsize) if many else (6, 2 * vector_bytes() // itemsize)


@cache
def last_cache(root: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """Bytes of the largest cache that the system tells of, or 8 MiB where it tells nothing."""
    from pathlib import Path

    found = [1 << 23]
    for path in Path(root).glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        if text.rstrip("KM").isdigit():
            found.append(int(text.rstrip("KM")) * unit)
    return max(found[1:] or found)


def beyond_cache(size: int) -> bool:
    """Whether ``size`` bytes, read and written, are more than the last cache holds."""
    return size > last_cache()
