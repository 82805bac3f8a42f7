"""Update rules: what one step does to one parameter, for the pure optimizers and for the classes.

A rule's ``step`` is a pure function of the gradient, the parameter's slots, the parameter and the hyperparameters; its
``implementation`` does the same to all tensors of a group (``optim.fused``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from funcnn.core import dtypes
from funcnn.core.dtypes import float32
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.optim import launch
from funcnn.kernels.cpu.optim.step import ADAM_FLOPS, SGD_FLOPS
from funcnn.kernels.implementation import Implementation
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul, neg, sub, true_divide
from funcnn.ops.elementwise.bounds import maximum
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.elementwise.math import pow, sqrt
from funcnn.ops.elementwise.select import where
from funcnn.ops.tensor.creation import zeros, zeros_like

Hyper = dict[str, Any]
Slots = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Rule:
    """``defaults``: hyperparameters in PyTorch's order; ``init(p, hyper)`` the first slots; ``step`` one update.

    implementation: the step of many tensors by a kernel; ``slots``, ``numbers`` and ``flags`` are the orders in which it takes
        them.
    layouts: the slots that it can be entered with; ``wanted(hyper)`` is the layout that options call for.
    optional: slots that a state of PyTorch's lacks, without which the step is still defined.
    flops: what a step costs for each element, for the profiler.
    mixes: whether the slots, and in the classes the gradient, may have another floating dtype than the parameter.
    """

    name: str
    defaults: dict[str, Any]
    init: Callable[[Tensor, Hyper], Slots]
    step: Callable[[Tensor, Slots, Tensor, Hyper], tuple[Tensor, Slots]]
    check: Callable[[Hyper], None]
    implementation: Implementation
    slots: tuple[str, ...]
    wanted: Callable[[Hyper], tuple[str, ...]]
    layouts: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]
    flags: tuple[str, ...]
    flops: int
    optional: tuple[str, ...] = ()
    mixes: bool = False

    def pack(self, hyper: Hyper) -> list:
        """The numbers that the kernel takes."""
        packed: list = []
        for key in self.numbers:
            packed.extend(hyper[key] if key == "betas" else (hyper[key],))
        return packed

    def order(self) -> list[str]:
        """The options whose numbers ``pack`` gives."""
        return self.pack({key: (key, key) if key == "betas" else key for key in self.numbers})

    def unpack(self, packed: Any) -> Hyper:
        """The inverse of ``pack``."""
        values = iter(packed)
        return {key: (next(values), next(values)) if key == "betas" else next(values) for key in self.numbers}


def _counter(p: Tensor) -> Tensor:
    return zeros((), dtype=float32, device=p.device)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))


def refuse(name: str, hyper: Hyper, **tests: Callable[[Any], bool]) -> None:
    """Raise ``ValueError`` for a hyperparameter whose test fails."""
    for key, test in tests.items():
        values = hyper[key] if isinstance(hyper[key], (tuple, list)) else (hyper[key],)
        if not all(test(v) for v in values if _number(v)):
            raise ValueError(f"{name}: invalid {key}: {hyper[key]!r}")


# ---- SGD --------------------------------------------------------------------------------------------------------------
_VELOCITY, _DAMPED = ("momentum_buffer",), ("momentum_buffer", "step")


def _sgd_wanted(hyper: Hyper) -> tuple[str, ...]:
    if _is_zero(hyper["momentum"]):
        return ()
    return _VELOCITY if _is_zero(hyper["dampening"]) else _DAMPED


def _sgd_init(p: Tensor, hyper: Hyper) -> Slots:
    return {name: _counter(p) if name == "step" else zeros_like(p) for name in _sgd_wanted(hyper)}


def _sgd_step(g: Tensor, slots: Slots, p: Tensor, hyper: Hyper) -> tuple[Tensor, Slots]:
    """v = momentum * v + (1 - dampening) * g (the first v is g itself); p = p - lr * v (Sutskever et al., 2013).

    Each keeps its dtype; what is made of two is computed in their common one, as in PyTorch.
    """
    kind = p._v.dtype
    g = neg(g) if hyper["maximize"] else g
    if not _is_zero(hyper["weight_decay"]):
        g = add(g, mul(p, hyper["weight_decay"]))
    if "momentum_buffer" in slots:
        buffer = slots["momentum_buffer"]._v.dtype
        held = mul(slots["momentum_buffer"], hyper["momentum"])
        damped = g if _is_zero(hyper["dampening"]) else mul(g, sub(1.0, hyper["dampening"]))
        if "step" in slots:
            velocity = cast(where(eq(slots["step"], 0.0), g, add(held, damped)), buffer)
            slots = {"momentum_buffer": velocity, "step": add(slots["step"], 1.0)}
        else:
            velocity = cast(add(held, damped), buffer)
            slots = {"momentum_buffer": velocity}
        velocity = cast(velocity, dtypes.promote_types(buffer, kind))
        g = add(g, mul(velocity, hyper["momentum"])) if hyper["nesterov"] else velocity
    return cast(sub(p, mul(g, hyper["lr"])), kind), slots


def _sgd_check(hyper: Hyper) -> None:
    refuse("SGD", hyper, lr=lambda v: v >= 0, momentum=lambda v: v >= 0, weight_decay=lambda v: v >= 0)
    if hyper["nesterov"] and (hyper["momentum"] == 0 or hyper["dampening"] != 0):
        raise ValueError("SGD: nesterov needs a momentum and no dampening")


def _is_zero(value: Any) -> bool:
    return _number(value) and value == 0


# ---- Adam and AdamW ---------------------------------------------------------------------------------------------------
_MOMENTS, _LARGEST = ("exp_avg", "exp_avg_sq", "step"), ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step")


def _adam_wanted(hyper: Hyper) -> tuple[str, ...]:
    return _LARGEST if hyper["amsgrad"] else _MOMENTS


def _adam_init(p: Tensor, hyper: Hyper) -> Slots:
    slots = {"step": _counter(p), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}
    return {**slots, "max_exp_avg_sq": zeros_like(p)} if hyper["amsgrad"] else slots


def _adam_step(g: Tensor, slots: Slots, p: Tensor, hyper: Hyper) -> tuple[Tensor, Slots]:
    """Adam (Kingma and Ba, arXiv:1412.6980, algorithm 1); weight decay decoupled for AdamW (arXiv:1711.05101).

    Hyperparameters may be tensors of float64, and a parameter of no dimensions keeps its dtype among them.
    """
    kind = p._v.dtype
    (beta1, beta2), lr, decay = hyper["betas"], hyper["lr"], hyper["weight_decay"]
    g = neg(g) if hyper["maximize"] else g
    if not _is_zero(decay):
        if hyper["decoupled_weight_decay"]:
            p = mul(
                p, sub(1.0, mul(lr, decay)) if isinstance(lr, Tensor) or isinstance(decay, Tensor) else 1.0 - lr * decay
            )
        else:
            g = add(g, mul(p, decay))
    step = add(slots["step"], 1.0)
    wide = cast(step, dtypes.float64)
    m = cast(
        add(mul(slots["exp_avg"], beta1), mul(g, sub(1.0, beta1) if isinstance(beta1, Tensor) else 1.0 - beta1)), kind
    )
    new_square = mul(mul(g, g), sub(1.0, beta2) if isinstance(beta2, Tensor) else 1.0 - beta2)
    v = cast(add(mul(slots["exp_avg_sq"], beta2), new_square), kind)
    new = {"step": step, "exp_avg": m, "exp_avg_sq": v}
    if "max_exp_avg_sq" in slots:
        v = new["max_exp_avg_sq"] = maximum(slots["max_exp_avg_sq"], v)
    rate = true_divide(lr, sub(1.0, pow(beta1, wide)))
    scale = sqrt(sub(1.0, pow(beta2, wide)))
    denominator = add(true_divide(sqrt(v), scale), hyper["eps"])
    return cast(sub(p, mul(true_divide(m, denominator), rate)), kind), new


def _adam_check(hyper: Hyper) -> None:
    refuse(
        "Adam",
        hyper,
        lr=lambda v: v >= 0,
        eps=lambda v: v >= 0,
        weight_decay=lambda v: v >= 0,
        betas=lambda v: 0 <= v < 1,
    )


_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": False}

_ADAM_ORDERS: tuple = (
    _LARGEST,
    _adam_wanted,
    (_MOMENTS, _LARGEST),
    ("lr", "betas", "eps", "weight_decay"),
    ("maximize", "decoupled_weight_decay"),
)

SGD = Rule(
    "sgd",
    {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False},
    _sgd_init,
    _sgd_step,
    _sgd_check,
    launch.SGD,
    _DAMPED,
    _sgd_wanted,
    ((), _VELOCITY, _DAMPED),
    ("lr", "momentum", "dampening", "weight_decay"),
    ("nesterov", "maximize"),
    flops=SGD_FLOPS,
    optional=("step",),
    mixes=True,
)
ADAM = Rule(
    "adam",
    {**_ADAM, "decoupled_weight_decay": False},
    _adam_init,
    _adam_step,
    _adam_check,
    launch.ADAM,
    *_ADAM_ORDERS,
    flops=ADAM_FLOPS,
)
ADAMW = Rule(
    "adamw",
    {**_ADAM, "weight_decay": 1e-2, "decoupled_weight_decay": True},
    _adam_init,
    _adam_step,
    _adam_check,
    launch.ADAM,
    *_ADAM_ORDERS,
    flops=ADAM_FLOPS,
)
