"""Rows of interpolation."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

LINE, IMAGE, VOLUME = Arr((2, 3, 5)), Arr((2, 2, 4, 3)), Arr((1, 2, 3, 2, 4))
BYTES, WHOLE = Arr((2, 3, 5, 6), 0, 256, "uint8"), {"grad": False, "dtypes": ("float32",)}
LOOSE = {"float32": 2e-5, "float64": 1e-11}


def _row(name, x, *args, **options):
    return both(f"interpolate_{name}", lambda m, x: m.nn.functional.interpolate(x, *args, **options), x, rtol=LOOSE)


ROWS = [
    _row("nearest1d", LINE, 7),
    _row("nearest2d", IMAGE, (3, 7)),
    _row("nearest3d", VOLUME, scale_factor=(2, 0.5, 1.5)),
    _row("nearest_exact", IMAGE, (3, 7), mode="nearest-exact"),
    _row("linear", LINE, scale_factor=1.7, mode="linear"),
    _row("bilinear", IMAGE, scale_factor=2, mode="bilinear"),
    _row("bilinear_down", IMAGE, (2, 1), mode="bilinear"),
    _row("bilinear_aligned", IMAGE, (6, 2), mode="bilinear", align_corners=True),
    _row("bilinear_antialias", IMAGE, (2, 5), mode="bilinear", antialias=True),
    _row("bicubic", IMAGE, (6, 2), mode="bicubic"),
    _row("bicubic_antialias", IMAGE, (2, 2), mode="bicubic", antialias=True),
    _row("trilinear", VOLUME, (5, 3, 2), mode="trilinear"),
    _row("trilinear_down", VOLUME, (2, 3, 2), mode="trilinear"),
    _row("area", IMAGE, (3, 2), mode="area"),
    *[
        both(f"interpolate_bytes_{mode}_{'x'.join(map(str, size))}{'_'.join(['', *options])}",
             lambda m, x, s=size, n=mode, o=options: m.nn.functional.interpolate(x, s, mode=n, **o), BYTES, **WHOLE)
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic") for size in ((7, 2), (3, 11))
        for options in (({}, {"align_corners": True}, {"antialias": True}) if mode[0] == "b" else ({},))
    ],
    both("interpolate_bytes1d", lambda m, x: m.nn.functional.interpolate(x, 8), Arr((2, 3, 5), 0, 256, "uint8"), **WHOLE),
    both("interpolate_bytes3d", lambda m, x: m.nn.functional.interpolate(x, scale_factor=(2, 0.5, 1.5)),
         Arr((1, 2, 3, 2, 4), 0, 256, "uint8"), **WHOLE),
    both("interpolate_bytes_scaled", lambda m, x: m.nn.functional.interpolate(x, scale_factor=1.7, mode="bilinear"), BYTES,
         **WHOLE),
    both("interpolate_squared", lambda m, x: m.nn.functional.interpolate(x, (3, 5), mode="bilinear") ** 2, IMAGE, rtol=LOOSE),
]  # fmt: skip
