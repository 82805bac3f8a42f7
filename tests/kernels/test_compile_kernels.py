"""How kernels are compiled: lazily, once for all processes, without a cache or a compiler, from several threads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from funcnn.kernels.cpu import activation, avg_pool, conv, elementwise, max_pool, norm, philox, softmax
from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.ops.pool_cpu import windows

ROOT = Path(__file__).parents[2]
MODULES = ["avg_pool", "compile", "conv", "elementwise", "norm", "max_pool", "philox", "softmax"]


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


def pooling(run, made, array):
    """Pooling of (2, 1, 4, 5) images by three windows, and of wide ones by vector blocks."""
    for name, width in (("", 5), (" wide", 45)):
        for step in (1, 2):
            size, stride, padding = (1, 3, 2), (1, 2, step), (0, 1, 1)
            x, dy = array(2, 1, 4, width), array(2, 1, 2, (width + 2 - 2) // step + 1)
            table = windows(x.shape[1:], dy.shape[1:], size, stride, padding, False, 0)
            where, kind = (size, stride, padding), f"{name} {step}"
            flat, images = dy.reshape(2, -1), x.reshape(2, -1)
            outs = [np.empty_like(dy), np.empty(dy.shape, np.int32)]
            run("max" + kind, max_pool.max_pool, outs, [x], *where, (1, 1, 1), 2, 1)
            outs = [np.empty_like(dy), np.empty(dy.shape, np.int32)]
            run("window max" + kind, max_pool.window_max, outs, [x], table.bounds, 2, 1)
            index = made[f"max{kind} 1"].reshape(2, -1)
            run(
                "scatter" + kind,
                lambda a, b, y: max_pool.pool_scatter(a, b, y, 1, 1),
                [np.empty_like(images)],
                [flat, index],
            )
            run(
                "gather" + kind,
                lambda a, b, y: max_pool.pool_gather(a, b, y, 1, 1),
                [np.empty_like(flat)],
                [images, index],
            )
            run(
                "unpool" + kind,
                lambda a, b, y: max_pool.max_unpool(a, b, y, 1, 1),
                [np.empty_like(images)],
                [flat, index],
            )
            run("avg" + kind, avg_pool.avg_pool, [np.empty_like(dy)], [x], table.extents, *where, 2, 1)
            bounds = table.bounds[0]
            run("window mean" + kind, avg_pool.window_mean, [np.empty_like(dy)], [x], bounds, table.extents, 2, 1)
            columns = table.covers, table.extents, 2, step, 1
            run("avg grad" + kind, avg_pool.avg_pool_grad, [np.empty_like(x)], [dy], *columns, 2, 1)
            columns = table.covers, table.extents, 1, 0, 0
            run("window mean grad" + kind, avg_pool.avg_pool_grad, [np.empty_like(x)], [dy], *columns, 2, 1)
            run("mean rows" + kind, avg_pool.mean_rows, [np.empty_like(x[:, 0, 0, 0])], [images], 1, 1)
            run("spread rows" + kind, avg_pool.spread_rows, [np.empty_like(images)], [flat[:, 0].copy()], 1, 1)


def everything(dtype="float64"):
    """One small result of every kernel."""
    rng = np.random.default_rng(0)
    made = {}

    def array(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def run(name, kernel, outs, ins, *args):
        kernel(*ins, *outs, *args)
        made.update({f"{name} {i}": out for i, out in enumerate(outs)})

    where = ((1, 2, 1), (0, 1, 1), (1, 1, 2), 2)
    x, w, dy = array(1, 4, 1, 4, 5), array(2, 2, 1, 2, 2), array(1, 2, 1, 3, 5)
    run("conv", conv.conv_forward, [np.empty_like(dy)], [x, w], *where)
    run("input grad", conv.conv_input_grad, [np.empty_like(x)], [dy, w], *where)
    run("weight grad", conv.conv_weight_grad, [np.empty_like(w)], [x, dy], *where)
    pooling(run, made, array)
    x, target = array(2, 3, 4), np.array([[0, 1, 2, -100], [2, 2, 1, 0]])
    w, where = array(3), ((2, 4, 12, 4), ((3, 1, 0), (3, 1, 0)), (1, 1))

    def batch_norm(x, y, stats):
        norm.normalize(x, y, w, w, stats, np.empty((1, 3)), *where, 1e-5, 1)

    def batch_norm_grad(dy, x, dx, dw, db):
        stats = made["norm 1"].astype(dtype)
        norm.normalize_grad(dy, x, dx, w, stats[0], stats[1], dw, db, np.empty((6, 3)), np.empty((3, 3)), *where, 1)

    run("norm", batch_norm, [np.empty_like(x), np.empty((3, 3))], [x])
    run("norm grad", batch_norm_grad, [np.empty_like(x), np.zeros(3), np.zeros(3)], [array(2, 3, 4), x])
    one = (np.empty(4, dtype), np.empty(4)), (1, 4)
    run("softmax", softmax.softmax_forward, [np.empty_like(x)], [x], False, *one[0], one[1], 1)
    run("log_softmax", softmax.softmax_forward, [np.empty_like(x)], [x], True, *one[0], one[1], 1)
    run(
        "softmax grad",
        softmax.softmax_grad,
        [np.empty_like(x)],
        [array(2, 3, 4), made["softmax 0"]],
        False,
        one[0][1],
        one[1],
        1,
    )
    run("log sums", softmax.log_sums, [np.empty((2, 4), dtype), np.empty((2, 4), dtype)], [x], one[0][1], one[1], 1)
    sums = [made["log sums 0"], made["log sums 1"]]
    run("entropy", softmax.cross_entropy_pick, [np.empty((2, 4), dtype)], [x, target, *sums], -100)
    run("entropy grad", softmax.exponentials, [np.empty_like(x)], [x, *sums, array(2, 4)], target, -100, one[1], 1)
    x = np.linspace(-0.9, 0.9, 7).astype(dtype)
    for name in ("erf", "erfc", "erfinv", "sin", "exp", "tanh", "log1p"):
        run(name, getattr(elementwise, name), [np.empty_like(x)], [x], (), 2)
    run("gelu", activation.gelu, [np.empty_like(x)], [x], (), 1)
    run("elu grad", activation.elu_grad, [np.empty_like(x)], [x, x], (1.0, 2.0, 0.5), 1)
    run(
        "philox",
        philox.philox_fill,
        [np.empty(7, np.uint32)],
        [np.uint64(1), np.uint64(2), np.uint64(3)],
        np.uint64(0),
        2,
    )
    return made


EVERYTHING = f"""
import runpy, sys
import numpy as np
np.savez(sys.argv[1], **runpy.run_path({__file__!r})["everything"](sys.argv[2]))
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_results_without_a_compiler(tmp_path, dtype):
    python(EVERYTHING, tmp_path / "plain.npz", dtype, NUMBA_DISABLE_JIT=1, FUNCNN_CACHE_DIR=tmp_path)
    plain, compiled = np.load(tmp_path / "plain.npz"), everything(dtype)
    assert set(plain.files) == set(compiled)
    for name, value in compiled.items():
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(plain[name], value, tolerance, tolerance, err_msg=name)


