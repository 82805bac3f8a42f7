"""Rows of the optimizers' updates: one step of two parameters with their slots, by the pure pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import funcnn as fn
from funcnn import optim
from tests.cases.case import Arr, Case

COUNTED = 2.0  # steps before this one
SHAPES = ((3, 2), (4,))
ANY, POSITIVE = (-2.0, 2.0), (0.1, 2.0)
SLOTS = {"momentum_buffer": ANY, "exp_avg": ANY, "exp_avg_sq": POSITIVE, "max_exp_avg_sq": POSITIVE}


def _sgd(p: Any, g: Any, velocity: Any = None, *, lr: Any, momentum: float = 0.0, dampening: float = 0.0,
         weight_decay: float = 0.0, nesterov: bool = False) -> tuple:  # fmt: skip
    slope = g + weight_decay * p
    if velocity is None:
        return (p - lr * slope,)
    velocity = momentum * velocity + (1 - dampening) * slope
    return p - lr * (slope + momentum * velocity if nesterov else velocity), velocity


def _adam(p: Any, g: Any, first: Any, second: Any, largest: Any = None, *, lr: Any, weight_decay: float = 0.0,
          decoupled: bool = False, maximize: bool = False, amsgrad: bool = False) -> tuple:  # fmt: skip
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    slope = (-g if maximize else g) + (0.0 if decoupled else weight_decay) * p
    first, second = beta1 * first + (1 - beta1) * slope, beta2 * second + (1 - beta2) * slope * slope
    top = np.maximum(largest, second) if amsgrad else second
    root = np.sqrt(top / (1 - beta2 ** (COUNTED + 1))) + eps
    p = p * (1 - lr * weight_decay if decoupled else 1.0) - lr / (1 - beta1 ** (COUNTED + 1)) * first / root
    return (p, first, second, top) if amsgrad else (p, first, second)


def _adamw(*arrays: Any, **hyper: Any) -> tuple:
    return _adam(*arrays, decoupled=True, **{"weight_decay": 0.01, **hyper})


def row(id: str, rule: str, oracle: Callable, slots: tuple[str, ...], counts: bool, **hyper: Any) -> Case:
    """A row whose inputs are the rate, the parameters, their gradients, and each kind of slot; it gives all but the counters."""
    many = len(SHAPES)

    def columns(arrays: tuple) -> list[tuple]:
        return [arrays[at : at + many] for at in range(0, len(arrays), many)]

    def update(lr: Any, *tensors: Any) -> tuple:
        params, grads, *kept = columns(tensors)
        counter = {"step": fn.full((), COUNTED, dtype=fn.float32, device=params[0].device)} if counts else {}
        state = [{**counter, **dict(zip(slots, of_one, strict=True))} for of_one in zip(*kept, strict=True)] or [
            {}
        ] * many
        new, after = getattr(optim, rule)(lr=lr, **hyper).update(list(grads), state, list(params))
        return (*new, *(one[name] for name in slots for one in after))

    def expected(lr: Any, *arrays: Any) -> tuple:
        done = [oracle(*of_one, lr=lr, **hyper) for of_one in zip(*columns(arrays), strict=True)]
        return tuple(array for column in zip(*done, strict=True) for array in column)

    ranges = [ANY, ANY, *(SLOTS[name] for name in slots)]
    inputs = [Arr(shape, *low_high) for low_high in ranges for shape in SHAPES]
    return Case(id, update, (Arr((), 0.05, 0.5), *inputs), numpy=expected)


MOMENTS = ("exp_avg", "exp_avg_sq")
ROWS = [
    row("sgd_update", "sgd", _sgd, (), False, weight_decay=0.1),
    row("sgd_update_nesterov", "sgd", _sgd, ("momentum_buffer",), False, momentum=0.9, nesterov=True),
    row("sgd_update_damped", "sgd", _sgd, ("momentum_buffer",), True, momentum=0.9, dampening=0.3),
    row("adam_update", "adam", _adam, MOMENTS, True, weight_decay=0.1, maximize=True),
    row("adam_update_amsgrad", "adam", _adam, (*MOMENTS, "max_exp_avg_sq"), True, amsgrad=True),
    row("adamw_update", "adamw", _adamw, MOMENTS, True),
]
