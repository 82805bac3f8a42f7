"""The kernel cache: what a file's name follows from, and files that are damaged, another user's, or cannot be written."""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import pickle
import subprocess
import sys
import warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from funcnn.kernels.cpu.build import cache, stamp
from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.build.compile import Watch, kernel
from funcnn.kernels.cpu.softmax.softmax import softmax_forward
from tests.plain import PLAIN, compiled_only

ROOT = Path(__file__).parents[3]

# ---- what a kernel's hash follows from ---------------------------------------------------------------------------------
FILES = {
    "deep": "DEEP = 5\n\ndef ir_name(x):\n    return 'fadd'\n\nclass Emitter:\n    width = 4\n    def emit(self):\n        return self.width\n",
    "constants": "SCALE = 2.0\nTABLE = (1, (2, 3))\nUNUSED = 1\n",
    "emitters": """
import numba
from funcnn.kernels.cpu.build.compile import intrinsic
import deep

@intrinsic(twin=lambda x: x)
def emitted(typingctx, x):
    from deep import Emitter
    def codegen(context, builder, signature, values):
        return Emitter().emit() + deep.ir_name(values)
    return x(x), codegen

def plain(x):
    return x

@numba.extending.overload(plain)
def _(x):
    return lambda x: x * 1.5

class Sizes:
    LARGE = 64
""",
    "helpers": """
import numba, numpy as np
from funcnn.kernels.cpu.build.compile import device_function
WEIGHTS = np.arange(3.0)

@device_function
def inner(x):
    return x + 1

@device_function
def helper(x):
    return inner(x) * 2

@numba.njit
def jitted(x):
    return x - 1

def make(step):
    def stepped(x):
        return x + step
    return device_function(stepped)

stepped = make(3)

def body(x):
    return twisted(x)
""",
    "kernels": """
from funcnn.kernels.cpu.build.compile import kernel, kernel_from
from helpers import helper, jitted, stepped, WEIGHTS, body, inner
from emitters import Sizes, emitted, plain
from constants import SCALE
import constants

@kernel
def used(x, y):
    for i in range(x.size):
        y[i] = helper(x[i]) * SCALE + jitted(WEIGHTS[1]) + emitted(x[i]) + stepped(1.0) + constants.TABLE[0]
        y[i] += Sizes.LARGE + plain(1.0)

@kernel
def other(x):
    x[0] = 1

twisted = kernel_from(body, "twisted", twisted=inner)
""",
}
EDITS = {  # an edit, and which kernels it changes
    "a helper": ("helpers", "inner(x) * 2", "inner(x) * 3", {"used"}),
    "a helper's helper": ("helpers", "return x + 1", "return x + 2", {"used", "twisted"}),
    "an imported constant": ("constants", "SCALE = 2.0", "SCALE = 2.5", {"used"}),
    "a module's constant": ("constants", "(2, 3)", "(2, 4)", {"used"}),
    "a class's constant": ("emitters", "LARGE = 64", "LARGE = 65", {"used"}),
    "an array": ("helpers", "np.arange(3.0)", "np.arange(3.0) + 1", {"used"}),
    "Numba's own": ("helpers", "return x - 1", "return x - 2", {"used"}),
    "a closure": ("helpers", "make(3)", "make(4)", {"used"}),
    "what an intrinsic calls": ("deep", "fadd", "fsub", {"used"}),
    "a class it imports": ("deep", "width = 4", "width = 8", {"used"}),
    "a file of an intrinsic": ("deep", "DEEP = 5", "DEEP = 6", {"used"}),
    "an overload": ("emitters", "x * 1.5", "x * 2.5", {"used"}),
    "a template": ("helpers", "return twisted(x)", "return -twisted(x)", {"twisted"}),
    "itself": ("kernels", "x[0] = 1", "x[0] = 2", {"other"}),
    "something unused": ("constants", "UNUSED = 1", "UNUSED = 2", set()),
    "a comment": ("kernels", "import constants", "import constants  # for sizes", set()),
}
_loaded = count()


