"""``prefer``: force an implementation by its name, to test or to measure it."""

from __future__ import annotations

import sys
from collections import deque
from functools import partial
from itertools import starmap
from typing import ClassVar

from funcnn.core.context import ctx
from funcnn.kernels.interrupts import Leaving


class Preference:
    """Counts how often an implementation of the preferred name ran."""

    __slots__ = ("name", "used")

    def __init__(self, name: str):
        self.name, self.used = name, 0


def preferred() -> str | None:
    """Returns the name that this thread prefers."""
    return None if ctx.preferred is None else ctx.preferred.name


class prefer(Leaving):
    """Makes every primitive run its implementation of this name where it applies: ``with prefer("winograd"): ...``.

    It holds for the thread, and for what ``jit`` traces inside. Raises ``ValueError`` for a name that no primitive has, and on
    leaving where the name applied nowhere.
    """

    __slots__ = ("preference",)
    known: ClassVar[dict[str, list[str]]] = {}  # name of an implementation -> primitives that have it

    def __init__(self, name: str):
        if name not in prefer.known:
            raise ValueError(
                f"prefer: no implementation is called {name!r}; there are {', '.join(sorted(prefer.known))}"
            )
        self.preference = Preference(name)

    def __enter__(self) -> None:
        here = ctx.__dict__
        putting_back = partial(here.update, {"preferred": ctx.preferred})
        self.close = partial(deque, starmap(_called, ((putting_back,), (partial(self._used),))), 0)
        ctx.preferred = self.preference

    def _used(self) -> None:
        if not self.preference.used and sys.exc_info()[1] is None:
            name = self.preference.name
            raise ValueError(
                f"prefer: {name!r} applied nowhere inside; it is an implementation of {', '.join(prefer.known[name])} for some "
                "shapes and dtypes"
            )


_called = partial.__call__
