"""Rows of grid sampling."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

IMAGE, PLACES = Arr((2, 2, 4, 3)), Arr((2, 2, 3, 2), -1.2, 1.2)
VOLUME, CUBE = Arr((1, 2, 2, 3, 2)), Arr((1, 1, 2, 2, 3), -1.2, 1.2)
LOOSE = {"float32": 5e-5, "float64": 1e-10}


def _row(name, x, grid, **options):
    options = {"align_corners": False, **options}
    return both(
        f"grid_sample_{name}", lambda m, x, g: m.nn.functional.grid_sample(x, g, **options), x, grid, rtol=LOOSE
    )


ROWS = [
    _row("bilinear", IMAGE, PLACES),
    _row("bilinear_border", IMAGE, PLACES, padding_mode="border", align_corners=True),
    _row("bilinear_reflection", IMAGE, PLACES, padding_mode="reflection"),
    _row("reflection_aligned", IMAGE, PLACES, padding_mode="reflection", align_corners=True),
    _row("nearest", IMAGE, PLACES, mode="nearest"),
    _row("bicubic", IMAGE, PLACES, mode="bicubic"),
    _row("bicubic_border", IMAGE, PLACES, mode="bicubic", padding_mode="border"),
    _row("bicubic_reflection", IMAGE, PLACES, mode="bicubic", padding_mode="reflection", align_corners=True),
    _row("trilinear", VOLUME, CUBE),
    _row("trilinear_border", VOLUME, CUBE, padding_mode="border"),
    _row("nearest3d", VOLUME, CUBE, mode="nearest", padding_mode="reflection"),
    both("affine_grid", lambda m, t: m.nn.functional.affine_grid(t, (2, 1, 3, 4), align_corners=False), Arr((2, 2, 3)), rtol=LOOSE),
    both("affine_grid3d", lambda m, t: m.nn.functional.affine_grid(t, (1, 1, 2, 3, 2), align_corners=True), Arr((1, 3, 4)), rtol=LOOSE),
]  # fmt: skip
