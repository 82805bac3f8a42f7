"""PyTorch's stateful random numbers: a global generator whose key is a box, so that ``jit`` sees it read and advanced."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.context import ctx, running
from funcnn.core.device import refuse_others
from funcnn.core.errors import DTypeError, FuncnnError, ShapeError
from funcnn.core.mutation import assign
from funcnn.core.primitive import Primitive, quietly
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise.look_launch import same_weights
from funcnn.kernels.cpu.elementwise.looking import look_at_deviations
from funcnn.kernels.cpu.movement.host import ZEROS
from funcnn.kernels.interrupts import Leaving
from funcnn.ops.base import costs
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.comparison import lt
from funcnn.ops.elementwise.math import log
from funcnn.ops.indexing.sort import topk
from funcnn.ops.movement.views import clone, detach, select, unsqueeze
from funcnn.ops.random.keys import bernoulli as bernoulli_from
from funcnn.ops.random.keys import (
    checked_numbers,
    checked_values,
    drawn_dtype,
    drawn_shape,
    fold_in,
    key,
    normal_from,
    permutation,
    randint_from,
    split,
    uniform_from,
)
from funcnn.ops.reduce.scan import cumsum
from funcnn.ops.reduce.sums import sum as sum_


class NoKey(FuncnnError, ValueError):
    """A random number was drawn where keys must be explicit and none was given."""


class RandomnessError(FuncnnError, RuntimeError):
    """A generator was asked for a number inside ``vmap``, which was not told whose it is."""


def _between(depth: int) -> list:
    """The transformations deeper than that, the outermost first. Raises ``RandomnessError`` where one permits no draws."""
    found, at = [], ctx.top
    while at is not None and at.depth > depth:
        if at.randomness == "error":
            raise RandomnessError(
                f"{at.name}: a random number is drawn from a generator inside; pass keys that are mapped (key=), or say "
                f'{at.name}(..., randomness="different") for numbers of each example\'s own or "same" for one for all'
            )
        found.append(at)
        at = at.outer
    return found[::-1]


def _seen_inside(inside: list, key: Tensor) -> Tensor:
    for interpreter in inside:
        key = interpreter.draws(key)
    return key


class Generator:
    """A stream of keys. Its state is a tensor that each draw replaces."""

    def __init__(self, device: Any = "cpu"):
        refuse_others(device)
        self._seed = 0
        self.state = key(0)
        self.lock = threading.Lock()

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed``."""
        with self.lock, running(ctx.top, False):
            self._seed = int(seed)
            assign(self.state, key(seed), "manual_seed")
        return self

    def initial_seed(self) -> int:
        """The seed last given."""
        return self._seed

    def get_state(self) -> Tensor:
        """A copy of the state."""
        return clone(self.state)

    def set_state(self, state: Tensor) -> Generator:
        """Go on from a state."""
        with self.lock, running(ctx.top, False):
            assign(self.state, cast(to_tensor(state), dtypes.uint32), "set_state")
        return self

    def next_key(self) -> Tensor:
        """A key never given before; the state moves on."""
        inside = _between(0)
        with self.lock, running(ctx.top, False):
            both = split(self.state)
            assign(self.state, clone(select(both, 0, 0)), "next_key")
            return _seen_inside(inside, clone(select(both, 0, 1)))


class _Override(threading.local):
    """The key that this thread draws from instead of the global generator: None, or [key or None, count, depth]."""

    held: list | None = None


default_generator = Generator()
_override = _Override()


def next_key() -> Tensor:
    """A fresh key, from the global generator or from ``use_key``. Raises ``NoKey`` inside ``use_key(None)``."""
    held = _override.held
    if held is None:
        return default_generator.next_key()
    if held[0] is None:
        raise NoKey(
            "a random number is drawn inside a pure function without a key; pass key=fn.random.key(...) to the call"
        )
    inside = _between(held[2])
    held[1] += 1
    return _seen_inside(inside, fold_in(held[0], held[1]))


class use_key(Leaving):
    """Within, stateful random functions of this thread derive from ``source``; None forbids them."""

    __slots__ = ("source",)

    def __init__(self, source: Any):
        self.source = source

    def __enter__(self) -> None:
        self.close = partial(_override.__dict__.update, {"held": _override.held})
        _override.held = [self.source, 0, 0 if ctx.top is None else ctx.top.depth]


def draw_key(generator: Generator | None = None) -> Tensor:
    """The next key of a generator, by default of the global one."""
    return next_key() if generator is None else generator.next_key()


def manual_seed(seed: int) -> Generator:
    """Seed the global generator."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The global generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """A copy of the global generator's state."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Continue the global generator from a state."""
    default_generator.set_state(state)


def _made(t: Tensor, device: Any, requires_grad: bool) -> Tensor:
    refuse_others(device)
    return detach(t).requires_grad_() if requires_grad else t


