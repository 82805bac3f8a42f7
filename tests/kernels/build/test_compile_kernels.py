"""How kernels are compiled: lazily, once for all processes, without a cache or a compiler, from several threads."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu.build import cache
from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel
from funcnn.kernels.cpu.build.parts import part, uncollected
from funcnn.kernels.cpu.build.watch import Watch, no_compile
from funcnn.kernels.cpu.elementwise import activation
from funcnn.kernels.cpu.elementwise import loops as elementwise
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.norm import layer_norm
from funcnn.kernels.cpu.reduce import functions as reduce
from funcnn.kernels.cpu.softmax import rows as softmax_rows
from funcnn.warmup.programs import PROGRAMS
from tests.plain import compiled_only, surrounded

FEW = ["max pooling", "layer normalization", "embedding"]
SMALL = [
    *FEW, "convolution", "3 x 3 convolution", "depthwise convolution", "transposed convolution", "average pooling",
    "unpooling", "batch normalization", "softmax and cross-entropy", "LSTM", "GRU", "interpolation", "grid_sample",
    "unfold and fold", "SGD", "Adam",
]  # fmt: skip
ROOT = Path(__file__).parents[3]


def python(code, *args, **env):
    """Run a script in a process of its own; what it printed and what it wrote to stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FUNCNN_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**inherited, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in env.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def results(dtype, names):
    """What some small programs and kernels give."""
    made = {}
    for name in names:
        fn.manual_seed(0)
        made.update({f"{name} {i}": array for i, array in enumerate(PROGRAMS[name](dtype))})
    x = np.linspace(-0.9, 0.9, 7).astype(dtype)
    for kernel in (
        elementwise.erf,
        elementwise.erfc,
        elementwise.erfinv,
        elementwise.sin,
        elementwise.tanh,
        activation.gelu,
    ):
        kernel(x, made.setdefault(kernel.__name__, np.empty_like(x)), (), 2)
    activation.elu_grad(x, x, made.setdefault("elu_grad", np.empty_like(x)), (1.0, 2.0, 0.5), 1)
    return made


RESULTS = f"""
import runpy, sys
import numpy as np
np.savez(sys.argv[1], **runpy.run_path({__file__!r})["results"](sys.argv[2], sys.argv[3:]))
"""


@compiled_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_results_without_a_compiler(tmp_path, dtype):
    python(RESULTS, tmp_path / "plain.npz", dtype, *SMALL, NUMBA_DISABLE_JIT=1, FUNCNN_CACHE_DIR=tmp_path)
    plain, compiled = np.load(tmp_path / "plain.npz"), results(dtype, SMALL)
    assert set(plain.files) == set(compiled)
    for name, value in compiled.items():
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(plain[name], value, tolerance, tolerance, err_msg=name)


@compiled_only
def test_a_second_process_compiles_nothing(tmp_path):
    env = {"FUNCNN_CACHE_DIR": tmp_path / "cache", "FUNCNN_LOG_COMPILES": 1}
    first, second = (python(RESULTS, tmp_path / f"{i}.npz", "float32", *FEW, **env)[1] for i in range(2))
    for name in ("plane_maxima", "plane_peaks", "normalize_rows", "gather_numbers", "erfinv", "gelu"):
        assert f"funcnn: compiling {name}(" in first
    assert second == ""


WITHOUT_CACHE = """
import numpy as np
from funcnn.kernels.cpu.elementwise import loops as elementwise
x, y = np.full(3, 0.5), np.empty(3)
elementwise.exp(x, y, (), 1), elementwise.log(y, x, (), 1)
print(x.round(12))
"""


@compiled_only
def test_an_unwritable_cache_warns_once_and_works(tmp_path):
    (tmp_path / "file").write_text("")
    out, err = python(WITHOUT_CACHE, FUNCNN_CACHE_DIR=tmp_path / "file" / "cache")
    assert out == "[0.5 0.5 0.5]\n"
    assert err.count("funcnn cannot keep compiled kernels") == 1 and "FUNCNN_CACHE_DIR" in err


MODULES = """
import pkgutil, sys
from importlib import import_module
import funcnn.kernels
for module in pkgutil.walk_packages(funcnn.kernels.__path__, "funcnn.kernels."):
    import_module(module.name)
    assert "numba" not in sys.modules, module.name
    print(module.name)
"""


def test_importing_a_kernel_does_not_import_numba():
    modules = python(MODULES)[0].split()
    assert {
        "funcnn.kernels.cpu.build.compile",
        "funcnn.kernels.cpu.softmax.softmax",
        "funcnn.kernels.cuda.shim",
    } <= set(modules)


USERS = """
import os, numba, numpy as np
from funcnn.kernels.cpu.elementwise import loops as elementwise
@numba.njit
def mine(x):
    return x + 1
x = np.zeros(3)
elementwise.erf(x, x, (), 1), mine(1)
assert numba.config.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"]
"""


