"""Helpers as parts of kernels: translated to LLVM's language and linked into each kernel that uses them, nothing more.

By itself Numba optimises and assembles every function that another one calls, wraps it for Python, and then does the same
to all of it again in the caller, so that a kernel with three floors of helpers is compiled four times. Here the kernel that
Python calls is optimised with everything in it and assembled once; that takes 3/4 of the time. It is optimised twice,
for LLVM's second look vectorises the remainders of loops (a mean of 49 elements takes 15 to 30 % less, Winograd convolution
and attention 5 %). Nothing is optimised function by function before, as Numba does: the whole is no faster for it, and it
took 6 % of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

from funcnn.kernels.cpu.machine import vector_bytes


def part(function: Callable, options: dict[str, Any], apart: bool = False) -> Any:
    """Returns a Numba dispatcher that only compiled functions can call; ``apart``: its pointers reach no memory in common."""
    import numba

    if numba.config.DISABLE_JIT:
        return function
    wrappers: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(function, pipeline_class=compilers()[2 if apart else 1], **wrappers, **options)


@cache
def compilers() -> tuple[type, type, type]:
    """Numba's compiler for kernels, that for their parts, and that for parts whose pointers reach no memory in common."""
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler

    class Library(JITCodeLibrary):
        """Code that nobody optimises before it is whole."""

        def add_ir_module(self, module: Any) -> None:
            """Frames begin at a multiple of a vector: else, by the stack's address, spilled vectors may straddle two lines."""
            for function in module.functions:
                if not function.is_declaration:
                    function.attributes.add("nounwind")  # llvmlite leaves out an alignment that stands alone
                    function.attributes.alignstack = vector_bytes()
            super().add_ir_module(module)

        def _optimize_functions(self, module: Any) -> None:
            module.data_layout = self._codegen._data_layout

    class Whole(Library):
        """A kernel with all its parts."""

        def _optimize_final_module(self) -> None:
            super()._optimize_final_module()
            super()._optimize_final_module()

    class Part(Library):
        """LLVM's form of one function and of all that it calls, to be linked into others."""

        def finalize(self) -> None:
            """Takes in the parts that the function calls, as they are."""
            for library in dict.fromkeys(self._linking_libraries):
                self._final_module.link_in(library._get_module_for_linking(), preserve=True)
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            """There is no machine code."""
            return 0

        @property
        def codegen(self) -> Any:
            return self

        def set_env(self, name: str, environment: Any) -> None:
            """Compiled code needs no Python objects."""

    class KernelCompiler(Compiler):
        def __init__(self, typing: Any, target: Any, library: Any, *rest: Any):
            library = Whole(target.codegen(), "kernel")
            library.enable_object_caching()
            super().__init__(typing, target, library, *rest)
            self.state.flags.no_cfunc_wrapper = True  # nobody asks for a kernel's address

        def compile_extra(self, function: Callable) -> Any:
            return uncollected(super().compile_extra, function)

    class PartCompiler(Compiler):
        def __init__(self, typing: Any, target: Any, library: Any, *rest: Any):
            super().__init__(typing, target, Part(target.codegen(), "part"), *rest)

    class ApartCompiler(PartCompiler):
        def __init__(self, *args: Any):
            super().__init__(*args)
            self.state.flags.noalias = True  # no decorator's option says this

    return KernelCompiler, PartCompiler, ApartCompiler


def uncollected(make: Callable, *args: Any) -> Any:
    """``make(*args)``, while Python does not look for garbage: a compiler makes objects by the million, and looking takes 6 %."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        return make(*args)
    finally:
        if enabled:
            gc.enable()
