"""How kernels are compiled: lazily, once per machine, into a directory of funcnn's own.

``@kernel`` only notes the function, so importing a kernel file costs nothing and does not import Numba. The first call of
any kernel of a file replaces all of that file's kernels by Numba dispatchers. The cache directory's name carries a hash
of every kernel source: Numba looks only at the file that a kernel stands in, and would miss an edit in a helper's file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}  # NaN and inf survive, unlike with fastmath=True
_lock = threading.RLock()
_directory: list[str | None] = []


class Kernel:
    """A function that becomes a Numba dispatcher when it, or a kernel of its file, is first called."""

    def __init__(self, function: Callable):
        update_wrapper(self, function)
        self.function = function
        self.compiled: Any = None

    def __call__(self, *args: Any) -> Any:
        if self.compiled is None:
            with _lock:
                _compile_file(self.function.__globals__)
        return self.compiled(*args)


def kernel(function: Callable) -> Kernel:
    """Declare a kernel: it takes C-contiguous writable arrays and numbers, and fills the output arrays it is given."""
    return Kernel(function)


def _compile_file(names: dict[str, Any]) -> None:
    """Turn every kernel among a module's names, its own and imported ones, into a dispatcher bound to that name."""
    for name, value in list(names.items()):
        if isinstance(value, Kernel):
            if value.compiled is None:
                value.compiled = _dispatcher(value.function)
                if value.function.__globals__ is not names:
                    _compile_file(value.function.__globals__)
            names[name] = value.compiled


def _dispatcher(function: Callable) -> Any:
    import numba

    directory = cache_directory()
    options = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    if directory is None:
        return numba.njit(function, **options)
    saved = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = directory  # read when a function is decorated; users' own kernels keep their setting
    try:
        return numba.njit(function, cache=True, **options)
    finally:
        numba.config.CACHE_DIR = saved


def cache_directory() -> str | None:
    """Where compiled kernels are kept: ``$FUNCNN_CACHE_DIR`` or the user's cache; None, with one warning, if unwritable."""
    if not _directory:
        _directory.append(_find_directory())
        _log_compiles()
    return _directory[0]


def _find_directory() -> str | None:
    root = os.environ.get("FUNCNN_CACHE_DIR")
    try:
        base = Path(root) if root else _user_cache() / "funcnn"
        path = base / sources_hash()
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
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sources_hash() -> str:
    """A hash of every kernel source and of the versions of Numba and Python."""
    import numba

    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _log_compiles() -> None:
    """With ``FUNCNN_LOG_COMPILES=1``, a line on stderr for every kernel that is compiled rather than loaded."""
    if os.environ.get("FUNCNN_LOG_COMPILES") != "1":
        return
    from numba.core import event

    class Log(event.Listener):
        def on_start(self, happening: Any) -> None:
            data = happening.data
            print(f"funcnn: compiling {data['dispatcher'].py_func.__name__}{data['args']}", file=sys.stderr)

        def on_end(self, happening: Any) -> None:
            pass

    event.register("numba:compile", Log())
