"""A pool of threads that a busy machine does not slow down: ``funcnn_parallel_for(loop, block, threads)``.

OpenMP's caller waits until every thread of its team has come, also one that the scheduler keeps from its core while a neighbour
counts there; and a thread that spins for the next call uses up the time that it needs when the call comes. Here

- the caller works through all chunks itself (``parallel.py`` hands them out by counters) and waits only for workers who
  have begun: one that is not scheduled is not waited for;
- an idle worker spins for ``SPIN_NS``, so that calls that follow each other closely cost no waking, unless it finds that it
  was kept from its core while it spun: then all workers sleep at once when idle, for 2 ms, and up to 32 where it happens again
  and again, for the scheduler prefers those who slept. The caller, too, spins for a bounded time before it sleeps;
- one call has the pool; who calls meanwhile from another Python thread works alone, with the same result.

The workers are Python's threads that stay in compiled code, which sleep and wake by CPython's own locks, for those need no
interpreter lock. The code (``code.py``) is LLVM IR, translated in each process in some milliseconds; it needs no library of
OpenMP's or TBB's and leaves the environment and the threads of other libraries alone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import re
import threading
import time
from string import Template
from typing import Any

from funcnn.kernels.cpu.threads import code as pool_code
from funcnn.kernels.cpu.threads.code import (
    CALLER,
    CODE,
    LINE_WORDS,
    MONOTONIC,
    MOST_WORKERS,
    QUIT,
    SIZE,
    TICKS,
    WORKERS,
)

X86, ARM = "call void @llvm.x86.sse2.pause()", "call void @llvm.aarch64.isb(i32 15)"
PAUSES = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}  # lets the core rest between two looks
DECLARED = {X86: "declare void @llvm.x86.sse2.pause()", ARM: "declare void @llvm.aarch64.isb(i32)"}


class Pool:
    """Holds the state, the code and the threads of the process's one pool."""

    def __init__(self) -> None:
        self.words = (ctypes.c_int64 * (WORKERS + LINE_WORDS * (MOST_WORKERS + 1) + LINE_WORDS))()
        base = ctypes.addressof(self.words)
        self.state = base + -base % 64  # the first line begins with a line of the cache
        self.threads: list[threading.Thread] = []
        self.guard = threading.Lock()
        self.engine: Any = None
        self.forked = False  # in a child, until the threads that it lacks are started there

    def word(self, place: int) -> ctypes.c_int64:
        """Returns one word of the state."""
        return ctypes.c_int64.from_address(self.state + 8 * place)

    def load(self) -> None:
        """Translates the code, once in a process."""
        with self.guard:
            if self.engine is None:
                atexit.register(self.stop)
                self.word(CALLER).value = _lock()
                self.engine = _translate(self.state)

    def link(self) -> None:
        """Lets kernels that are loaded from here on find ``funcnn_parallel_for``."""
        from llvmlite.binding import add_symbol

        self.load()
        add_symbol("funcnn_parallel_for", self.engine.get_function_address("funcnn_parallel_for"))

    def start(self, count: int) -> None:
        """Starts workers until there are ``count``, at most ``MOST_WORKERS``."""
        self.load()
        with self.guard:
            self.forked = False
            worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.engine.get_function_address("funcnn_worker"))
            while len(self.threads) < min(count, MOST_WORKERS):
                number = len(self.threads) + 1
                self.word(WORKERS + LINE_WORDS * number + 1).value = _lock()
                thread = threading.Thread(target=worker, args=(number,), name=f"funcnn-{number}", daemon=True)
                self.threads.append(
                    thread
                )  # first: an interrupted start may cost a worker, and never makes two of one number
                thread.start()
            self.word(SIZE).value = len(self.threads)

    def stop(self) -> None:
        """Ends the workers before the interpreter takes their code away; kernels that still run work alone."""
        with self.guard:
            if not self.threads:
                return
            self.word(SIZE).value, self.word(QUIT).value = 0, 1
            wake = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
                self.engine.get_function_address("woken")
            )
            for number, thread in enumerate(self.threads, 1):
                if thread.is_alive():
                    wake(WORKERS + LINE_WORDS * number, WORKERS + LINE_WORDS * number + 1)
                    thread.join(1)
            self.threads.clear()
            self.word(QUIT).value = 0

    def forget(self) -> None:
        """Resets the pool in a forked child, which has none of the threads, and forgets a call that the parent had open."""
        ctypes.memset(self.state, 0, 8 * (WORKERS + LINE_WORDS * (MOST_WORKERS + 1)))
        self.guard, self.threads = threading.Lock(), []
        if self.engine is not None:
            self.forked = True
            self.word(CALLER).value = _lock()


def _lock() -> int:
    """Makes a lock of CPython's, takes it, and returns its address."""
    make = ctypes.pythonapi.PyThread_allocate_lock
    make.restype = ctypes.c_void_p
    lock = make()
    ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return lock


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _source(state: int) -> str:
    """Returns the code with this process's addresses in it, in the notation of the LLVM that is installed."""
    import llvmlite.binding as llvm

    if os.name == "nt":
        now = Template(TICKS).substitute(clock=_address(ctypes.WinDLL("kernel32").GetTickCount64))  # type: ignore[attr-defined]
    else:
        now = Template(MONOTONIC).substitute(clock=_address(ctypes.CDLL(None).clock_gettime), kind=time.CLOCK_MONOTONIC)
    python, pause = ctypes.pythonapi, PAUSES.get(platform.machine().lower(), "")
    code = Template(CODE + DECLARED.get(pause, "")).substitute(
        vars(pool_code), state=state, now=now, pause=pause, release=_address(python.PyThread_release_lock),
        acquire=_address(python.PyThread_acquire_lock),
    )  # fmt: skip
    opaque = llvm.llvm_version_info[0] >= 17  # pointers have no types there
    return re.sub(r"(i64|i32|void|\[2 x i64\])( \([^)]*\))?\*", "ptr", code) if opaque else code


def _translate(state: int) -> Any:
    import llvmlite.binding as llvm

    if llvm.llvm_version_info[0] < 20:  # later ones do it themselves, and say so
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_source(state)), machine)
    engine.finalize_object()
    return engine


pool = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)