@compiled_only
def test_users_kernels_are_left_alone(tmp_path):
    env = {"FUNCNN_CACHE_DIR": tmp_path / "ours", "NUMBA_CACHE_DIR": tmp_path / "theirs", "FUNCNN_LOG_COMPILES": 1}
    _, err = python(USERS, **env)
    assert "compiling erf(" in err and "mine" not in err
    assert (tmp_path / "ours").is_dir() and not (tmp_path / "theirs").exists()


@contextmanager
def collecting(enabled):
    """Python's garbage collector on or off, and afterwards as it was."""
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        yield
    finally:
        (gc.enable if before else gc.disable)()


def look():
    """Nothing; a test puts an intrinsic in its place."""


def _looks(x):
    look()


def _fails(x):
    look()
    return x.no_such_attribute


@compiled_only
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("body", [_looks, _fails])
def test_the_garbage_collector_rests_while_a_kernel_compiles(monkeypatch, enabled, body):
    seen = []

    def noted(typingctx):
        seen.append(gc.isenabled())
        return numba.types.void(), lambda context, builder, signature, values: context.get_dummy_value()

    monkeypatch.setattr(compiling, "cache_directory", lambda: None)
    monkeypatch.setitem(globals(), "look", intrinsic(look)(noted))
    with collecting(enabled):
        with pytest.raises(numba.TypingError, match="no_such_attribute") if body is _fails else nullcontext():
            kernel(body)(np.zeros(2))
        assert gc.isenabled() is enabled and seen and not any(seen)


def _adds(x):
    x[0] += 1


@compiled_only
def test_frames_are_aligned_to_vectors(monkeypatch):
    monkeypatch.setattr(compiling, "cache_directory", lambda: None)
    adding, x = kernel(_adds), np.zeros(2)
    adding(x)
    assert x[0] == 1
    assert f"alignstack={vector_bytes()}" in next(iter(adding.compiled.inspect_llvm().values()))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_goes_on_as_it_was(enabled):
    with collecting(enabled):
        assert uncollected(gc.isenabled) is False
        with pytest.raises(ValueError, match="inside"):
            uncollected(int, "inside")
        assert gc.isenabled() is enabled


THREADS = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np
from funcnn.kernels.cpu.softmax.entropy import exponentials, log_sums
from funcnn.kernels.cpu.softmax.softmax import softmax_forward
barrier = Barrier(6)
def first(i):
    x, y, one = np.zeros((1, 4, 1)), np.empty((1, 4, 1)), np.zeros((1, 1))
    barrier.wait()
    if i % 3 == 0:
        softmax_forward(x, y, False, one[0], one[0].copy(), (1, 1), 1)
        return y[0, 0, 0] - 0.25
    if i % 3 == 1:
        log_sums(x, one, one.copy(), one[0].copy(), one[0].copy(), (1, 1), 1)
    else:
        exponentials(x, one, one, one + 1, y, np.zeros((1, 1), np.int64), -100, (1, 1), 1)
    return one[0, 0]
with ThreadPoolExecutor(6) as pool:
    assert max(map(abs, pool.map(first, range(6)))) < 1e-12
