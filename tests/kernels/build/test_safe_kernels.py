"""What kernels may not do in silence: write outside their arrays or into read-only ones, and lose a chunk's exception."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil

import numpy as np
import pytest

from funcnn.kernels import cpu as kernels_cpu
from funcnn.kernels.cpu import tables
from funcnn.kernels.cpu.attention import blocks as attention_blocks
from funcnn.kernels.cpu.build import check, writes
from funcnn.kernels.cpu.build.compile import Intrinsic, Kernel, device_function, kernel, named
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv import reference as conv_reference
from funcnn.kernels.cpu.conv import winograd_touches
from funcnn.kernels.cpu.elementwise import broadcast
from funcnn.kernels.cpu.elementwise import loops as elementwise
from funcnn.kernels.cpu.norm import layer_norm
from funcnn.kernels.cpu.optim import step as optim
from funcnn.kernels.cpu.optim.launch import chunk_table
from funcnn.kernels.cpu.recurrent import weights as recurrent_weights
from funcnn.kernels.cpu.vector.instructions import pointer
from tests.kernels.build.test_compile_kernels import python
from tests.plain import PLAIN, compiled_only


@device_function
def put(x, i, number):
    pointer(x, i)[0] = number


@kernel
def put_at(x, i, number):
    """x[i] = number, wherever that is."""
    put(x, i, number)


@kernel
def copied(x, out, i):
    """out = x[i], wherever that is."""
    p = pointer(x, i)
    out[0] = p[0]


@device_function
def some_chunk(chunk, worker, x, bad):
    if chunk == bad:
        raise ValueError("this chunk cannot be done")
    x[chunk] += 1


@kernel
def some_chunks(x, bad, threads):
    """x += 1, but for the chunk ``bad``."""
    parallel_for(some_chunk, x.size, threads, (x, bad))
    x[0] += 10


def checked(kernel, *args):
    """One call in the check mode, whether or not the process runs in it."""
    kernel.dispatcher()
    return check.run(kernel, kernel.compiled, args)


# ---- bands ------------------------------------------------------------------------------------------------------------
@compiled_only
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8"])
@pytest.mark.parametrize(("at", "where"), [(5, "behind"), (-1, "before"), (25, "behind")])
def test_writes_outside_are_found(dtype, at, where):
    x = np.arange(5).astype(dtype)
    for array in (x, np.arange(9).astype(dtype)[2:7]):
        before = array.copy()
        with pytest.raises(
            check.CheckError, match=rf"kernel put_at wrote \d+ bytes {where} its argument x of 5 numbers"
        ):
            checked(put_at, array, at, array.dtype.type(1))
        np.testing.assert_array_equal(array, before)
        checked(put_at, array, 4, array.dtype.type(77))
        assert array.tolist() == [*before[:4].tolist(), 77]


@pytest.mark.parametrize(("at", "where"), [(8, "behind"), (-1, "before")])
def test_whatever_writes_outside_is_found(at, where):
    """Without a compiler: what stands for the kernel reaches over the ends of its array."""

    def reaching(pair, i, number):
        wide = np.lib.stride_tricks.as_strided(pair[0], (1,), (8,))
        (ctypes.c_double * 1).from_address(wide.ctypes.data + 8 * i)[0] = number

    x = np.arange(8.0)
    with pytest.raises(
        check.CheckError, match=rf"kernel put_at wrote 8 bytes {where} its argument x\[0\] of 8 numbers"
    ):
        check.run(put_at, reaching, ((x, x[:0]), at, 1.0))
    check.run(put_at, reaching, ((x, x[2:4]), 7, 3.0))
    assert x.tolist() == [*range(7), 3.0]

    def failing(*args):
        raise RuntimeError("of its own")

    with pytest.raises(check.CheckError, match="kernel put_at: of its own"):
        check.run(put_at, failing, (x, 0, 1.0))


def test_fresh_memory_shows():
    assert np.isnan(check.fill(np.ones((2, 3), np.float32))).all() and check.fill(np.zeros(2, np.bool_)).all()
    assert check.fill(np.zeros(2, np.int64))[0] > 1 << 60 and check.fill(np.zeros((0, 2))).size == 0
    x = np.arange(4.0)
    elementwise.square.dispatcher()
    check.around(elementwise.square, (x, x, (), 1))
    assert x.tolist() == [0, 1, 4, 9]


@compiled_only
def test_what_is_read_outside_spoils_the_result():
    out = np.zeros(1)
    checked(copied, np.ones(3), out, 3)
    assert np.isnan(out[0])
    far = np.zeros(1, np.int64)
    checked(copied, np.ones(3, np.int64), far, 3)
    assert far[0] > 1 << 60


def test_arrays_that_share_memory_share_their_copy():
    x = np.arange(8.0)
    checked(elementwise.add, x[:6], x[2:], x[2:], (), 1)
    assert x[:3].tolist() == [0, 1, 2] and x[2] == 2.0
    y = np.arange(6.0)
    checked(elementwise.square, y, y, (), 1)
    assert y.tolist() == [0, 1, 4, 9, 16, 25]


# ---- declared lengths ---------------------------------------------------------------------------------------------------
def test_a_wrong_length_in_a_copy_of_a_wrapper_is_caught():
    """``loops.flat`` before it compared lengths: a lone number stayed one, and the kernel read on behind it."""

    def select(condition, x, y, out):
        flat = [np.ascontiguousarray(t).reshape(-1) for t in (condition, x, y)]
        checked(broadcast.select, *flat, out, 1)

    x, out = np.arange(9000.0), np.empty(9000)
    with pytest.raises(
        check.CheckError, match=r"kernel select touches 9000 numbers of its argument y, which has 1, float64"
    ):
        select(np.ones(9000, np.uint8), x, np.float64(0), out)
    select(np.ones(9000, np.uint8), x, x, out)
    np.testing.assert_array_equal(out, x)
    with pytest.raises(check.CheckError, match=r"kernel select touches 9000 numbers of its argument condition"):
        select(np.ones(8999, np.uint8), x, x, out)


def test_a_wrong_length_behind_an_address_is_caught():
    p, g, v = np.ones(5), np.full(5, 2.0), np.zeros(5)
    hyper, factors, flags = [np.array(n) for n in (1.0, 0.5, 0.0, 0.0)], np.empty(10), (True, False, False, False)

    def table(*arrays):
        return np.array([[[tables.address(x)] for x in arrays], [[x.size] for x in arrays]])

    def step(short):
        rows = table(*[a if i != short else a[:4] for i, a in enumerate([p, g, v, p, v])])
        numbers = table(*hyper).reshape(2, 1, 4)
        checked(optim.sgd_update, numbers, rows, chunk_table((5,)).array, 1, factors, *flags, 1)

    for short in range(5):
        with pytest.raises(
            check.CheckError, match=rf"touches 5 numbers behind tensors\[{short}, 0\], of which there are 4"
        ):
            step(short)
    step(None)
    assert p.tolist() == [-1] * 5 and v.tolist() == [2] * 5


def test_the_whole_process_can_run_in_it():
    script = (
        "import numpy as np, funcnn as fn\nfrom funcnn.kernels.cpu import memory\nfrom funcnn.kernels.cpu.elementwise import loops as elementwise\n"
        "assert np.isnan(memory.empty((3,), np.dtype('f4'))).all() and np.isnan(memory.fresh((2, 3))).all()\n"
        "assert memory.empty((3,), np.dtype('i8'))[0] > 1 << 60 and memory.empty((2,), np.dtype('?')).all()\n"
        "x = fn.ones(20_000)\nassert (fn.where(x > 0, x, 0.0) + x).sum().item() == 40_000\n"
        "try:\n    elementwise.add(np.ones(3), np.ones(2), np.ones(3), (), 1)\nexcept RuntimeError as error:\n    print(error)"
    )
    out, _ = python(script, FUNCNN_CHECK=1, FUNCNN_CACHE_DIR=check_cache())
    assert out.startswith("kernel add touches 3 numbers of its argument y, which has 2")


def check_cache():
    from funcnn.kernels.cpu.build.cache import cache_directory

    return str(cache_directory()).removesuffix("kernels")


# ---- read-only memory -----------------------------------------------------------------------------------------------------
def frozen(array):
    array.flags.writeable = False
    return array


def test_read_only_memory_is_read_but_not_written():
    fixed = np.frombuffer(bytes(40), np.float64)
    out = np.empty(5)
    elementwise.exp(fixed, out, (), 1)
    assert out.tolist() == [1] * 5
    for call in (
        lambda: elementwise.exp(out, fixed, (), 1),
        lambda: put_at(fixed, 0, 1.0),
        lambda: some_chunks(fixed, -1, 1),
        lambda: elementwise.add(out, fixed, frozen(out.copy()), (), 1),
    ):
        with pytest.raises(ValueError, match="read-only" if PLAIN else "writes into its argument .*read-only memory"):
            call()
    assert not fixed.any()


@device_function
def doubled(x, rows):
    """Writes what it is given, by an operation in place, a method, and a part of a tuple."""
    x += x
    first, second = (rows, x)
    first.fill(0)
    return second


@kernel
def many_ways(x, rows, total, kept):
    """Writes x, rows and total; reads kept."""
    part = doubled(x, rows) if x.size else kept
    np.add(part, kept, out=total)
    number = kept[0]
    number += 1


def test_what_a_kernel_writes_is_found_in_its_code():
    expected = {
        "x": [put_at], "out": [broadcast.select, broadcast.add_strip, elementwise.sin], "x rows total": [many_ways],
        "y mean rstd room": [layer_norm.normalize_rows], "panels totals": [recurrent_weights.weights_task],
    }  # fmt: skip
    for wanted, kernels in expected.items():
        for made in kernels:
            done, names = writes.effects(made.function), made.function.__code__.co_varnames
            found = [names[i] for i in sorted(done.written | done.added)]
            assert set(wanted.split()) <= set(found), made.__name__
            assert made is recurrent_weights.weights_task or wanted.split() == found, made.__name__
    assert writes.effects(lambda x: __import__("os")) == writes.NOTHING  # other Python is no hindrance


def test_a_read_only_argument_is_refused_by_its_type():
    from numba import types

    fixed, free = types.Array(types.float64, 1, "C", readonly=True), types.Array(types.float64, 1, "C")
    with pytest.raises(ValueError, match=r"kernel put_at writes into its argument x, which is read-only memory"):
        writes.refuse_read_only(put_at, (fixed, types.int64, types.float64))
    writes.refuse_read_only(put_at, (free, types.int64, types.float64))
    shapes = (types.int64,) * 5
    writes.refuse_read_only(conv_reference.reference_forward, (fixed, fixed, fixed, free, *shapes))  # as it declares
    with pytest.raises(ValueError, match="writes into its argument y"):
        writes.refuse_read_only(conv_reference.reference_forward, (fixed, fixed, fixed, fixed, *shapes))


@compiled_only
def test_a_pointer_is_not_taken_into_an_array_with_gaps():
    import numba

    with pytest.raises(numba.TypingError, match="expected a C-contiguous array"):
        put_at(np.zeros(10)[::2], 3, 1.0)


# ---- exceptions -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threads", [1, 2])
def test_the_exception_of_a_chunk_is_raised(threads):
    for bad in (0, 500, 999):
        x = np.zeros(1000)
        with pytest.raises(ValueError, match="this chunk cannot be done"):
            some_chunks(x, bad, threads)
        assert x[bad] == 0 and x[0] < 10
    x = np.zeros(1000)
    some_chunks(x, -1, threads)
    assert x.tolist() == [11, *[1] * 999]


@compiled_only
def test_bounds_are_checked_where_numba_is_asked_to_also_after_a_kernel_was_cached(tmp_path):
    (tmp_path / "reach.py").write_text(
        "import numpy as np\nfrom funcnn.kernels.cpu.build.compile import device_function, kernel\n"
        "from funcnn.kernels.cpu.build.parallel import parallel_for\n"
        "@device_function\ndef part(chunk, worker, x):\n    x[chunk + 1] = 1\n"
        "@kernel\ndef reach(x, n):\n    parallel_for(part, n, 1, (x,))\n"
    )
    call = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport numpy as np, reach\nx = np.zeros(9)[:4]\n"
    script = call + "try:\n    reach.reach(x, 4)\n    print('passed')\nexcept IndexError as error:\n    print(error)"
    for wanted, env in (("passed", {}), ("out of bounds", {"NUMBA_BOUNDSCHECK": 1}), ("passed", {})):
        out, _ = python(script, FUNCNN_CACHE_DIR=tmp_path / "cache", **env)
        assert wanted in out


def test_every_kernel_declares_what_it_touches():
    found = {}
    for info in pkgutil.walk_packages(kernels_cpu.__path__, f"{kernels_cpu.__name__}."):
        for made in vars(importlib.import_module(info.name)).values():
            if isinstance(made, Kernel) and not isinstance(made, Intrinsic):
                code = made.function.__code__
                found[made.__name__] = made, code.co_varnames[: code.co_argcount]
    kernels = {name: made for name, (made, names) in found.items() if "threads" in names and names[0] != "chunk"}
    assert len(kernels) > 90, sorted(kernels)
    declared = {name: made for name, made in kernels.items() if made.facts.touches or made.facts.tables}
    helpers = {helper.__name__ for made in declared.values() for helper in named(made.function).values()}
    assert set(kernels) - set(declared) <= helpers, "whatever Python calls declares, also for the loops that it calls"
    assert {"gru_steps", "gru_steps_back"} <= helpers
    assert winograd_touches.up(5, 4) == 8
    shape = np.array([2, 1, 3, 4, 8, 8, 0, 4, 1, 0])  # two heads with masks of 3 x 4, one behind the other
    assert attention_blocks.mask_end(np.zeros(24), np.array([0, 12]), shape) == 24
    assert attention_blocks.mask_end(np.zeros(0), np.array([0, 0]), shape) == 0
    for name, (made, names) in found.items():
        for argument, rule in {**made.facts.touches, **made.facts.tables}.items():
            code = rule.__code__
            assert {argument, *code.co_varnames[: code.co_argcount]} <= set(names), (name, argument)