def stamps(directory, monkeypatch, module=None, old="", new=""):
    """The hashes of the three kernels, loaded from a directory of their own with one edit."""
    directory = directory / str(next(_loaded))
    directory.mkdir()
    for name, text in FILES.items():
        assert name != module or old in text
        (directory / f"{name}.py").write_text(text.replace(old, new) if name == module else text)
    for name in FILES:
        spec = importlib.util.spec_from_file_location(name, directory / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, importlib.util.module_from_spec(spec))
        spec.loader.exec_module(sys.modules[name])
    return {name: stamp.stamp(getattr(sys.modules["kernels"], name)) for name in ("used", "other", "twisted")}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_what_names_it_and_nothing_else(tmp_path, monkeypatch, edit):
    monkeypatch.setattr(stamp, "BEGAN", math.inf)
    before, again = stamps(tmp_path, monkeypatch), stamps(tmp_path, monkeypatch)
    assert before == again
    module, old, new, changes = EDITS[edit]
    after = stamps(tmp_path, monkeypatch, module, old, new)
    changed = {name for name in before if before[name] != after[name]}
    assert (
        changes <= changed if PLAIN else changes == changed
    )  # without a compiler Numba's functions are plain: their files count


def _step(x):
    return step  # noqa: F821


def _difference(x):
    return left(x) - right(x)  # noqa: F821


def test_options_and_the_order_of_helpers_count():
    assert stamp.stamp(kernel(_step)) == stamp.stamp(kernel(_step))
    assert stamp.stamp(kernel(_step)) != stamp.stamp(compiling.exact_function(_step))
    one, two = (compiling.kernel_from(_step, "step", step=number) for number in (1, 2))
    pairs = [compiling.kernel_from(_difference, "pair", left=a, right=b) for a, b in ((one, two), (two, one))]
    assert stamp.stamp(pairs[0]) != stamp.stamp(pairs[1])


def _even(n):
    return n == 0 or odd(n - 1)  # noqa: F821


def _odd(n):
    return n != 0 and even(n - 1)  # noqa: F821


def test_helpers_that_call_one_another_have_hashes_that_do_not_depend_on_the_order():
    def made():
        even = compiling.kernel_from(_even, "even")
        odd = even.function.__globals__["odd"] = compiling.kernel_from(_odd, "odd", even=even)
        return even, odd, stamp.Walk()

    (even, odd, walk), (even2, odd2, walk2) = made(), made()
    first = walk.digest(even), walk.digest(odd)
    assert (walk2.digest(odd2), walk2.digest(even2)) == first[::-1]
    assert not even.holds() and not odd.holds()
    even, odd, _ = made()
    odd.makes = True
    assert even.holds()


def test_a_file_that_changed_under_the_process_is_not_trusted(tmp_path, monkeypatch):
    path = tmp_path / "late.py"
    path.write_text("x = 1")
    monkeypatch.setattr(stamp, "BEGAN", path.stat().st_mtime - 1)
    with pytest.raises(stamp.Unknown, match="was written after"):
        stamp._file(str(path))
    with pytest.raises(stamp.Unknown, match="cannot be read"):
        stamp._file(str(tmp_path / "absent.py"))


def test_the_hash_is_the_same_in_every_process():
    code = "from funcnn.kernels.cpu.build import stamp; from funcnn.kernels.cpu.softmax import softmax; print(stamp.stamp(softmax.softmax_forward))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == stamp.stamp(softmax_forward)


EDITED = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from userkernel import double
x = np.ones(3); double(x); print(x[0])
"""


@compiled_only
def test_an_edit_of_a_users_helper_is_seen_by_the_next_process(tmp_path):
    text = "from funcnn.kernels.cpu.build.compile import device_function, kernel\n"
    (tmp_path / "userkernel.py").write_text(
        text + "from userhelper import helper, SCALE\n@kernel\ndef double(x):\n    x[0] = helper(x[0]) * SCALE\n"
    )
    env = {
        **os.environ,
        "FUNCNN_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "FUNCNN_LOG_COMPILES": "1",
    }
    seen = []
    for factor, scale in ((2, 1.0), (2, 1.0), (3, 1.0), (3, 10.0)):
        (tmp_path / "userhelper.py").write_text(
            f"{text}SCALE = {scale}\n@device_function\ndef helper(x):\n    return x * {factor}\n"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", EDITED, str(tmp_path)], env=env, capture_output=True, text=True, check=True
        )
        seen.append((float(done.stdout), done.stderr.count("funcnn: compiling double")))
    assert seen == [(2, 1), (2, 0), (3, 1), (30, 1)]


# ---- files --------------------------------------------------------------------------------------------------------------
def _adds(x):
    x[0] += 1


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A cache of the test's own; no warning has been given yet."""
    monkeypatch.setattr(compiling, "cache_directory", lambda: str(tmp_path))
    monkeypatch.setattr(cache, "_told", set())
    monkeypatch.setattr(Watch, "count", 0)
    return tmp_path


