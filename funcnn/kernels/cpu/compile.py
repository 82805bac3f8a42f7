"""How kernels are compiled: lazily, once per machine, into a directory of funcnn's own.

``@kernel`` and ``@device_function`` only note the function, so importing a kernel file costs nothing and does not import
Numba. The first call makes a Numba dispatcher of a copy of the function in whose globals the helpers it names are
dispatchers too; other threads see it when it is complete. The copy keeps code, module and name, so Numba's cache hits in
later processes (a closure over a dispatcher never would). Helpers go only as far as ``parts.py`` says.

The cache directory's name carries a hash of every kernel source: Numba looks only at the file that a kernel stands in,
and would miss an edit in a helper's file. Standard modules that only a first compilation needs are imported there, for they
would double the time of ``import funcnn``.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any

from funcnn.kernels.cpu import threads

if TYPE_CHECKING:
    from pathlib import Path

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # NaN and inf survive, unlike with fastmath=True
COMMON = {"nogil": True, "error_model": "numpy"}
_lock = threading.RLock()
_workqueue = threading.Lock()
_around: Callable | None = None  # called as around(kernel, args) in place of every kernel that is called from Python


def call_around(around: Callable | None) -> Callable | None:
    """Have ``around(kernel, args)`` make every kernel call from Python, or None: the plain call. Returns the old one."""
    global _around
    before, _around = _around, around
    return before


class Kernel:
    """A function that becomes a Numba dispatcher when it, or a kernel that uses it, is first called."""

    def __init__(self, function: Any, apart: bool = False, **options: Any):
        update_wrapper(self, function)
        self.function, self.apart = function, apart
        self.options = {"fastmath": FASTMATH, **options}
        self.compiled: Any = None
        self.linked: Any = None
        self.call: Any = None  # the dispatcher, behind a lock where Numba's pool can serve only one thread at a time

    def __call__(self, *args: Any) -> Any:
        if self.call is None:
            self.dispatcher()
            self.call = _one_at_a_time(self.compiled) if threads.start() == "workqueue" else self.compiled
        return self.call(*args) if _around is None else _around(self, args)

    def dispatcher(self) -> Any:
        """The dispatcher that Python calls, made on first use after those of the helpers that the function names."""
        with _lock:
            if self.compiled is None:
                self.compiled = _dispatcher(rebound(self.function, lambda helper: helper.part()), self.options)
            return self.compiled

    def part(self) -> Any:
        """The dispatcher that other kernels call: a part of them, which is neither assembled nor cached by itself."""
        from funcnn.kernels.cpu.parts import part

        with _lock:
            if self.linked is None:
                self.linked = part(
                    rebound(self.function, lambda helper: helper.part()), {**COMMON, **self.options}, self.apart
                )
            return self.linked

    def inspect(self) -> Any:
        """Which instructions the kernel was compiled to, for each combination of types that it was called with.

        Raises ``RuntimeError`` where it was not called yet, or runs as plain Python.
        """
        from funcnn.kernels.cpu.inspection import inspect

        return inspect(self)


def _one_at_a_time(compiled: Any) -> Callable:
    def call(*args: Any) -> Any:
        with _workqueue:
            return compiled(*args)

    return call


def kernel(function: Callable) -> Any:
    """Declare a kernel: it takes C-contiguous writable arrays and numbers, and fills the output arrays it is given."""
    return Kernel(function)


def device_function(function: Callable) -> Any:
    """Declare a helper that kernels call; when it handles numbers only, CUDA kernels may call it too."""
    return Kernel(function)


def apart_function(function: Callable) -> Any:
    """Declare a helper each of whose pointers leads to memory of its own, so that short loops need no tests for overlaps."""
    return Kernel(function, apart=True)


def exact_function(function: Callable) -> Any:
    """Declare a helper whose every rounding happens as written, inlined wherever it is called, so that loops vectorise."""
    return Kernel(function, fastmath=False, forceinline=True)


def kernel_from(template: Any, name: str, **helpers: Any) -> Any:
    """Declare a kernel or helper as a copy of a plain function, cached as ``name``, whose globals ``helpers`` replace."""
    copy = FunctionType(template.__code__, {**template.__globals__, **helpers}, name)
    update_wrapper(copy, template, assigned=("__module__", "__doc__"))
    copy.__qualname__ = name  # Numba's cache has one index for each qualified name and line
    return Kernel(copy)


class Intrinsic(Kernel):
    """A few instructions given as LLVM IR, which Numba inlines, and a Python twin that does the same without a compiler."""

    def __init__(self, function: Any, twin: Callable):
        super().__init__(function)
        self.twin = twin

    def dispatcher(self) -> Any:
        """Numba's intrinsic, or the twin where ``NUMBA_DISABLE_JIT`` runs kernels as plain Python."""
        import numba
        from numba.extending import intrinsic as numba_intrinsic

        with _lock:
            if self.compiled is None:
                self.compiled = self.twin if numba.config.DISABLE_JIT else numba_intrinsic(self.function)
            return self.compiled

    part = dispatcher


