"""How kernels are compiled: lazily, once per machine, into a directory of funcnn's own.

``@kernel`` and ``@device_function`` only note the function, so importing a kernel file costs nothing and does not import
Numba. The first call makes a Numba dispatcher of a copy of the function in whose globals the helpers it names are
dispatchers too; other threads see it when it is complete. Helpers go only as far as ``parts.py`` says.

Compiled code is kept by ``cache.py`` under a hash of all that it follows from, and no signal breaks off what makes or loads
it (``kernels/interrupts.py``). Standard modules that only a first compilation needs are imported there, for they would
double the time of ``import funcnn``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from types import FunctionType
from typing import Any

from funcnn.kernels.cpu import build
from funcnn.kernels.cpu.build import parts
from funcnn.kernels.cpu.build.cache import KernelCache, cache_directory
from funcnn.kernels.cpu.build.facts import CHECK, NO_FACTS, Facts
from funcnn.kernels.cpu.build.stamp import operands
from funcnn.kernels.cpu.build.watch import Watch
from funcnn.kernels.cpu.build.writes import refuse_read_only
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.interrupts import uninterrupted
from funcnn.kernels.names import kernel_of, name_of

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # NaN and inf survive, unlike with fastmath=True
COMMON = {"nogil": True, "error_model": "numpy"}
UNCOUNTED = "NRT required but not enabled"  # what Numba says of a helper that makes an array and may not
_lock = threading.RLock()
# What stands around every kernel that is called from Python, by who put it there: the last one is called as f(kernel, args).
around: dict[Any, Callable] = {}
if CHECK:  # pragma: no cover, FUNCNN_CHECK=1 runs it
    from funcnn.kernels.cpu.build.check import around as _checked

    around["check"] = _checked


class Kernel:
    """A function that becomes a Numba dispatcher when it, or a kernel that uses it, is first called."""

    def __init__(
        self, function: Any, apart: bool = False, facts: Facts = NO_FACTS, makes: bool | None = None, **options: Any
    ):
        update_wrapper(self, function)
        self.function, self.apart, self.facts = function, apart, facts
        self.scalar: Any = (
            None  # of an elementwise kernel: the function of one element, which other code is made of, too
        )
        self.makes = makes  # whether it makes arrays; None: not known yet
        self.options = {"fastmath": FASTMATH, **options}
        self.compiled: Any = None
        self.linked: Any = None

    def __call__(self, *args: Any) -> Any:
        if self.compiled is None:
            uninterrupted(self.dispatcher)
        if around:
            for outermost in [*around.values()][-1:]:
                return outermost(self, args)
        return self.compiled(*args)

    def __reduce__(self) -> tuple:
        """Sent to another process by its name."""
        return kernel_of, (name_of(self),)

    def dispatcher(self) -> Any:
        """Returns the dispatcher that Python calls, made on first use after those of the helpers that the function names."""
        with _lock:
            if self.compiled is None:
                self.compiled = _dispatcher(self)
            return self.compiled

    def part(self) -> Any:
        """Returns the dispatcher that other kernels call: a part of them, which is neither assembled nor cached by itself."""
        with _lock:
            if self.linked is None:
                options = {**COMMON, **self.options, "_nrt": self.holds()}  # NRT is Numba's runtime, which counts
                self.linked = parts.part(linked(self.function), options, self.apart)
            return self.linked

    def holds(self) -> bool:
        """Whether it makes an array, or calls a helper that does: only such parts count who holds an array.

        The counts are shared by all threads. A helper that adds to one for each of many short rows waits for the other threads
        at each, and takes ten times as long on two of them as on one.
        """
        if self.makes is None:
            reached: list[Kernel] = [self]
            for one in reached:  # which grows meanwhile, by each helper once: helpers may call one another
                if one.makes is None:
                    reached += [helper for helper in named(one.function).values() if helper not in reached]
            makes = any(one.makes for one in reached)
            for one in [self] if makes else reached:  # where none makes any, neither does what each of them reaches
                one.makes = makes
        return bool(self.makes)

    def stamped(self) -> tuple[Any, Any, bool]:
        """Returns what its machine code follows from: options, a function, and whether that runs while a kernel compiles."""
        return {**COMMON, **self.options, "apart": self.apart, "_nrt": self.holds()}, self.function, False

    def inspect(self) -> Any:
        """Returns which instructions the kernel was compiled to, for each combination of types that it was called with.

        Raises ``RuntimeError`` where it was not called yet, or runs as plain Python.
        """
        return build.inspection.inspect(self)


class ParallelKernel(Kernel):
    """A kernel with Numba's own parallel loops (``prange``), on as many of Numba's threads as ``set_num_threads`` says."""

    turns = threading.Lock()  # the workqueue layer ends the process when two Python threads use it at once

    def __call__(self, *args: Any) -> Any:
        if self.compiled is None:
            uninterrupted(self.dispatcher)
        import numba
        from numba.np.ufunc import parallel

        if numba.config.DISABLE_JIT:
            return super().__call__(*args)
        before = numba.get_num_threads()  # starts Numba's threads
        with self.turns if numba.threading_layer() == "workqueue" else nullcontext():
            try:
                numba.set_num_threads(min(threads.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
                return super().__call__(*args)
            finally:
                parallel._set_num_threads(before)  # in C: no interrupt comes before it


def kernel(function: Any = None, *, parallel: Any = False, **facts: Any) -> Any:
    """Declares a kernel: it takes C-contiguous arrays and numbers, and fills the output arrays it is given.

    Arrays that it only reads may be read-only. ``facts``: what it does with its arguments, see ``facts.Facts``.
    parallel: its ``numba.prange`` loops run in parallel; ``parallel_for`` needs no such word, compiles several times faster
        and gives sums that do not depend on the number of threads.
    """
    if function is not None:
        return Kernel(function)
    kind, options = (ParallelKernel, {"parallel": True}) if parallel else (Kernel, {})
    return lambda f: kind(f, facts=Facts(**facts), **options)


def device_function(function: Any = None, *, makes: bool | None = None) -> Any:
    """Declares a helper that kernels call; when it handles numbers only, CUDA kernels may call it too.

    makes: whether it makes arrays, of which Numba then counts who holds them, or assigns one to a slice, which may copy it.
    """
    return Kernel(function) if function is not None else lambda f: Kernel(f, makes=makes)


def apart_function(function: Callable) -> Any:
    """Declares a helper each of whose pointers leads to memory of its own, so that short loops need no tests for overlaps."""
    return Kernel(function, apart=True)


def exact_function(function: Callable) -> Any:
    """Declares a helper whose every rounding happens as written, inlined wherever it is called, so that loops vectorise."""
    return Kernel(function, fastmath=False, forceinline=True)


def kernel_from(template: Any, name: str, facts: Facts = NO_FACTS, **helpers: Any) -> Any:
    """Declares a kernel or helper as a copy of a plain function, cached as ``name``, whose globals ``helpers`` replace."""
    copy = FunctionType(template.__code__, {**template.__globals__, **helpers}, name)
    update_wrapper(copy, template, assigned=("__module__", "__doc__"))
    copy.__qualname__ = name  # Numba's cache has one index for each qualified name and line
    return Kernel(copy, facts=facts)


class Intrinsic(Kernel):
    """A few instructions given as LLVM IR, which Numba inlines, and a Python twin that does the same without a compiler."""

    def __init__(self, function: Any, twin: Callable, calls: tuple[int, int] | None = None):
        super().__init__(function, makes=False)
        self.twin, self.calls = twin, calls

    def dispatcher(self) -> Any:
        """Numba's intrinsic, or the twin where ``NUMBA_DISABLE_JIT`` runs kernels as plain Python."""
        import numba
        from numba.extending import intrinsic as numba_intrinsic

        with _lock:
            if self.compiled is None:
                self.compiled = self.twin if numba.config.DISABLE_JIT else numba_intrinsic(self.function)
            return self.compiled

    part = dispatcher

    def stamped(self) -> tuple[Any, Any, bool]:
        """Returns the same as of a kernel; the function makes code, so it runs."""
        return None, self.function, True