def rand(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1), of shape ``size``."""
    return _made(uniform_from(draw_key(generator), drawn_shape(size), drawn_dtype(dtype)), device, requires_grad)


def randn(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal, of shape ``size``."""
    return _made(normal_from(draw_key(generator), drawn_shape(size), drawn_dtype(dtype)), device, requires_grad)


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers in [low, high) of shape ``size``; ``randint(high, size)`` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    refuse_others(device)
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    return randint_from(draw_key(generator), drawn_shape((size,)), int(low), int(high), kind)


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """0..n-1 in random order."""
    refuse_others(device)
    return cast(permutation(draw_key(generator), int(n)), dtypes.int64 if dtype is None else dtypes.as_dtype(dtype))


def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), of the shape (and dtype) of ``input``."""
    return rand(input._v.shape, dtype=dtype or input._v.dtype, device=device, requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal, of the shape (and dtype) of ``input``."""
    return randn(input._v.shape, dtype=dtype or input._v.dtype, device=device, requires_grad=requires_grad)


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: Any = None) -> Tensor:
    """Integers in [low, high) of the shape (and dtype) of ``input``."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input._v.shape, dtype=dtype or input._v.dtype)


deviation_p = checked_numbers(
    "normal", "standard deviations of at least 0", look_at_deviations, lambda std: ~(std >= 0)
)


def deviation(name: str, std: Any) -> Any:
    """``std``, a number or a tensor, once it is known to be no less than 0. Raises ``ValueError``."""
    if isinstance(std, (Tensor, np.ndarray)):
        return deviation_p(to_tensor(std))
    if not std >= 0:
        raise ValueError(f"{name}: expected a std of at least 0, got {std}")
    return std


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation, numbers with a ``size`` or tensors that broadcast."""
    std = deviation("normal", std)
    shape = drawn_shape((size,)) if size is not None else tuple(add(mul(to_tensor(std), 0.0), mean)._v.shape)
    return add(mul(normal_from(draw_key(generator), shape, dtypes.default_float()), std), mean)


# 0 with the shape and dtype of its input, and a derivative of 0: what is drawn requires grad where the probabilities do.
flat_p = Primitive(
    "bernoulli_slope",
    shape=lambda t: (Aval(tuple(t.shape), t.dtype),),
    cpu=ZEROS,
    vjp=lambda g, ins, o: (lambda: mul(g, 0.0),),
    batch=lambda n, ins, batched: flat_p(ins[0]),
    keeps="",
    flops=costs.none,
)


def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    """1 with the probability that each element gives (or ``p`` for all), else 0, in the dtype of ``input``.

    Raises ``ValueError`` for a probability outside [0, 1].
    """
    t = to_tensor(input)
    if p is None and 0 not in t._v.shape:
        require_floating("bernoulli", t, "floating-point probabilities")
    chance = detach(t) if p is None else p
    drawn = cast(bernoulli_from(draw_key(generator), chance, t._v.shape), t._v.dtype)
    return add(drawn, flat_p(t)) if t.requires_grad and ctx.grad else drawn


def _drawable(weights: np.ndarray) -> np.ndarray:
    """For each row, whether it can be drawn from."""
    return ((weights >= 0) & np.isfinite(weights)).all(-1) & (quietly(weights.sum, -1) > 0)


_WEIGHTS = "finite weights of at least 0 with a sum above 0"
weights_p = checked_values("multinomial", _WEIGHTS, same_weights(_WEIGHTS, _drawable), rows=True)


def _sampled(input: Any, num_samples: Any) -> Tensor:
    """The weights of ``multinomial``, checked."""
    t = to_tensor(input)
    if isinstance(num_samples, bool) or not isinstance(num_samples, (int, np.integer)):
        raise DTypeError(f"multinomial: num_samples must be an int, got {type(num_samples).__name__}")
    if num_samples < 1:
        raise ValueError(f"multinomial: num_samples must be positive, got {num_samples}")
    require_floating("multinomial", t, "floating-point weights")
    if t.ndim not in (1, 2):
        raise ShapeError(f"multinomial: expected weights (n,) or (rows, n), got shape {tuple(t.shape)}")
    return weights_p(detach(t))


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with the weights of the last dimension, by the Gumbel trick, or by inversion with replacement.

    Raises ``ValueError`` for weights that are negative or not finite, and for rows whose sum is 0.
    """
    input = _sampled(input, num_samples)
    shape, dtype = input._v.shape, input._v.dtype
    if replacement:
        share = cumsum(input, -1) / sum_(input, -1, True)  # type: ignore[operator]
        u = uniform_from(draw_key(generator), (*shape[:-1], num_samples, 1), dtype)
        below = lt(unsqueeze(share, -2), u)
        return sum_(below, -1)
    if num_samples > shape[-1]:
        raise ValueError(f"multinomial: cannot draw {num_samples} of {shape[-1]} without replacement")
    gumbel = -log(-log(uniform_from(draw_key(generator), shape, dtype, 1e-20, 1.0)))  # type: ignore[operator]
    return topk(log(input) + gumbel, num_samples).indices  # type: ignore[operator]