def intrinsic(twin: Callable) -> Callable:
    """Declare ``function(typingctx, *types) -> (signature, codegen)`` as an intrinsic with a Python twin."""
    return lambda function: Intrinsic(function, twin)


def rebound(function: Any, turn: Callable) -> Any:
    """A copy of a function in whose globals ``turn`` has replaced the lazy objects that its code names."""
    import dis

    names = dict(function.__globals__)
    for name in {step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"}:
        if isinstance(names.get(name), Kernel):
            names[name] = turn(names[name])
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    return update_wrapper(copy, function)


def _dispatcher(function: Any, options: dict[str, Any]) -> Any:
    import numba

    from funcnn.kernels.cpu.parts import compilers

    threads.start()
    Watch.begin()
    directory = cache_directory()
    saved = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = directory or saved  # read when a function is decorated; users' own kernels keep theirs
    try:
        made = numba.njit(function, cache=directory is not None, pipeline_class=compilers()[0], **{**COMMON, **options})
    finally:
        numba.config.CACHE_DIR = saved
    if not numba.config.DISABLE_JIT:
        made.compile = _for_writable(made)
    return made


def _for_writable(dispatcher: Any) -> Callable:
    """The dispatcher's ``compile``, where read-only arrays run what is made for writable ones: no kernel writes inputs."""
    from numba import types

    compile_types = dispatcher.compile

    def compile(given: Any) -> Any:
        writable = tuple(t.copy(readonly=False) if isinstance(t, types.Array) else t for t in given)
        entry = compile_types(writable)
        if writable != given:
            dispatcher._insert([t._code for t in given], entry, False)
        return entry

    return compile


@cache
def cache_directory() -> str | None:
    """Where compiled kernels are kept: ``$FUNCNN_CACHE_DIR`` or the user's cache; None, with one warning, if unwritable."""
    import tempfile
    from pathlib import Path

    root = os.environ.get("FUNCNN_CACHE_DIR")
    try:
        path = (Path(root) if root else _user_cache() / "funcnn") / sources_hash()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return str(path)
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"funcnn cannot keep compiled kernels ({error}); they compile anew in each process. "
            "Set FUNCNN_CACHE_DIR to a writable directory",
            stacklevel=2,
        )
        return None


def _user_cache() -> Path:
    from pathlib import Path

    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sources_hash() -> str:
    """A hash of every kernel source and of the versions of Numba and Python."""
    import hashlib
    from pathlib import Path

    import numba

    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    kernels = Path(__file__).parent.parent
    for path in sorted(kernels.rglob("*.py")):
        digest.update(str(path.relative_to(kernels)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Watch:
    """What compilations are allowed to do, and how many there were; registered with Numba when kernels are first made."""

    count = 0
    forbidden = 0  # how many ``no_compile`` contexts are open, in any thread

    @staticmethod
    @cache
    def begin() -> None:
        """Listen to Numba's compilations; those that the cache answers raise no event."""
        from numba.core import event

        class Listener(event.Listener):
            def on_start(self, event: Any) -> None:
                if "no_cpython_wrapper" not in event.data["dispatcher"].targetoptions:  # not a part of a kernel
                    Watch.compiling(event.data["dispatcher"].py_func, event.data["args"])

            def on_end(self, event: Any) -> None:
                """Nothing to do."""

        event.register("numba:compile", Listener())

    @staticmethod
    def compiling(function: Any, args: Any) -> None:
        """Count, log or refuse; users' own kernels raise this event too and are let pass."""
        if not function.__module__.startswith("funcnn."):
            return
        if Watch.forbidden:
            raise RuntimeError(
                f"no_compile: kernel {function.__name__}{args} is not in the cache; compile it before, for "
                "instance with `python -m funcnn.warmup`"
            )
        Watch.count += 1
        if os.environ.get("FUNCNN_LOG_COMPILES") == "1":
            print(f"funcnn: compiling {function.__name__}{args}", file=sys.stderr)


@contextmanager
def no_compile() -> Iterator[None]:
    """Inside, a kernel that would have to be compiled raises ``RuntimeError``; those in the cache load as ever."""
    with _lock:
        Watch.forbidden += 1
    try:
        yield
    finally:
        with _lock:
            Watch.forbidden -= 1