def intrinsic(twin: Callable, calls: tuple[int, int] | None = None) -> Callable:
    """Declares ``function(typingctx, *types) -> (signature, codegen)`` as an intrinsic with a Python twin.

    calls: the places of an argument that it calls with two numbers and the members of a tuple, and of that tuple.
    """
    return lambda function: Intrinsic(function, twin, calls)


def named(function: Any) -> dict[str, Kernel]:
    """Returns the lazy objects that a function's code names, by their names."""
    code = function.__code__
    shift = sys.version_info >= (3, 11)  # since then the lowest bit says that a call follows
    names = {code.co_names[place >> shift] for place in operands(code, "LOAD_GLOBAL")}
    found = {name: function.__globals__.get(name) for name in sorted(names)}
    return {name: one for name, one in found.items() if isinstance(one, Kernel)}


def rebound(function: Any, turn: Callable) -> Any:
    """Returns a copy of a function in whose globals ``turn`` has replaced the lazy objects that its code names."""
    names = {**function.__globals__, **{name: turn(one) for name, one in named(function).items()}}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    return update_wrapper(copy, function)


def linked(function: Any) -> Any:
    """Returns a copy of a function that calls the dispatchers of its helpers."""
    return rebound(function, lambda helper: helper.part())


def _dispatcher(kernel: Kernel) -> Any:
    import numba

    threads.start()
    function = linked(kernel.function)
    made = numba.njit(function, pipeline_class=parts.compilers()[0], **{**COMMON, **kernel.options})
    if not numba.config.DISABLE_JIT:
        made._cache = KernelCache(kernel, cache_directory(), lambda args: Watch.compiling(function, args))
        made.compile = _for_writable(kernel, made)
    return made


def _for_writable(kernel: Kernel, dispatcher: Any) -> Callable:
    """Returns the dispatcher's ``compile``, where read-only arrays run what is made for writable ones, if it does not write them."""
    from numba import types

    compile_types = dispatcher.compile

    def compile(given: Any) -> Any:
        writable = tuple(t.copy(readonly=False) if isinstance(t, types.Array) else t for t in given)
        if writable != given:
            refuse_read_only(kernel, given)
        try:
            entry = uninterrupted(compile_types, writable)
        except Exception as error:
            if UNCOUNTED not in str(error):
                raise
            raise TypeError(
                f"kernel {kernel.function.__name__}: a helper makes an array, or assigns one to a slice; write its elements in a loop, take "
                f"scratch from the kernel, or declare it @device_function(makes=True). Numba says: {error}"
            ) from None
        if writable != given:
            dispatcher._insert([t._code for t in given], entry, False)
        return entry

    return compile
