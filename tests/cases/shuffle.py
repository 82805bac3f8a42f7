"""Rows of pixel and channel shuffles."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

ROWS = [
    both("pixel_shuffle", lambda m, x: m.nn.functional.pixel_shuffle(x, 2), Arr((2, 8, 2, 3))),
    both("pixel_shuffle_lead", lambda m, x: m.nn.functional.pixel_shuffle(x, 3), Arr((9, 2, 1))),
    both("pixel_unshuffle", lambda m, x: m.nn.functional.pixel_unshuffle(x, 2), Arr((2, 1, 2, 4, 6))),
    both("channel_shuffle", lambda m, x: m.nn.functional.channel_shuffle(x, 3), Arr((2, 6, 2, 2))),
    both("channel_shuffle_line", lambda m, x: m.nn.functional.channel_shuffle(x, 2), Arr((2, 4, 3))),
]  # fmt: skip
