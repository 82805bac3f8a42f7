"""Rows of unfold and fold."""

from __future__ import annotations

from tests.cases.both import both
from tests.cases.case import Arr

IMAGE = Arr((2, 2, 4, 5))


def _row(name, f, x, *args, **options):
    return both(name, lambda m, x: getattr(m.nn.functional, f)(x, *args, **options), x)


ROWS = [
    _row("unfold", "unfold", IMAGE, 3, padding=1),
    _row("unfold_options", "unfold", IMAGE, (2, 3), dilation=(2, 1), padding=(1, 2), stride=(1, 2)),
    _row("unfold_single", "unfold", Arr((2, 4, 4)), 2, stride=2),
    _row("unfold_skipping", "unfold", IMAGE, 1, stride=3),
    _row("fold", "fold", Arr((2, 18, 20)), (4, 5), 3, padding=1),
    _row("fold_options", "fold", Arr((1, 12, 16)), (4, 5), (2, 3), dilation=(2, 1), padding=(1, 2), stride=(1, 2)),
    _row("fold_single", "fold", Arr((8, 4)), 4, 2, stride=2),
    _row("fold_skipping", "fold", Arr((2, 3, 4)), 5, 1, stride=3),
    both("fold_squared", lambda m, x: m.nn.functional.fold(m.nn.functional.unfold(x, 2) ** 2, (4, 5), 2), IMAGE),
]  # fmt: skip
