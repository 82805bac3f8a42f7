"""What reductions are made of: primitives over some axes with their rules, and PyTorch's reading of ``dim`` and ``keepdim``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce.launch import FEW_OR_OTHER, DType, by_kernel, result_dtype
from funcnn.kernels.implementation import Implementation, host
from funcnn.ops.base import costs


class ValuesIndices(NamedTuple):
    """Holds the values that a reduction along one dimension found, and their indices."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """Holds the smallest and the largest element."""

    min: Tensor
    max: Tensor


@lru_cache(4096)
def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns ``shape`` with 1 at the reduced axes."""
    return tuple([1 if i in axes else s for i, s in enumerate(shape)])


@lru_cache(4096)
def dropped(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns ``shape`` without the reduced axes."""
    return tuple([s for i, s in enumerate(shape) if i not in axes])


def all_if_empty(dim: Any) -> Any:
    """Returns None (all dimensions) for an empty list of them, as PyTorch's sums and extrema take it."""
    return None if isinstance(dim, (tuple, list)) and not dim else dim


def over_axes(
    name: str,
    d: Callable | None,
    keeps: str,
    *ways: Implementation | Callable,
    dtype: DType = None,
    empty: bool = True,
    flops: float = 1.0,
    scalar: Any = None,
    reason: str = FEW_OR_OTHER,
) -> Primitive:
    """Makes a primitive over ``axes`` of one input.

    d: ``d(g, x, o, axes)`` is its vjp, where ``keeps`` says whose elements that reads. ways: implementations, or NumPy's
    function ``(array, axes, out)``. dtype: of the output, where it is not the input's, or a function of that. empty:
    whether it is defined for no elements at all. flops: of an element of the input. reason: why NumPy's function is not a kernel.
    """

    def shape(x: Any, axes: tuple) -> tuple:
        if not empty and any(x.shape[a] == 0 for a in axes):
            raise IndexError(
                f"{name}: cannot reduce dimension(s) {axes} of shape {tuple(x.shape)}: there is no element"
            )
        return (Aval(dropped(x.shape, axes), result_dtype(dtype, x.dtype)),)

    prim = Primitive(
        name,
        shape,
        cpu=[_on_host(way, reason) if callable(way) else way for way in ways],
        vjp=None if d is None else lambda g, ins, o, axes: (d(g, ins[0], o, axes),),
        batch=lambda n, ins, batched, axes: prim(ins[0], axes=tuple(a + 1 for a in axes)),
        keeps=keeps,
        flops=costs.each(flops),
        scalar=scalar,
    )
    return prim


def _on_host(loop: Callable, reason: str) -> Implementation:
    return host("numpy", lambda ins, outs, axes: loop(ins[0], axes, outs[0]), reason)


def reduction_primitive(
    name: str,
    kernel: Any,
    d: Callable | None,
    keeps: str,
    numpy: Callable,
    *,
    dtype: DType = None,
    empty: bool = True,
    flops: float = 1.0,
    reason: str = FEW_OR_OTHER,
    **how: Any,
) -> Primitive:
    """Makes the primitive of a reduction by a kernel and, for few elements and other dtypes, NumPy's function.

    kernel: made of scalar functions by ``kernels.cpu.reduce.runs.reduction``. how: ``param``, ``wide`` and ``least`` of
    ``kernels.cpu.reduce.launch.by_kernel``. The others: see ``over_axes``.
    """
    made = by_kernel(kernel, dtype=dtype, **how)
    rules: dict[str, Any] = {"dtype": dtype, "empty": empty, "flops": flops, "scalar": kernel.scalar, "reason": reason}
    return over_axes(name, d, keeps, made, numpy, **rules)
