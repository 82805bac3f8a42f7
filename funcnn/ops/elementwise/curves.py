"""Elementwise operations of one loop forward and one backward: factories of activations and of their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise.launch import Loop, looped, with_kernel
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.declare import each
from funcnn.ops.base.promote import require_floating
from funcnn.ops.base.structure import zeros_like
from funcnn.ops.elementwise.arithmetic import mul


def gradient(name: str, loop: Loop, curve: Callable | None, *plain: Any) -> Primitive:
    """The primitive ``g f'(k)`` of a cotangent g and what it is a function of, k: an input or an output.

    curve: ``curve(k, **params)``, the derivative of f' in terms of operations, or None where it is 0. plain: NumPy's function
    ``(ins, outs)`` for few elements, and from how many on the kernel runs.
    """

    def shape(g: Any, k: Any, **params: Any) -> tuple:
        if tuple(g.shape) != tuple(k.shape) or g.dtype != k.dtype:
            raise ShapeError(
                f"{name}: expected a cotangent like the value, {k.dtype}{tuple(k.shape)}, got {g.dtype}{tuple(g.shape)}"
            )
        return (k,)

    def vjp(c: Tensor, ins: list, o: Tensor, **params: Any) -> tuple:
        g, k = ins
        bent = (lambda: zeros_like(k)) if curve is None else (lambda: mul(mul(c, g), curve(k, **params)))
        return lambda: prim(c, k, **params), bent

    prim = Primitive(
        name,
        shape,
        cpu=with_kernel(loop, *plain) if plain else looped(loop),
        vjp=vjp,
        batch=lambda n, ins, batched, **params: prim(*all_batched(n, ins, batched), **params),
        flops=each(loop.flops),
        scalar=loop.kernel.scalar,
    )
    return prim


def activation(
    name: str, kernel: Any, grad_kernel: Any, cost: float, curve: Callable | None, flops: float = 1.0
) -> Primitive:
    """A primitive of one floating-point input and number parameters, with one loop forward and one backward."""
    grad = gradient(name + "_grad", Loop(grad_kernel, 1.4 * cost, flops=flops + 2), curve)

    def shape(x: Any, **params: Any) -> tuple:
        require_floating(name, x, "a floating-point input")
        return (x,)

    prim = Primitive(
        name,
        shape,
        cpu=looped(Loop(kernel, cost, flops=flops)),
        vjp=lambda g, ins, o, **params: (grad(g, ins[0], **params),),
        batch=lambda n, ins, batched, **params: prim(ins[0], **params),
        flops=each(flops),
        scalar=kernel.scalar,
    )
    return prim