def run():
    """Call a kernel as a process does that has not called it yet: how many compilations, and what is warned."""
    before, adding, x = Watch.count, kernel(_adds), np.zeros(2)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        adding(x)
    assert x[0] == 1
    return Watch.count - before, [str(warning.message) for warning in warned]


def _rest(data):
    return np.random.default_rng(0).bytes(len(data))


DAMAGES = {
    "empty": lambda data: b"", "cut": lambda data: data[: len(data) // 2], "one byte": lambda data: data[:-1],
    "garbled": _rest, "header": lambda data: b"\0" * 64 + data[64:], "mark only": lambda data: data[:16],
    "a bit": lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], "longer": lambda data: data + b"\0",
    "another pickle": lambda data: data[:16] + data[16:48] + b"cos\nsystem\n(S'false'\ntR.",
}  # fmt: skip


@compiled_only
def test_a_damaged_file_is_put_away_and_made_anew_with_one_warning(directory):
    assert run() == (1, []) and run() == (0, [])
    (file,) = directory.iterdir()
    whole = file.read_bytes()
    for name, damage in DAMAGES.items():
        cache._told.clear()
        file.write_bytes(damage(whole))
        compiled, warned = run()
        assert compiled == 1 and len(warned) == 1 and "it is damaged; it compiles anew" in warned[0], name
        file.write_bytes(damage(whole))
        assert run() == (1, []), name  # once
        assert run() == (0, []) and list(directory.iterdir()) == [file], name
    other = directory / file.name.replace("_adds", "_other")
    file.rename(other)
    assert cache._read(str(other)) is None  # a file under another's name


@compiled_only
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners")
def test_a_file_that_another_user_could_have_written_is_not_unpickled(directory, monkeypatch):
    run()
    (file,) = directory.iterdir()
    for mode in (0o666, 0o664, 0o646):
        file.chmod(mode)
        monkeypatch.setattr(pickle, "loads", lambda data: pytest.fail("unpickled"))
        cache._told.clear()
        compiled, warned = run()
        monkeypatch.undo()
        monkeypatch.setattr(compiling, "cache_directory", lambda: str(directory))
        assert compiled == 1 and f"others may write to it (mode {mode:o})" in warned[0]
    assert not file.stat().st_mode & 0o022 and run() == (0, [])


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners")
def test_only_the_user_and_root_are_trusted(monkeypatch, tmp_path):
    def status(uid, mode=0o100644):
        return SimpleNamespace(st_uid=uid, st_mode=mode)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache._distrust(status(1000)) == cache._distrust(status(0)) == ""
    assert "belongs to another user (1001)" in cache._distrust(status(1001))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "belongs to another user (1000)" in cache._distrust(status(1000))
    os.mkfifo(tmp_path / "fifo")
    with pytest.warns(UserWarning, match="it is not a plain file"):
        monkeypatch.setattr(cache, "_told", set())
        assert cache._read(str(tmp_path / "fifo")) is None


@compiled_only
@pytest.mark.parametrize("step", ["open", "replace"])
def test_a_full_disk_costs_one_warning(directory, monkeypatch, step):
    real = getattr(os, step)

    def full(path, *args):
        if step == "replace" or args[0] & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args)

    monkeypatch.setattr(os, step, full)
    compiled, warned = run()
    assert compiled == 1 and len(warned) == 1 and "No space left on device" in warned[0]
    assert run() == (1, []) and not list(directory.iterdir())


@compiled_only
def test_what_cannot_be_rebuilt_compiles(directory, monkeypatch):
    run()
    (file,) = directory.iterdir()
    cache._write(str(file), b"not a pickle")
    compiled, warned = run()
    assert compiled == 1 and "UnpicklingError" in warned[0] and run() == (0, [])


@compiled_only
def test_a_kernel_without_a_file_warns_and_is_not_kept(directory):
    names = {"kernel": kernel}
    exec("def typed(x):\n    x[0] += 1\n", names)
    with pytest.warns(UserWarning, match=r"kernel typed stands in no file \(<string>\)"):
        kernel(names["typed"])(np.zeros(1))
    assert not list(directory.iterdir())


