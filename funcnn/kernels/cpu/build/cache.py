"""Machine code in files, one for each kernel and combination of types: ``<name>-<hash>.code``.

The hash is ``stamp.py``'s, of all that the code follows from, with the types and the CPU, so a file is never out of date, and
several versions and checkouts share a directory. A file is a mark, a checksum of name and content, and what Numba pickles.
It is unpickled only if the user or root owns it, nobody else may write to it, and the checksum holds; any other file is
put away and the kernel compiles anew. Whatever goes wrong on the disk costs a warning, once, and never the computation.
"""

from __future__ import annotations

import os
import pickle
import stat
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from funcnn.kernels.cpu.build.stamp import sha256, stamp

if TYPE_CHECKING:
    from pathlib import Path

_MARK = b"funcnn kernel 1\n"


@cache
def cache_directory() -> str | None:
    """Returns where compiled kernels are kept: ``$FUNCNN_CACHE_DIR`` or the user's cache; None, with one warning, if there is none."""
    from pathlib import Path

    root = os.environ.get("FUNCNN_CACHE_DIR")
    try:
        path = (Path(root) if root else _user_cache() / "funcnn") / "kernels"
        path.mkdir(parents=True, exist_ok=True)
        return str(path)
    except (OSError, RuntimeError) as error:
        _warn_unkept(error)
        return None


def _user_cache() -> Path:
    from pathlib import Path

    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


_told: set[str] = set()


def _warn_once(kind: str, text: str) -> None:
    if kind not in _told:
        _told.add(kind)
        warnings.warn(text, stacklevel=2)


def _warn_of(kernel: Any, text: str) -> None:
    """Warns, with the file and line of the kernel."""
    code = kernel.function.__code__
    warnings.warn_explicit(text, UserWarning, code.co_filename, code.co_firstlineno)


def _warn_unkept(error: Exception) -> None:
    _warn_once(
        "unkept",
        f"funcnn cannot keep compiled kernels ({error}); they compile anew in each process. "
        "Set FUNCNN_CACHE_DIR to a writable directory",
    )


class KernelCache:
    """The cache of one kernel, in the place of Numba's. ``missed(args)`` is called before each compilation."""

    def __init__(self, kernel: Any, directory: str | None, missed: Callable):
        self.kernel, self.name, self.missed = kernel, kernel.__name__, missed
        self.cache_path, self.stamp = directory, _stamp(kernel) if directory else None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Returns the compiled form of these types, or None; Numba calls this first."""

        from numba.core.compiler import CompileResult

        target.refresh()
        path = self._path(signature, target.codegen())
        payload = _read(path) if path else None
        if path and payload is not None:
            try:
                return CompileResult._rebuild(target, *pickle.loads(payload))
            except Exception as error:  # whatever the content of a file does, the kernel can still be compiled
                _put_away(path, repr(error))
        self.missed(signature)
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keeps a form that Numba compiled; Numba calls this for each."""
        from numba.core.serialize import dumps

        path = self._path(signature, compiled.codegen)
        if path is None:
            return
        if compiled.library.has_dynamic_globals or any(not part.can_cache for part in compiled.lifted):
            why = "it holds addresses of this process (a foreign function, a large global array)"
            _warn_of(self.kernel, f"kernel {self.name} is compiled anew in each process: {why}")
            return
        _write(path, dumps(compiled._reduce()))

    def _path(self, signature: Any, codegen: Any) -> str | None:
        """Returns the file of these types on this CPU; None where nothing is kept."""

        told = repr((self.stamp, signature, codegen.magic_tuple()))
        if self.stamp is None or self.cache_path is None or " at 0x" in told:  # an address differs in each process
            return None
        return os.path.join(self.cache_path, f"{self.name}-{sha256(told.encode()).hex()[:32]}.code")


def _stamp(kernel: Any) -> str | None:
    """Returns the kernel's hash; None, with a warning, where its code has no file: in a prompt, from stdin or ``python -c``."""
    path = kernel.function.__code__.co_filename
    if not os.path.exists(path) and not path.startswith("<ipython-") and "ipykernel_" not in path:
        _warn_of(
            kernel,
            f"kernel {kernel.__name__} stands in no file ({path}), so it is compiled anew in each process; to keep what is "
            "compiled, put it into a module",
        )
        return None
    try:
        return stamp(kernel)
    except Exception as error:  # a global that cannot be looked at, say: the kernel may be compiled all the same
        _warn_of(kernel, f"kernel {kernel.__name__} is compiled anew in each process: {error or type(error).__name__}")
        return None


# ---- files ------------------------------------------------------------------------------------------------------------
def _seal(path: str, payload: bytes) -> bytes:
    return sha256(os.path.basename(path).encode() + payload)


def _read(path: str) -> bytes | None:
    """Returns the content of a file that can be trusted; None where there is none, or where it had to be removed."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            why = _distrust(os.fstat(handle))
            content = b"" if why else file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_once("unread", f"funcnn cannot read compiled kernels ({error}); they compile anew")
        return None
    size = len(_MARK) + 32
    payload = content[size:]
    if not why and content[:size] != _MARK + _seal(path, payload):
        why = "it is damaged"
    if why:
        _put_away(path, why)
        return None
    return payload


def _distrust(status: os.stat_result) -> str:
    """Returns why another user may have written a file, or nothing. Unpickling runs what the writer chose."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a plain file"
    if hasattr(os, "geteuid"):
        if status.st_uid not in (os.geteuid(), 0):
            return f"it belongs to another user ({status.st_uid})"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return ""


def _put_away(path: str, why: str) -> None:
    _warn_once(
        "damaged", f"funcnn does not load the compiled kernel {path}: {why}; it compiles anew, as others like it do"
    )
    with suppress(OSError):  # else the new file takes its place, if the directory allows it
        os.unlink(path)


def _write(path: str, payload: bytes) -> None:
    """Writes a file so that it appears whole or not at all."""
    passing = f"{path}.{os.getpid()}-{time.monotonic_ns()}"
    try:
        try:
            handle = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
            with open(handle, "wb") as file:
                file.write(_MARK + _seal(path, payload) + payload)
                os.replace(passing, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(passing)
            raise
    except OSError as error:
        _warn_unkept(error)
