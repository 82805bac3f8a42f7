"""The name of a kernel, by which plans are printed and sent to other processes: ``module:attribute``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

ADOPTED = "funcnn_kernel"  # where a function of Numba's holds the kernel that was made of it
_names: dict[int, tuple[Any, str]] = {}


def name_of(kernel: Any) -> str:
    """Returns the module and attribute where a kernel is found. Raises ``LookupError`` for one that no module holds."""
    known = _names.get(id(kernel))
    if known is not None and known[0] is kernel:
        return known[1]
    modules = [name for name in list(sys.modules) if name == kernel.__module__ or name.startswith("funcnn.kernels.")]
    for module in modules:
        for attribute, value in list(getattr(sys.modules[module], "__dict__", {}).items()):
            if value is kernel or (ADOPTED in getattr(value, "__dict__", ()) and vars(value)[ADOPTED] is kernel):
                _names[id(kernel)] = kernel, f"{module}:{attribute}"
                return _names[id(kernel)][1]
    raise LookupError(f"kernel {kernel.__name__}: no module holds it, so a plan with it cannot be printed or sent")


def kernel_of(name: str) -> Any:
    """Returns the kernel of a name. Raises ``LookupError`` where there is none."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
        return getattr(found, "__dict__", {}).get(ADOPTED, found)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"no kernel is called {name!r}") from error
