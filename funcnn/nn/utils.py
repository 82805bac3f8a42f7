"""Gradient clipping, and all parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from funcnn.core.context import ctx, running
from funcnn.core.errors import GradientError, ShapeError
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, concrete
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, div, mul
from funcnn.ops.elementwise.bounds import clamp
from funcnn.ops.movement.join import cat, stack
from funcnn.ops.movement.views import narrow, reshape
from funcnn.ops.reduce.vector_norm import norm


def _listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    held = [p.grad for p in _listed(parameters)]
    return [g for g in held if g is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: Any = None
) -> Tensor:
    """The norm of all elements of all tensors together, a 0-d tensor.

    error_if_nonfinite: raise ``GradientError`` where it is inf or nan (not inside ``jit``).
    foreach: accepted for PyTorch's sake; there is one way.
    """
    listed = _listed(tensors)
    if not listed:
        return to_tensor(0.0)
    order = float(norm_type)
    with running(ctx.top, False):
        each = [norm(t, order) for t in listed]
        # The norm of the norms is the norm of everything, for every order.
        total = norm(stack([cast(n, each[0].dtype) for n in each]), order)
    if error_if_nonfinite and not np.isfinite(concrete(total, "error_if_nonfinite reads")).all():
        raise GradientError(
            f"clip_grad_norm_: the total norm of order {order} is not finite, so the gradients cannot be clipped; "
            "pass error_if_nonfinite=False to scale them by it anyway"
        )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: Any = None
) -> None:
    """Scale the gradients in place by ``max_norm / total_norm`` where that is below 1."""
    with running(ctx.top, False):
        # The 1e-6 is PyTorch's, and keeps a norm of 0 from giving nan.
        factor = clamp(div(float(max_norm), add(total_norm, 1e-6)), max=1.0)
        for g in _gradients(parameters):
            assign(g, cast(mul(g, factor), g.dtype), "clip_grad_norm_")


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: Any = None,
) -> Tensor:
    """Scale the gradients in place so that their total norm is at most ``max_norm``; return what it was.

    Arguments as of ``get_total_norm``.
    """
    listed = _listed(parameters)
    total = get_total_norm(_gradients(listed), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(listed, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: Any = None) -> None:
    """Clamp the gradients in place to [-clip_value, clip_value]."""
    bound = float(clip_value)
    with running(ctx.top, False):
        for g in _gradients(parameters):
            assign(g, clamp(g, -bound, bound), "clip_grad_value_")


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters, in order, as one vector; differentiable."""
    return cat([reshape(p, (numel(tuple(p.shape)),)) for p in _listed(parameters)])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of a vector into the parameters, in order.

    Raises ``TypeError`` for something that is no tensor, ``ShapeError`` unless it has as many elements as they.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a tensor, got {type(vec).__name__}")
    listed = _listed(parameters)
    sizes = [numel(tuple(p.shape)) for p in listed]
    if tuple(vec.shape) != (sum(sizes),):
        raise ShapeError(
            f"vector_to_parameters: expected a vector of {sum(sizes)} elements for {len(sizes)} parameters, "
            f"got shape {tuple(vec.shape)}"
        )
    start = 0
    with running(ctx.top, False):
        for p, size in zip(listed, sizes, strict=True):
            part = reshape(narrow(vec, 0, start, size), tuple(p.shape))
            assign(p, cast(part, p.dtype), "vector_to_parameters")
            start += size
