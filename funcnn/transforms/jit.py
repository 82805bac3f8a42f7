"""``jit``: trace a function once for each kind of input, then run its program.

Pure functions and imperative steps alike: boxes that the function reads are inputs of the program, boxes that it writes are
outputs, the random generator included. Met under another transformation, a jitted function is simply called, so that the
outermost jit sees everything.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np

from funcnn.compiler.interface import Eager, Found, Kept, RunEagerly, is_live
from funcnn.compiler.step import CompiledStep, Fresh, Leaving, Results
from funcnn.compiler.trace import Stage
from funcnn.core import dtypes, tree
from funcnn.core.aval import Missing
from funcnn.core.context import Scope, ctx
from funcnn.core.errors import TracerError
from funcnn.core.preference import preferred
from funcnn.core.tensor import Tensor, refresh_all, wrap
from funcnn.kernels.precision import get_float32_conv_precision as precision
from funcnn.transforms.arguments import Roles, Static

MANY_TRACES = 64


class Jitted:
    """A function that is traced and compiled at its first call, and at each call with a new kind of input."""

    def __init__(self, f: Callable, roles: Roles):
        update_wrapper(self, f)
        self.f, self.roles = f, roles
        self.steps: dict[Any, list[CompiledStep | Eager | None]] = {}
        self.traces = 0
        self.lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if ctx.top is not None or ctx.stage is not None:
            return self.f(*args, **kwargs)
        call = _Call(self, args, kwargs)
        step = self._step(call)
        result = self.f(*args, **kwargs) if step is None else step.run(call.found, call.donated)
        for box in call.donated:
            box._v = Missing(f"{self.roles.name}: this tensor was donated to jit and may not be read again",
                             box._v.shape, box._v.dtype)  # fmt: skip
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else _Method(self, instance)

    def program(self, *args: Any, **kwargs: Any) -> str:
        """The traced equations for these arguments, as text."""
        step = self._step(_Call(self, args, kwargs))
        return (
            "runs eagerly: gradients leave it, or go through memory that arguments share" if step is None else str(step)
        )

    def _step(self, call: _Call) -> CompiledStep | None:
        """A step that fits, traced if need be; None for a function whose outputs carry gradients to the outside."""
        with self.lock:
            known = self.steps.setdefault(call.key, [])
            for position, step in enumerate(known):
                if step is None or (found := step.fits(call.boxes)) is not None:
                    if position:
                        known.insert(0, known.pop(position))
                    return _compiled(step, call, None if step is None else found)
            self.traces += 1
            if self.traces == MANY_TRACES:
                warnings.warn(
                    f"jit: {self.roles.name} was traced {MANY_TRACES} times; its arguments or module state change at "
                    "each call. Pass changing numbers as tensors, keep shapes fixed",
                    stacklevel=3,
                )
            step = _trace(self.f, call)
            known.insert(0, step)
            return _compiled(step, call, None if step is None else step.found(call.boxes))


class _Method:
    """A jitted function bound to an instance, which is a static argument."""

    def __init__(self, jitted: Jitted, instance: Any):
        update_wrapper(self, jitted.f)
        self.jitted, self.instance = jitted, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.jitted(self.instance, *args, **kwargs)


class _Call:
    """The arguments of one call, sorted into boxes and static values, and the key that names their kind."""

    def __init__(self, jitted: Jitted, args: tuple, kwargs: dict):
        roles = jitted.roles
        self.donated = roles.given_up(args, kwargs) if roles.donated else []
        plain = not roles.static and not roles.static_names
        self.leaves, self.treedef = tree.flatten(([*args], kwargs) if plain else roles.sorted_out(args, kwargs))
        self.boxes: list[Tensor] = []
        self.found: Any = None
        self.weak: list[bool] = []
        kinds = [self._kind(leaf, jitted) for leaf in self.leaves]
        self.key = (
            self.treedef,
            tuple(kinds),
            _repeats(self.boxes),
            ctx.grad,
            dtypes.default_float(),
            precision(),
            preferred(),
        )

    def _kind(self, leaf: Any, jitted: Jitted) -> Any:
        weak = isinstance(leaf, (int, float)) and not isinstance(leaf, bool)
        if weak:
            leaf = wrap(np.asarray(leaf, np.int64 if isinstance(leaf, int) else np.float64))
        elif isinstance(leaf, (np.ndarray, np.generic)):
            leaf = wrap(np.asarray(leaf, dtypes.as_dtype(leaf.dtype)))
        if isinstance(leaf, Tensor):
            if isinstance(leaf._v, Missing):
                raise TracerError(str(leaf._v.owner))
            self.boxes.append(leaf)
            self.weak.append(weak)
            return (leaf._v.shape, leaf._v.dtype, weak, leaf._rg, leaf._node is not None)
        value = leaf.value if isinstance(leaf, Static) else leaf
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"jit: a static argument of {jitted.roles.name} must be hashable, got {type(value).__name__}; "
                "pass a tensor, a tuple or a hashable object"
            ) from None
        return (type(value), value)


def _repeats(boxes: list[Tensor]) -> tuple | None:
    """For each box where it comes first among the arguments; None when none comes twice."""
    if len(boxes) < 2:
        return None
    ids = [*map(id, boxes)]
    return None if len(set(ids)) == len(ids) else tuple([ids.index(i) for i in ids])


def _compiled(step: CompiledStep | Eager | None, call: _Call, found: Found | None) -> CompiledStep | None:
    call.found = found
    return step if isinstance(step, CompiledStep) else None


def _trace(f: Callable, call: _Call) -> CompiledStep | Eager | None:
    stage = Stage()
    boxes = iter(call.boxes)
    arguments = []
    fresh: list[Tensor] = []
    for leaf in call.leaves:
        if isinstance(leaf, (Tensor, np.ndarray, np.generic)) or (
            isinstance(leaf, (int, float)) and not isinstance(leaf, bool)
        ):
            position = len(fresh)
            fresh.append(stage.argument(next(boxes), position, call.weak[position], not isinstance(leaf, Tensor)))
            arguments.append(fresh[-1])
        else:
            arguments.append(leaf.value if isinstance(leaf, Static) else leaf)
    args, kwargs = call.treedef.unflatten(arguments)
    try:
        Scope.wanted.add(stage)
        ctx.stage = stage
        return _finish(stage, f(*args, **kwargs), fresh)
    except RunEagerly:
        return Eager(stage, True)
    finally:
        ctx.stage = None
        try:  # an interrupt may come after either call, not within: both are C code
            Scope.wanted.discard(stage)
        finally:
            stage.give_back()
        stage.close()


def _finish(stage: Stage, result: Any, fresh: list[Tensor]) -> CompiledStep | None:
    leaves, treedef = tree.flatten(result)
    refresh_all(leaves)
    regraded = [stage.grads[key] for key in stage.regraded]
    seen = [t for t in (*leaves, *stage.written.values(), *fresh, *regraded) if isinstance(t, Tensor)]
    if any(is_live(t) for t in seen):
        return None
    leaving = Leaving(stage)
    items = [leaving.recipe(leaf) if isinstance(leaf, Tensor) else Static(leaf) for leaf in leaves]
    gradients = [
        Fresh(place, None if stage.grads[key] is None else leaving.recipe(stage.grads[key]))  # type: ignore[arg-type]
        for key, place in stage.regraded.items()
    ]
    stores = []
    for box in stage.written.values():
        entry = stage.outside[id(box)]
        stores.append((Kept(entry.place, entry.spot.region.holders() > 1), stage.read(box).var))
    return CompiledStep(stage, Results(leaving.recipes, items, treedef, stores, gradients))


def jit(
    f: Callable | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
) -> Any:
    """``f`` traced once for each kind of input (shapes, dtypes, structure, static values) and then replayed.

    static_argnums, static_argnames: arguments that are Python values to the function; each new value traces anew. Bools,
        strings and other objects that are not tensors or numbers are static by themselves. A parameter is static whether
        it is given by position or by name; one that a call leaves to its default is no matter.
    donate_argnums: arguments whose tensors the caller gives up; reading them afterwards raises.
    Raises ``ValueError`` for a position or name that the function does not have, ``TypeError`` for a static tensor.
    Arguments may share memory, with one another and with what the function closes over: writes are seen as in eager code, and
    a result that is an argument, or a view of one, is that tensor, or that view (docs/design/0001-core.md, point 9).
    What the function reads from Python while tracing (a global, an attribute that is no tensor) is part of the program; a
        module's mode and parameters and an optimizer's options are watched, and trace anew when they change.
    Raises ``TracerError`` for Python control flow on a traced value.
    """
    if f is None:
        return lambda g: jit(
            g, static_argnums=static_argnums, static_argnames=static_argnames, donate_argnums=donate_argnums
        )
    return Jitted(f, Roles(f, static_argnums, static_argnames, donate_argnums))