def test_a_second_process_compiles_nothing(tmp_path):
    env = {"FUNCNN_CACHE_DIR": tmp_path / "cache", "FUNCNN_LOG_COMPILES": 1}
    first, second = (python(EVERYTHING, tmp_path / f"{i}.npz", "float32", **env)[1] for i in range(2))
    for name in ("conv_forward", "dots", "max_pool", "cross_entropy_forward", "erfinv_scalar", "philox_fill"):
        assert f"funcnn: compiling {name}(" in first
    assert second == ""


WITHOUT_CACHE = """
import numpy as np
from funcnn.kernels.cpu import elementwise, softmax
x, y = np.full(3, 0.5), np.empty(3)
elementwise.erf(x, y, (), 1), elementwise.erfc(x, y, (), 1), softmax.softmax_forward(x.reshape(1, 3, 1), y.reshape(1, 3, 1))
print(y)
"""


def test_an_unwritable_cache_warns_once_and_works(tmp_path):
    (tmp_path / "file").write_text("")
    out, err = python(WITHOUT_CACHE, FUNCNN_CACHE_DIR=tmp_path / "file" / "cache")
    assert out == "[0.33333333 0.33333333 0.33333333]\n"
    assert err.count("funcnn cannot keep compiled kernels") == 1 and "FUNCNN_CACHE_DIR" in err


@pytest.mark.parametrize("module", [*(f"cpu.{name}" for name in MODULES), "philox", "cuda.shim", "cuda.philox"])
def test_importing_a_kernel_does_not_import_numba(module):
    python(f"import sys, funcnn.kernels.{module}; assert 'numba' not in sys.modules")


USERS = """
import os, numba, numpy as np
from funcnn.kernels.cpu import elementwise
@numba.njit
def mine(x):
    return x + 1
x = np.zeros(3)
elementwise.erf(x, x, (), 1), mine(1)
assert numba.config.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"]
"""


def test_users_kernels_are_left_alone(tmp_path):
    env = {"FUNCNN_CACHE_DIR": tmp_path / "ours", "NUMBA_CACHE_DIR": tmp_path / "theirs", "FUNCNN_LOG_COMPILES": 1}
    _, err = python(USERS, **env)
    assert "compiling erf(" in err and "mine" not in err
    assert (tmp_path / "ours").is_dir() and not (tmp_path / "theirs").exists()


THREADS = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np
from funcnn.kernels.cpu.softmax import exponentials, log_sums, softmax_forward
barrier = Barrier(6)
def first(i):
    x, y, one = np.zeros((1, 4, 1)), np.empty((1, 4, 1)), np.zeros((1, 1))
    barrier.wait()
    if i % 3 == 0:
        softmax_forward(x, y, False, one[0], one[0].copy(), (1, 1), 1)
        return y[0, 0, 0] - 0.25
    if i % 3 == 1:
        log_sums(x, one, one.copy(), one[0].copy(), (1, 1), 1)
    else:
        exponentials(x, one, one, one + 1, y, np.zeros((1, 1), np.int64), -100, (1, 1), 1)
    return one[0, 0]
with ThreadPoolExecutor(6) as pool:
    assert max(map(abs, pool.map(first, range(6)))) < 1e-12
"""


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
