"""How exact operations in float32 have to be: settings of the process, which compiled steps are kept by."""

from __future__ import annotations

CONVOLUTIONS = ("highest", "high")
conv = "high"  # of convolutions; read it as ``precision.conv``


def get_float32_conv_precision() -> str:
    """Returns what ``set_float32_conv_precision`` set; "high" by itself."""
    return conv


def set_float32_conv_precision(precision: str) -> None:
    """How exact convolutions of float32 arrays and their gradients are, in all threads; float64 stays as it is.

    "high": 3 x 3 kernels go through Winograd's transforms, which do a quarter of the products and err by some 1e-6 of the
        largest output.
    "highest": plain sums only, which err by less than half of that and take about twice as long for those kernels.
    What is compiled by ``jit`` is compiled for the setting of the call. Raises ``ValueError`` for other words.
    """
    global conv
    if precision not in CONVOLUTIONS:
        raise ValueError(
            f"set_float32_conv_precision: expected {' or '.join(map(repr, CONVOLUTIONS))}, got {precision!r}"
        )
    conv = precision
