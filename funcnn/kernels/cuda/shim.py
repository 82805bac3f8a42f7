"""The only module that imports ``numba.cuda``, and only when a CUDA kernel is first launched.

``@kernel`` declares a kernel as ``kernels.cpu.build.compile`` does for the CPU: lazily, with helpers found through the names
in the kernel's code. The scalar ``device_function`` helpers of the CPU kernels are compiled anew for the GPU, so both
run the same source. In a kernel ``cuda`` means ``numba.cuda``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from funcnn.kernels.cpu.build.compile import Kernel, rebound

BLOCK_THREADS, MOST_BLOCKS = 128, 1024  # threads a block; most blocks of a launch
_lock = threading.RLock()


class _Module:
    """Stands for ``numba.cuda`` in a kernel file; kernels are compiled with the module itself in its place."""

    def __getattr__(self, name: str) -> Any:
        from numba import cuda as module

        return getattr(module, name)


cuda = _Module()


class CudaKernel:
    """A kernel for the GPU, or for Numba's simulator under ``NUMBA_ENABLE_CUDASIM=1``."""

    def __init__(self, function: Any):
        update_wrapper(self, function)
        self.function = function
        self.compiled: Any = None

    def __call__(self, items: int, *args: Any) -> None:
        """Launch with a thread an item, up to a limit: kernels stride over the grid. Arrays are on the device."""
        with _lock:
            if self.compiled is None:
                self.compiled = _jit(self.function, device=False)
        self.compiled[max(1, min(MOST_BLOCKS, -(-items // BLOCK_THREADS))), min(BLOCK_THREADS, max(items, 1))](*args)


def kernel(function: Callable) -> CudaKernel:
    """Declare a CUDA kernel: it fills the device arrays it is given and returns nothing."""
    return CudaKernel(function)


def _jit(function: Any, device: bool) -> Any:
    from numba import cuda as module

    bound = rebound(function, _device_function)
    if bound.__globals__.get("cuda") is cuda:
        bound.__globals__["cuda"] = module
    return module.jit(bound, device=device)


def _device_function(helper: Kernel) -> Any:
    return _jit(helper.function, device=True)
