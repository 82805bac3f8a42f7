"""What the reductions are made of: their factory, PyTorch's reading of ``dim`` and ``keepdim``, and an accurate sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.implementation import NUMPY, Implementation, host


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


def reduction(
    name: str,
    loop: Callable,
    vjp: Callable | None,
    keeps: str,
    dtype: Any = None,
    empty: bool = True,
    fast: tuple[Implementation, ...] = (),
) -> Primitive:
    """Declares a primitive that reduces over ``axes``.

    loop: ``(array, axes, out)``. empty: defined for no elements at all. fast: implementations where they apply.
    """
    plain = host("numpy", lambda ins, outs, axes: loop(ins[0], axes, outs[0]), NUMPY)

    def shape(x: Any, axes: tuple) -> tuple:
        if not empty and any(x.shape[a] == 0 for a in axes):
            raise IndexError(
                f"{name}: cannot reduce dimension(s) {axes} of shape {tuple(x.shape)}: there is no element"
            )
        return (Aval(dropped(x.shape, axes), dtype or x.dtype),)

    prim = Primitive(
        name,
        shape,
        cpu=(*fast, plain),
        vjp=vjp,
        batch=lambda n, ins, batched, axes: prim(ins[0], axes=tuple(a + 1 for a in axes)),
        keeps=keeps,
    )
    return prim


def all_if_empty(dim: Any) -> Any:
    """PyTorch's sums and extrema take an empty list of dimensions for all of them."""
    return None if isinstance(dim, (tuple, list)) and not dim else dim
