"""``kernel.inspect()``: what it reads from assembly, and that it sees a kernel's vectors, fused products and libm calls."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.build.inspection import Inspection, assembly, inspect, read, short
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.vector import peak as limits
from tests.plain import PLAIN, compiled_only

ROOT = Path(__file__).parents[3]

X86 = """
	.text
_ZN7cpython6funcnnE:
	callq	PyArg_UnpackTuple
	vaddpd	%zmm0, %zmm1, %zmm2
_ZN6funcnn4workE:
	movabsq	$expf, %rbp
	vmovups	(%rdi), %ymm3
	vfmadd231ps	(%rsi), %ymm3, %ymm0  # zmm9
	vfnmadd213ss	%xmm1, %xmm2, %xmm0
	vaddss	%xmm1, %xmm2, %xmm0
	vcmpltpd	%xmm1, %xmm2, %k1
.LBB0_1:
	callq	*%rbp
	callq	*%rbp
	callq	tanh@PLT
	callq	memcpy
	jne	.LBB0_1
	retq
"""
ARM = """
_ZN6funcnn4workE:
	ldr	q0, [x0, #32]
	fmla	v1.4s, v1.4s, v0.4s
	fadd	v0.4s, v1.4s, v0.4s // comment
	fmadd	s0, s1, s2, s3
	fmul	s0, s0, s8
	movz	x8, #:abs_g0_nc:expf
	blr	x8
	bl	powf
	b.lt	.LBB0_1
	ret
"""


def test_reading_x86():
    found = read(X86, "float32[1]")
    assert (found.registers, found.vector_bits, found.move_bits) == ("ymm", 256, 256)
    assert (found.packed, found.scalar, found.fma) == (2, 2, 2)
    assert found.libm == {"expf": 2, "tanh": 1} and (found.calls, found.total) == (4, 12)
    assert "expf x2" in str(found) and "256-bit vectors (ymm)" in str(found)


def test_reading_aarch64():
    found = read(ARM)
    assert (found.registers, found.vector_bits, found.move_bits) == ("v", 128, 128)
    assert (found.packed, found.scalar, found.fma) == (2, 2, 2)
    assert found.libm == {"expf": 1, "powf": 1} and found.calls == 2


def test_nothing_to_read():
    found = read("")
    assert (found.vector_bits, found.calls, found.total) == (0, 0, 0) and "no vectors" in str(found)


@kernel
def with_libm(x, y):
    for i in range(x.size):
        y[i] = math.lgamma(x[i]) * y[i]


@kernel
def never_called(x):
    x[0] = 0


def multiply(dtype):
    rows, columns = tile_shape(np.dtype(dtype).itemsize)
    a, b, c = np.zeros(4 * rows, dtype), np.zeros(4 * columns, dtype), np.zeros(rows * columns, dtype)
    limits.multiply(a, b, c, 4, columns, rows * columns, 1, 1, 1)


@compiled_only
def test_a_kernel_of_fused_products():
    multiply("float32")
    multiply("float64")
    found = limits.multiply.inspect()
    assert found.name == "multiply" and len(found.forms) >= 2
    for form in found.forms:
        assert form.fma >= 12 and form.vector_bits == 8 * vector_bytes() and form.packed >= form.fma and not form.libm
    assert "fused multiply-adds" in str(found) and "float64[1]" in str(found)


@compiled_only
def test_a_kernel_that_calls_libm():
    with_libm(np.ones(3), np.ones(3))
    (form,) = with_libm.inspect().forms
    assert form.libm == {"lgamma": form.libm["lgamma"]} and form.calls >= form.libm["lgamma"] > 0


@compiled_only
def test_a_kernel_without_a_compiled_form():
    with pytest.raises(RuntimeError, match="never_called has not been called yet"):
        never_called.inspect()


CHILD = """
import numpy as np
from funcnn.kernels.cpu.vector import peak as limits
limits.copy(np.ones(8), np.empty(8), 4, 2, 1)
try:
    print(limits.copy.inspect().forms[0].total > 10)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "times, disabled, expected", [(2, "0", "True"), (1, "1", "inspect: kernel copy runs as plain Python")]
)
def test_in_a_process_of_its_own(tmp_path, times, disabled, expected):
    env = {**os.environ, "FUNCNN_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": disabled}
    for _ in range(times):  # the second one loads the kernel from the cache
        done = subprocess.run(
            [sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, check=True, env=env
        )
        assert done.stdout.startswith(expected)


def test_types_are_written_short():
    from numba.core import types

    kinds = [types.float32[:, ::1], types.int64, types.UniTuple(types.int64, 3), types.literal(3)]
    assert [short(kind) for kind in kinds] == ["float32[2]", "int64", "(int64 x 3)", "3"]
    assert str(Inspection("work", (read(X86, "int64"),))).startswith("kernel work\n(int64)\n")


@pytest.mark.skipif(not PLAIN, reason="kernels are compiled")
def test_plain_python_has_no_instructions():
    limits.copy(np.ones(8), np.empty(8), 4, 2, 1)
    with pytest.raises(RuntimeError, match="copy runs as plain Python"):
        limits.copy.inspect()


ADDS = "define <4 x float> @adds(<4 x float> %a, <4 x float> %b) { %c = fadd <4 x float> %a, %b ret <4 x float> %c }"


def test_a_module_written_by_hand():
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module, machine = binding.parse_assembly(ADDS), binding.Target.from_default_triple().create_target_machine()
    library = SimpleNamespace(_get_module_for_linking=lambda: module, _codegen=SimpleNamespace(_tm=machine))
    overloads = {(3,): SimpleNamespace(library=library)}
    found = inspect(SimpleNamespace(compiled=SimpleNamespace(overloads=overloads), __name__="adds"))
    assert found.name == "adds" and found.forms[0].arguments == "3" and "adds" in assembly(overloads[3,])


def test_the_folder_has_one_lazy_name():
    from funcnn.kernels.cpu import build

    assert build.__getattr__("inspection").inspect  # the attribute itself is there once anyone has named it
    with pytest.raises(AttributeError, match="has no attribute 'inspections'"):
        _ = build.inspections
