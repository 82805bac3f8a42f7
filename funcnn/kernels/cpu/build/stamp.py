"""What a kernel's machine code follows from, as one hash: its code, every helper and constant that it names, the compiler.

A compiled function counts by its code, for that is what Numba reads, and each global by its value, in turn: other kernels
and Numba functions, their constants, attributes of modules, cells of closures. So an edit of one kernel leaves the others'
hashes as they are, wherever they stand. What runs while a kernel compiles (an intrinsic and the functions and classes that
it names) may look at anything in its file, so besides its code the whole file counts. NumPy, Numba and the standard library
count by their versions.
"""

from __future__ import annotations

import os
import re
import sys
import time
from functools import cache
from importlib import import_module
from opcode import EXTENDED_ARG, opmap
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.parts import compilers
from funcnn.kernels.cpu.machine import vector_bytes

BEGAN = time.time()  # about when this process loaded its sources
_OUTSIDE = {"numba", "numpy", "llvmlite"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Unknown(Exception):
    """The code cannot be told by its hash: what was loaded may be another text than the file that it came from."""


def sha256(content: bytes) -> bytes:
    """Returns the digest of some bytes."""
    import hashlib  # OpenSSL, which only a first kernel needs: a tenth of an import of NumPy

    return hashlib.sha256(content).digest()


class Walk:
    """Computes digests of functions, classes and constants. Recursive definitions refer to one another by their depth."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, bool], tuple[Any, bytes]] = {}  # the value is held, so that its id stays its own
        self.open: dict[tuple[int, bool], int] = {}
        self.lowest = sys.maxsize  # the outermost open value that was met again

    def digest(self, value: Any, runs: bool = False) -> bytes:
        """Returns the digest of a value that code names. ``runs``: the code that names it runs while a kernel compiles."""
        key = id(value), runs
        if key in self.known:
            return self.known[key][1]
        if key in self.open:
            self.lowest = min(self.lowest, self.open[key])
            return b"again %d" % (len(self.open) - self.open[key])
        depth = self.open[key] = len(self.open)
        outer, self.lowest = self.lowest, sys.maxsize
        try:
            made = sha256(b"\0".join(_parts(value, runs, self)))
        finally:
            lowest, self.lowest = self.lowest, min(outer, self.lowest)
            del self.open[key]
        if lowest > depth:  # else it is part of a circle, whose digests depend on where one enters it
            self.known[key] = value, made
        return made


_walk = Walk()


def stamp(kernel: Any) -> str:
    """Returns the hash of a kernel and of all that it depends on. Raises ``Unknown`` where that is not known."""
    return sha256(_environment() + _walk.digest(kernel)).hex()


@cache
def _environment() -> bytes:
    """Versions, the settings that change code, the CPU's vectors, and our own compiler passes."""
    import llvmlite
    import numba

    settings = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML")
    told = [sys.version, numba.__version__, llvmlite.__version__, np.__version__.rsplit(".", 1)[0], vector_bytes()]
    told += [getattr(numba.config, name, None) for name in settings]
    return repr(told).encode() + _walk.digest(compilers, True)


def _parts(value: Any, runs: bool, walk: Walk) -> list[bytes]:
    """Lists the pieces whose hash stands for a value."""
    if hasattr(type(value), "stamped"):  # a kernel or a helper of one
        options, function, inside = value.stamped()
        return [b"kernel", *_constant(options, runs, walk), walk.digest(function, inside)]
    if isinstance(value, FunctionType):
        return _function(value, runs, walk)
    if isinstance(getattr(value, "py_func", None), FunctionType):  # one of Numba's own
        options = getattr(value, "targetoptions", None)
        return [b"numba", *_constant(options, runs, walk), walk.digest(value.py_func, False)]
    if isinstance(getattr(value, "__wrapped__", None), FunctionType):
        return [b"wrapped", walk.digest(value.__wrapped__, True)]
    if isinstance(value, type):
        return _class(value, walk)
    return _constant(value, runs, walk)


def _function(function: Any, runs: bool, walk: Walk) -> list[bytes]:
    module = str(function.__module__)
    parts = [b"function", module.encode(), function.__qualname__.encode()]
    if _outside(module):
        return parts
    parts += _code(function.__code__)
    if runs:
        parts.append(_file(function.__code__.co_filename))
    names = sorted(_names(function.__code__))
    for name in names:
        if name in function.__globals__:
            parts += [name.encode(), *_named(function.__globals__[name], names, runs, walk)]
    for name in _imported(function.__code__) if runs else ():
        parts += [name.encode(), *_named(_module(name, function.__globals__), names, runs, walk)]
    for cell in function.__closure__ or ():
        parts.append(walk.digest(cell.cell_contents, runs))
    return [*parts, *_constant((function.__defaults__, function.__kwdefaults__), runs, walk)]


def _named(value: Any, names: list[str], runs: bool, walk: Walk, depth: int = 0) -> list[bytes]:
    """Returns a global as the code sees it: of a module the attributes that it may name, of anything else the whole."""
    if not isinstance(value, ModuleType):
        return [walk.digest(value, runs or isinstance(value, (FunctionType, type)))]
    parts = [value.__name__.encode()]
    if not _outside(value.__name__) and depth < 4:
        for name in names:
            if name in vars(value):
                parts += [name.encode(), *_named(vars(value)[name], names, runs, walk, depth + 1)]
    return parts


def _class(value: Any, walk: Walk) -> list[bytes]:
    parts = [b"class", str(value.__module__).encode(), value.__qualname__.encode()]
    if _outside(str(value.__module__)):
        return parts
    path = getattr(sys.modules.get(value.__module__), "__file__", None)
    parts += [_file(path) if path else b"", *(walk.digest(base, True) for base in value.__bases__)]
    for name, member in sorted(vars(value).items()):
        if name not in ("__dict__", "__weakref__", "__doc__"):
            parts += [name.encode(), *(walk.digest(part, True) for part in _unwrapped(member))]
    return parts


def _unwrapped(member: Any) -> list[Any]:
    if isinstance(member, property):
        return [member.fget, member.fset]
    return [getattr(member, "__func__", member)]


def _constant(value: Any, runs: bool, walk: Walk) -> list[bytes]:
    kind = type(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [b"array", repr((value.dtype, value.shape)).encode(), value.tobytes()]
    if isinstance(value, dict):
        pairs = [(walk.digest(key, runs), walk.digest(held, runs)) for key, held in list(value.items())]
        return [b"dict", *(part for pair in sorted(pairs) for part in pair)]
    if isinstance(value, (set, frozenset)):
        return [b"set", *sorted(walk.digest(part, runs) for part in value)]
    if isinstance(value, (tuple, list)):
        return [kind.__qualname__.encode(), *(walk.digest(part, runs) for part in value)]
    text = [kind.__module__.encode(), kind.__qualname__.encode(), _ADDRESS.sub("", repr(value)).encode()]
    return text if _outside(kind.__module__) else [*text, walk.digest(kind, True)]


# ---- code and files -----------------------------------------------------------------------------------------------------
def _code(code: CodeType) -> list[bytes]:
    """Returns what decides a code object's meaning: not its file, its lines or the position of its docstring."""
    parts = [code.co_code, getattr(code, "co_exceptiontable", b"")]
    shape = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    parts.append(repr((*shape, code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts += _code(constant)
        elif isinstance(constant, frozenset):
            parts.append(repr(sorted(map(repr, constant))).encode())
        else:
            parts.append(repr(constant).encode())
    return parts


def _names(code: CodeType) -> set[str]:
    """Returns every global and attribute that a function, or one within it, names."""
    return set(code.co_names).union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def operands(code: CodeType, operation: str) -> set[int]:
    """Returns the operands of an operation in a function's code, found twenty times faster than by ``dis``."""
    wanted, raw, high, found = opmap[operation], code.co_code, 0, set()
    for at in range(0, len(raw), 2):
        if raw[at] == wanted:
            found.add(raw[at + 1] | high)
        high = (raw[at + 1] | high) << 8 if raw[at] == EXTENDED_ARG else 0
    return found


def _imported(code: CodeType) -> set[str]:
    """Returns the modules that a function, or one within it, imports when it runs."""
    found = {code.co_names[place] for place in operands(code, "IMPORT_NAME")}
    found = {name for name in found if not _outside(name)}
    return found.union(*(_imported(part) for part in code.co_consts if isinstance(part, CodeType)))


def _module(name: str, names: dict[str, Any]) -> Any:
    """Returns the module that an import statement inside a function means; None where it cannot be imported."""
    for path in (name, f"{names.get('__package__')}.{name}"):
        try:
            return import_module(path)
        except (ImportError, ValueError):
            continue
    return None


@cache
def _outside(module: str) -> bool:
    """Whether a module is the standard library's or a compiler's, which versions stand for."""
    root = module.partition(".")[0]
    return root in _OUTSIDE or root in sys.stdlib_module_names


@cache
def _file(path: str) -> bytes:
    """Returns the hash of a source file, as it was when this process began."""
    try:
        if os.stat(path).st_mtime > BEGAN:
            raise Unknown(f"{path} was written after it may have been loaded")
        with open(path, "rb") as file:
            return sha256(file.read())
    except OSError as error:
        raise Unknown(f"{path} cannot be read") from error
