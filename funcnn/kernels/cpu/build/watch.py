"""What compilations are allowed to do, and how many there were."""

from __future__ import annotations

import os
import sys
from contextlib import ContextDecorator
from functools import partial
from typing import Any, ClassVar

from funcnn.kernels.interrupts import Leaving


class Watch:
    """What compilations are allowed to do, and how many there were."""

    count = 0
    forbidden: ClassVar[dict] = {}  # the ``no_compile`` contexts that are open, in any thread

    @staticmethod
    def compiling(function: Any, args: Any) -> None:
        """Counts, logs or refuses the compilation of a kernel that the cache does not hold, ours or a user's."""
        if Watch.forbidden:
            raise RuntimeError(
                f"no_compile: kernel {function.__name__}{args} is not in the cache; compile it before, for "
                "instance with `python -m funcnn.warmup`"
            )
        Watch.count += 1
        if os.environ.get("FUNCNN_LOG_COMPILES") == "1":
            print(f"funcnn: compiling {function.__name__}{args}", file=sys.stderr)


class no_compile(Leaving, ContextDecorator):
    """Inside, a kernel that would have to be compiled raises ``RuntimeError``; those in the cache load as ever."""

    __slots__ = ()

    def __enter__(self) -> None:
        token = object()
        self.close = partial(Watch.forbidden.pop, token, None)
        Watch.forbidden[token] = None  # what is popped: not true, or leaving would swallow exceptions

    def _recreate_cm(self) -> no_compile:
        return no_compile()