"""


@compiled_only
def test_first_calls_from_several_threads(tmp_path):
    python(THREADS, FUNCNN_CACHE_DIR=tmp_path)


@device_function
def half(x):
    return x / 2


@kernel
def sqrt(x, y):
    """Bears the name of an attribute that it uses."""
    for i in range(x.size):
        y[i] = half(math.sqrt(x[i]))


def test_a_kernel_may_stand_outside_the_package():
    x, y = np.array([4.0, 9.0]), np.empty(2)
    sqrt(x, y)
    np.testing.assert_array_equal(y, [1.0, 1.5])


def test_a_helper_called_first_is_what_a_kernel_then_uses():
    @device_function
    def double(x):
        return 2 * x

    assert double(4) == 8 and double.dispatcher() is double.compiled


@compiled_only
def test_helpers_count_no_references():
    """The counts of who holds an array are shared by all threads: for each of many short rows they would wait for each other."""
    array, size = numba.float32[:, :, ::1], numba.intp
    for helper in (softmax_rows.softmax_row, layer_norm.row_spread, reduce.sums):
        assert not helper.holds()
    row = softmax_rows.softmax_row.part()
    row.compile((array, array, size, size))
    for made in row.overloads.values():
        assert "NRT_" not in str(made.library._get_module_for_linking())
    making = device_function(makes=True)(lambda count: np.empty(count))
    assert making.holds(), "it makes an array, which has to be freed"


def test_every_call_can_be_surrounded():
    seen, x = [], np.array([4.0])
    with surrounded(lambda kernel, args: seen.append(kernel.__name__) or kernel.compiled(*args)):
        sqrt(x, x)
    sqrt(x, x)
    assert seen == ["sqrt"] and x[0] == 0.5


def test_a_cache_that_cannot_be_made_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_told", set())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUNCNN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="funcnn cannot keep compiled kernels"):
        assert cache.cache_directory.__wrapped__() is None
    monkeypatch.setattr(compiling, "cache_directory", lambda: None)
    assert kernel(half.function)(8) == 4


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "there"), ("linux", "", ".cache"), ("win32", "LOCALAPPDATA", "there"),
        ("win32", "", "AppData/Local"), ("darwin", "", "Library/Caches"),
    ],
)  # fmt: skip
def test_the_users_cache_is_where_the_system_has_it(platform, variable, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "there")
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert cache._user_cache() == (Path(expected) if variable else Path.home() / expected)


def test_compilations_are_counted_logged_or_refused(monkeypatch, capsys):
    monkeypatch.setattr(Watch, "count", 0)
    monkeypatch.setenv("FUNCNN_LOG_COMPILES", "1")
    Watch.compiling(elementwise.exp.function, (1,))
    Watch.compiling(half.function, (2,))  # users' kernels, too
    assert Watch.count == 2
    assert capsys.readouterr().err == "funcnn: compiling exp(1,)\nfuncnn: compiling half(2,)\n"
    with no_compile(), pytest.raises(RuntimeError, match=r"no_compile: kernel half\(2,\) is not in the cache"):
        Watch.compiling(half.function, (2,))
    assert Watch.count == 2 and not Watch.forbidden


def test_a_part_of_a_kernel_is_never_called_from_python(monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    made = part(half.function, {"nogil": True})
    assert made.py_func is half.function and made.targetoptions["no_cpython_wrapper"] and not made.overloads


def test_read_only_arrays_run_what_is_made_for_writable_ones():
    from numba import types

    writable = types.Array(types.float32, 1, "C")
    asked, inserted = [], []
    made = SimpleNamespace(
        compile=lambda given: asked.append(given) or "entry", _insert=lambda *how: inserted.append(how)
    )
    compile_ = compiling._for_writable(elementwise.sqrt, made)
    assert compile_((writable, types.int64)) == "entry" and not inserted
    assert compile_((writable.copy(readonly=True), types.int64)) == "entry" and len(inserted) == 1
    assert asked == [(writable, types.int64)] * 2 and inserted[0][1:] == ("entry", False)


@compiled_only
def test_other_numba_code_compiles_as_without_us():
    from numba.core import event
    from numba.experimental import jitclass

    sqrt(np.ones(1), np.ones(1))
    assert not any(
        type(listener).__module__.startswith("funcnn") for list_ in event._registered.values() for listener in list_
    )
    names = {}
    exec("def f(x):\n    return x + 1\nclass C:\n    def __init__(self):\n        self.x = 2\n", names)
    names["f"].__module__ = None
    assert numba.njit(names["f"])(1) == 2
    with no_compile():
        assert numba.njit(lambda x: x * 3)(1) == 3
    assert jitclass([("x", numba.int64)])(names["C"])().x == 2


PRANGE = """
import threading, numba, numpy as np, funcnn as fn
from funcnn.kernels.cpu.build.compile import kernel

@kernel(parallel=True)
def rows(x, y, workers):
    for i in numba.prange(x.size):
        y[i] = x[i] * 2
        workers[i] = numba.get_thread_id()

x, seen = np.arange(20_000.0), np.zeros(20_000, np.int64)
def most(n):
    fn.set_num_threads(n)
    rows(x, np.empty_like(x), seen)
    return len(set(seen))
def work():
    for _ in range(100):
        y = np.empty_like(x)
        rows(x, y, np.zeros_like(seen))
        assert (y == 2 * x).all()
many, one = most(2), most(1)
pool = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in pool], [t.join() for t in pool]
print(one, many <= 2, numba.threading_layer(), numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS)
"""


@compiled_only
def test_a_users_parallel_loops_follow_set_num_threads_and_python_threads_take_turns(tmp_path):
    (tmp_path / "prange.py").write_text(PRANGE)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import warnings; warnings.simplefilter('ignore'); import prange"
    )
    out, _ = python(code, tmp_path, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS=2, FUNCNN_CACHE_DIR=tmp_path)
    assert out.split() == ["1", "True", "workqueue", "True"]


def _doubles(x):
    for i in numba.prange(x.size):
        x[i] *= 2


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_a_parallel_kernel_runs_on_the_chosen_number_of_threads(monkeypatch, layer):
    doubling, x = kernel(parallel=True)(_doubles), np.ones(2)
    monkeypatch.setattr(compiling, "cache_directory", lambda: None)
    doubling(x)
    assert x[0] == 2
    before = numba.get_num_threads()
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    monkeypatch.setattr(numba, "threading_layer", lambda: layer)
    monkeypatch.setattr(doubling, "compiled", lambda: (numba.get_num_threads(), doubling.turns.locked()))
    monkeypatch.setattr(compiling.threads, "get_num_threads", lambda: 1)
    assert doubling() == (1, layer == "workqueue")
    assert numba.get_num_threads() == before and not doubling.turns.locked()


def test_no_compile_decorates_functions():
    @no_compile()
    def inside():
        return bool(Watch.forbidden)

    assert inside() and inside() and not Watch.forbidden