LARGE = np.arange(2_000_000.0)


def _reads_large(x):
    x[0] += LARGE[3]


@compiled_only
def test_a_kernel_that_holds_an_address_warns_and_is_not_kept(directory):
    x = np.zeros(1)
    with pytest.warns(UserWarning, match="kernel _reads_large is compiled anew in each process"):
        kernel(_reads_large)(x)
    assert x[0] == 3 and not list(directory.iterdir())


class Shy:
    """Cannot be looked at."""

    def __repr__(self):
        raise LookupError("not for you")


shy = Shy()


def _with_shy(x):
    x.shy = shy


def test_what_cannot_be_hashed_is_not_kept():
    with pytest.warns(UserWarning, match="kernel _with_shy is compiled anew in each process: not for you"):
        assert cache._stamp(kernel(_with_shy)) is None


class Target:
    """Stands for Numba's: what a compiled form is asked for, and what a rebuilt one is."""

    def refresh(self):
        """Nothing is out of date."""

    def codegen(self):
        return self

    def magic_tuple(self):
        return ("a machine",)


def test_forms_are_kept_by_types_machine_and_hash(directory, monkeypatch):
    from numba.core.compiler import CompileResult

    monkeypatch.setattr(CompileResult, "_rebuild", lambda target, *parts: parts)
    missed, target = [], Target()
    made = SimpleNamespace(
        codegen=target, lifted=(), library=SimpleNamespace(has_dynamic_globals=False), _reduce=lambda: (1, "two")
    )
    held = cache.KernelCache(kernel(_adds), str(directory), missed.append)
    assert held.load_overload("types", target) is None and missed == ["types"]
    held.save_overload("types", made)
    assert held.load_overload("types", target) == (1, "two") and missed == ["types"]
    assert held.load_overload("other types", target) is None
    held.save_overload("<function f at 0x7f>", made)  # an address differs in each process
    (file,) = directory.iterdir()
    whole = file.read_bytes()
    for name, damage in DAMAGES.items():
        cache._told.clear()
        file.write_bytes(damage(whole))
        with pytest.warns(UserWarning, match="it is damaged"):
            assert held.load_overload("types", target) is None, name
        assert not file.exists()
    cache._write(str(file), b"not a pickle")
    with pytest.warns(UserWarning, match="UnpicklingError"):
        cache._told.clear()
        assert held.load_overload("types", target) is None
    made.library.has_dynamic_globals = True
    with pytest.warns(UserWarning, match="it holds addresses of this process"):
        held.save_overload("types", made)
    unkept = cache.KernelCache(kernel(_adds), None, missed.append)
    unkept.save_overload("types", made)
    assert unkept.load_overload("types", target) is None and not list(directory.iterdir())


def test_files_that_cannot_be_read_or_written_cost_a_warning(directory, monkeypatch):
    (directory / "folder.code").mkdir()
    with pytest.warns(UserWarning, match="cannot read compiled kernels"):
        assert cache._read(str(directory / "folder.code")) is None
    with pytest.warns(UserWarning, match="cannot keep compiled kernels"):
        cache._write(str(directory / "absent" / "x.code"), b"")
    names = {}
    exec("def typed(x):\n    x[0] += 1\n", names)
    with pytest.warns(UserWarning, match="stands in no file"):
        assert cache._stamp(kernel(names["typed"])) is None
    monkeypatch.setenv("FUNCNN_CACHE_DIR", str(directory / "there"))
    assert cache.cache_directory.__wrapped__() == str(directory / "there" / "kernels")


def test_small_pieces_of_the_hash():
    assert stamp._module("no_such_module", {"__package__": "funcnn"}) is None
    assert stamp._module("core", {"__package__": "funcnn"}).__name__ == "funcnn.core"
    assert stamp._unwrapped(property(len)) == [len, None] and stamp._unwrapped(staticmethod(len)) == [len]
    walk = stamp.Walk()
    assert walk.digest({"a", "b", 1}) == walk.digest({1, "b", "a"}) != walk.digest(frozenset({"a"}))
    assert walk.digest({1: 2, 3: 4}) == walk.digest({3: 4, 1: 2}) != walk.digest({1: 4, 3: 2})
    assert walk.digest(-0.0) != walk.digest(0.0) and walk.digest(1) != walk.digest(True)
