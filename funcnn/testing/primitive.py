"""``check_primitive``: the checks that every row of funcnn's own table has to pass, on an operation of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from funcnn.core.tensor import Tensor
from funcnn.ops.movement.views import clone
from funcnn.testing import checks
from funcnn.testing import engine as e
from funcnn.transforms.jit import jit

CHECKS = (
    "guard bands", "values", "dirty memory", "layouts", "threads", "gradient", "float32 gradient", "second order", "backward",
    "vmap", "vmap of gradients", "jit", "jit of gradients", "in place",
)  # fmt: skip


def check_primitive(
    prim: Callable,
    *examples: Sequence[Any],
    reference: Callable | None = None,
    skip: Sequence[str] = (),
    rtol: float = 1e-4,
) -> list[str]:
    """Check an operation at each example, a tuple of its inputs that may end in a dict of its parameters; give what was checked.

    prim: what ``fn.primitive`` made, a ``Primitive``, or a function of tensors. Each output is computed in float64 and in
    float32, which must agree within ``rtol``, and is compared with ``reference``: the same on NumPy arrays. Gradients are
    compared with finite differences to second order, vmap with a loop, jit with eager code, all layouts and any number of
    threads with one another; kernels run between guard bands, and outputs and scratch begin full of NaN.
    skip: names among ``CHECKS`` to leave out. Raises ``AssertionError``, or what the operation raises.
    """
    unknown = [name for name in skip if name not in CHECKS]
    if unknown or not examples:
        wrong = (
            f"no check is called {unknown}; there are {', '.join(CHECKS)}" if unknown else "needs an example of inputs"
        )
        raise ValueError(f"check_primitive: {wrong}")
    done: dict[str, None] = {}
    for number, example in enumerate(examples):
        for name, check in _checks(prim, number, example, reference, rtol):
            if name not in skip:
                check()
                done[name] = None
    return [*done]


def _checks(prim: Any, number: int, example: Sequence[Any], reference: Any, rtol: float) -> list[tuple[str, Callable]]:
    *given, last = example if isinstance(example, (tuple, list)) else (example,)
    params = last if isinstance(last, dict) else {}
    arrays = [_wide(x) for x in (given if isinstance(last, dict) else (*given, last))]
    rules, what = getattr(prim, "primitive", prim), f"{getattr(prim, '__name__', prim)}, example {number}"
    written = tuple(getattr(rules, "overwrites", ()))
    fn = _pure(prim, written, params)
    floats = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]
    names = getattr(prim, "differentiable", None)
    slots = floats if names is None else [i for i in floats if prim.inputs[i] in names]
    grad = bool(slots) and not written and getattr(rules, "vjp", True) is not None
    several = [arrays, arrays, [_other(x, 1) for x in arrays]]
    draws = [[x, _other(x, 1), _other(x, 2)] for x in arrays]
    made: list[tuple[str, Callable]] = [
        ("guard bands", partial(checks.inside_its_arrays, fn, arrays, what, grad, slots)),
        ("values", partial(_values, fn, arrays, what, reference, params, rtol)),
        ("dirty memory", partial(checks.filled_completely, fn, arrays, what, grad, slots)),
        ("layouts", partial(checks.any_layout, fn, arrays, what, grad, slots)),
        ("threads", partial(checks.any_threads, fn, arrays, what, grad, slots)),
        ("vmap", partial(checks.vmap_is_a_loop, fn, draws, what)),
        ("jit", partial(checks.jit_is_eager, fn, several, what, 0.0)),
    ]
    if written:
        made.append(("in place", partial(_in_place, prim, written, arrays, params, what)))
    if grad:
        narrow = [x.astype(np.float32) if x.dtype == np.float64 else x for x in arrays]
        made += [
            ("gradient", partial(checks.gradient, fn, arrays, what, slots)),
            ("float32 gradient", partial(checks.gradient_keeps_float32, fn, narrow, what, slots)),
            ("second order", partial(checks.second_order, fn, arrays, what, None, slots)),
            ("backward", partial(checks.backward_is_vjp, fn, arrays, what, slots)),
            ("vmap of gradients", partial(checks.vmap_of_gradients, fn, draws, what, slots)),
            ("jit of gradients", partial(checks.jit_of_gradients, fn, arrays, what, slots)),
        ]
    return made


def _wide(x: Any) -> np.ndarray:
    array = np.array(x._v if isinstance(x, Tensor) else x, order="C")
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _other(array: np.ndarray, turn: int) -> np.ndarray:
    """Other numbers of the same kind: the same ones in another order, a little smaller if they are floating."""
    turned = np.roll(array.reshape(-1), turn).reshape(array.shape)
    return turned * (1 - turn / 16) if array.dtype.kind == "f" else turned


def _pure(prim: Any, written: tuple[int, ...], params: dict) -> Callable:
    """The operation as a function that leaves its inputs as they are."""

    def fn(*ins: Tensor) -> Any:
        return prim(*[clone(x) if i in written else x for i, x in enumerate(ins)], **params)

    return fn


def _values(fn: Callable, arrays: list, what: str, reference: Any, params: dict, rtol: float) -> None:
    wide = e.numbers(fn(*e.boxes(arrays)))
    narrow = e.numbers(fn(*e.boxes([x.astype(np.float32) if x.dtype == np.float64 else x for x in arrays])))
    for one, two in zip(narrow, wide, strict=True):
        assert one.dtype.kind == two.dtype.kind, (
            f"{what}: {one.dtype} from float32 inputs, {two.dtype} from float64 ones"
        )
    e.close(narrow, wide, f"{what} in float32", rtol, rtol)
    if reference is not None:
        expected = reference(*[x.copy() for x in arrays], **params)
        expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
        e.close(wide, expected, f"{what} beside its reference", rtol * 1e-4, rtol * 1e-4)


def _in_place(prim: Any, written: tuple[int, ...], arrays: list, params: dict, what: str) -> None:
    """Eager code and jit change the tensors that are passed, twice, and no others."""
    expected = e.boxes([x.copy() for x in arrays])
    got = e.boxes([x.copy() for x in arrays])
    step = jit(lambda *ins: [prim(*ins, **params), None][1])
    for _ in range(3):
        prim(*expected, **params)
        step(*got)
    e.close([t._v for t in got], [t._v for t in expected], f"{what} under jit", 0, 0)
    for i, (t, x) in enumerate(zip(expected, arrays, strict=True)):
        assert i in written or np.array_equal(t._v, x), f"{what}: input {i} was changed and is not declared"
