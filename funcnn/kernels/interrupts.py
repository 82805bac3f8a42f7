"""Ctrl-C, and any exception that a signal handler raises, at any instant: what may not be half done.

Python calls handlers on the main thread, between two instructions: where a Python function begins, where a call of one
written in C has returned, and where a loop jumps back; nowhere else (3.10 to 3.14). Hence two means.

``uninterrupted`` is for long steps (Numba's import, loading and compiling a kernel), which would leave modules half imported
and dispatchers without code: handlers are held meanwhile, and called when the step is complete.

``Leaving`` is for modes. ``saved, ctx.x = ctx.x, new`` right before ``try``, and an assignment in ``finally``, are never
half done, but ``with`` calls an ``__exit__`` written in Python, and the exception may come where that begins. So the mode is
put back by C code, which ``Leaving`` arranges.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from io import IOBase
from itertools import starmap
from typing import Any


class _Hold:
    """The handlers that are held. ``active`` is what counts, so handlers half put back do no harm: they pass on."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable] = {}
        self.pending: list[tuple[int, Any]] = []
        self.active = False

    def note(self, number: int, frame: Any) -> Any:
        """Stands for every handler."""
        if self.active:
            self.pending.append((number, frame))
            return None
        return self.handlers[number](number, frame)

    def begin(self) -> None:
        """Takes the handlers' places."""
        self.active = True
        for number in _numbers():
            handler = signal.getsignal(number)
            if callable(handler):
                self.handlers[number] = handler
                signal.signal(number, self.note)

    def end(self) -> None:
        """Puts the handlers back, whatever arrives meanwhile."""
        try:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)
        except BaseException:
            self.end()
            raise
        finally:
            self.active = False

    def deliver(self) -> None:
        """Handle what arrived, in order; an exception of one handler does not lose the next one's signal."""
        while self.pending:
            number, frame = self.pending.pop(0)
            try:
                self.handlers[number](number, frame)
            finally:
                self.deliver()


_inside = False  # the main thread is in such a step


def uninterrupted(function: Callable, *args: Any) -> Any:
    """``function(*args)``; on the main thread, signals that arrive meanwhile are handled after it."""
    global _inside
    if _inside or threading.current_thread() is not threading.main_thread():
        return function(*args)
    hold = _Hold()
    try:
        try:
            hold.begin()
            _inside = True
            return function(*args)
        finally:
            _inside = False
            hold.end()
    finally:
        hold.deliver()


def whole(package: str, *parts: str) -> None:
    """Import parts of a package whose own import has begun, and name them in it; no signal breaks that off.

    An import that an exception ends is taken back, but not what it had imported by then; a second one would find those and
    not name them in the new package, and NumPy and Numba cannot be imported in two attempts at all.
    """
    uninterrupted(_whole, package, parts)


def _whole(package: str, parts: tuple[str, ...]) -> None:
    collecting = gc.isenabled()
    try:
        gc.disable()  # what modules make stays, and looking for garbage among it takes an eighth of the time of an import
        for part in parts:
            setattr(sys.modules[package], part, import_module(f"{package}.{part}"))
    finally:
        if collecting:
            if not gc.get_freeze_count():  # else the user's own would be thawed
                gc.freeze()
                gc.unfreeze()  # the two count all there is as old, or the next object would have it looked through
            gc.enable()


@cache
def _numbers() -> tuple[int, ...]:
    return tuple(int(number) for number in signal.valid_signals())


def in_c(*steps: partial) -> Callable[[], None]:
    """Makes all the calls, one after another without any Python in between, once; gives None. Each must be of a C function."""
    return partial(deque(maxlen=0).extend, starmap(partial.__call__, [(step,) for step in steps]))


_left_in_c: Any = IOBase.__base__


class Leaving(_left_in_c):
    """A context manager that is left in C: ``__enter__`` notes in ``close`` what to call, for instance a partial ``dict.update``.

    The base of the classes of ``io`` is the one built-in type whose ``__exit__`` calls a method that a subclass chooses.
    """

    __slots__ = ("close",)
    closed = True  # else the destructor would call ``close`` once more
    close: Callable[[], Any]
