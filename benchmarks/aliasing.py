"""Random programs over arguments that overlap in random ways, jit against eager: ``python -m benchmarks.aliasing``.

A program is a list of instructions (views, operations, in-place writes) over an environment of tensors: arguments and closed-
over tensors that lie in random ways on a few pieces of memory. It runs eagerly and under jit, each from a fresh state, for
several calls, of which some lay the arguments out in another way. Compared are the results, whether a result is an argument
or a closed-over tensor, what shares memory with what, the memory itself, gradients, what later writes into the results
change, and the kind of error. Failures are grouped by their message; ``--seed N --count 1`` repeats one.

The operations are those of ``ops.tensor.exposed``, sorted by trial into those that take one tensor and those that
take two, with their in-place forms, and a table of those that need more; both grow by themselves or by a line.
"""

from __future__ import annotations

import argparse
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import funcnn as fn
from funcnn.core.tensor import Tensor
from funcnn.ops.tensor.exposed import methods

ERRORS = (TypeError, ValueError, RuntimeError, IndexError, ArithmeticError)
SIZE = 24  # numbers in a piece of memory
SHAPES = ((24,), (2, 12), (4, 6), (2, 3, 4))


# ---- operations -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Op:
    """An operation on ``takes`` tensors. draw: ``(rng, shapes) -> parameters``, or None where it does not apply."""

    name: str
    run: Callable
    takes: int = 1
    draw: Callable = lambda rng, shapes: ()


def _dim(rng: Any, shape: tuple) -> int | None:
    return int(rng.integers(len(shape))) if shape else None


def _with_dim(rng: Any, shapes: list) -> tuple | None:
    return None if not shapes[0] else (_dim(rng, shapes[0]),)


def _range(rng: Any, shapes: list) -> tuple | None:
    dim = _dim(rng, shapes[0])
    if dim is None or not shapes[0][dim]:
        return None
    first = int(rng.integers(shapes[0][dim]))
    return dim, first, int(rng.integers(first, shapes[0][dim])) + 1, int(rng.integers(1, 3))


def _cut(x: Any, dim: int, first: int, last: int, step: int) -> Any:
    return x[(slice(None),) * dim + (slice(first, last, step),)]


def _assign(x: Any, y: Any, *where: int) -> Any:
    dim, first, last, step = where
    x[(slice(None),) * dim + (slice(first, last, step),)] = y
    return x


def _scatter(x: Any, dim: int, places: list) -> Any:
    x[(slice(None),) * dim + (places,)] = 5.0
    return x


def _quietly(f: Callable) -> Callable:
    """The operation, not recorded."""

    def run(*args: Any) -> Any:
        with fn.no_grad():
            return f(*args)

    return run


def _places(rng: Any, shapes: list) -> tuple | None:
    dim = _dim(rng, shapes[0])
    if dim is None or not shapes[0][dim]:
        return None
    return dim, [int(i) for i in rng.integers(0, shapes[0][dim], 2)]


def _shape(rng: Any, shapes: list) -> tuple:
    n = int(np.prod(shapes[0], dtype=int))
    first = int(rng.choice([d for d in range(1, n + 1) if n % d == 0])) if n else 0
    return ((first, n // first) if n and rng.random() < 0.7 else (n,),)


def _order(rng: Any, shapes: list) -> tuple:
    return ([int(i) for i in rng.permutation(len(shapes[0]))],)


def _number(rng: Any, shapes: list) -> tuple:
    return (float(rng.integers(-2, 4)),)


def _expansion(rng: Any, shapes: list) -> tuple:
    return ((2, *shapes[0]),)


TABLE = [
    Op("slice", _cut, draw=_range),
    Op("select", lambda x, dim, first, last, step: x.select(dim, first), draw=_range),
    Op("narrow", lambda x, dim, first, last, step: x.narrow(dim, first, last - first), draw=_range),
    Op("reshape", lambda x, shape: x.reshape(shape), draw=_shape),
    Op("view", lambda x, shape: x.view(shape), draw=_shape),
    Op("permute", lambda x, dims: x.permute(dims), draw=_order),
    Op("expand", lambda x, shape: x.expand(shape), draw=_expansion),
    Op("unsqueeze", lambda x, dim: x.unsqueeze(dim), draw=_with_dim),
    Op("split", lambda x, dim: x.split(2, dim)[-1], draw=_with_dim),
    Op("unbind", lambda x, dim: x.unbind(dim)[0], draw=_with_dim),
    Op("unfold", lambda x, dim: x.unfold(dim, 1, 1), draw=_with_dim),
    Op("flip", lambda x, dim: x.flip(dim), draw=_with_dim),
    Op("cumsum", lambda x, dim: x.cumsum(dim), draw=_with_dim),
    Op("softmax", lambda x, dim: x.softmax(dim), draw=_with_dim),
    Op("sum", lambda x, dim: x.sum(dim), draw=_with_dim),
    Op("cat", lambda x, y, dim: fn.cat([x, y], dim), 2, _with_dim),
    Op("stack", lambda x, y: fn.stack([x, y]), 2),
    Op("where", lambda x, y: fn.where(x > y, x, y), 2),
    Op("index", lambda x, dim, places: x[(slice(None),) * dim + (places,)], draw=_places),
    Op("pieces", lambda x: [x.stride(), x.is_contiguous()] and x),
    Op("fill_", lambda x, number: x.fill_(number), draw=_number),
    Op("zero_", lambda x: x.zero_()),
    Op("copy_", lambda x, y: x.copy_(y), 2),
    Op("add number_", lambda x, number: x.add_(number), draw=_number),
    Op("mul number", lambda x, number: x * number, draw=_number),
    Op("put slice", _assign, 2, _range),
    Op("put index", _scatter, draw=_places),
    Op("add_ quietly", _quietly(lambda x, number: x.add_(number)), draw=_number),
    Op("copy_ quietly", _quietly(lambda x, y: x.copy_(y)), 2),
    Op("slice quietly", _quietly(_cut), draw=_range),
    Op("write to data", lambda x, number: x.data.mul_(number), draw=_number),
    Op("masked_fill_", lambda x: x.masked_fill_(x > 3, -1.0)),
    Op("cumsum_", lambda x, dim: x.cumsum_(dim), draw=_with_dim),
    Op("index_fill_", lambda x, dim, places: x.index_fill_(dim, fn.tensor(places), 4.0), draw=_places),
]


@lru_cache(1)
def operations() -> list[Op]:
    """The table above, and all methods that take one or two tensors and nothing else, with their in-place forms."""
    found = list(TABLE)
    x = fn.tensor(np.linspace(0.1, 0.9, 4, dtype=np.float32).reshape(2, 2))
    for name, _, inplace in methods():
        for form in (name, f"{name}_") if inplace else (name,):
            method = getattr(Tensor, form)
            for takes in (1, 2):
                if takes == _arity(method, x):
                    found.append(Op(form, method, takes))
    return found


def _arity(method: Callable, x: Any) -> int:
    """How many tensors a method takes; 0 where it takes more, gives no tensor, or cannot be traced."""
    for takes in (1, 2):
        try:
            out = fn.jit(lambda *given: method(*[t.clone() for t in given]))(*[x] * takes)
        except (*ERRORS, fn.TracerError):
            continue
        return takes if isinstance(out, Tensor) else 0
    return 0


# ---- states and programs ----------------------------------------------------------------------------------------------
LAYOUTS: list[tuple[str, Callable]] = [
    ("whole", lambda x: x), ("front", lambda x: x[:2]), ("rest", lambda x: x[1:]), ("every second", lambda x: x[::2]),
    ("transposed", lambda x: x.t() if x.ndim == 2 else x), ("flat", lambda x: x.reshape(-1)),
    ("detached", lambda x: x.detach()), ("one", lambda x: x[1:2]), ("row", lambda x: x[0] if len(x) else x),
    ("none", lambda x: x[:0]),
    ("twin", lambda x: fn.from_numpy(np.frombuffer(memoryview(np.ascontiguousarray(x.numpy())), np.float32))),
    ("columns", lambda x: x[..., 1:3]), ("data", lambda x: x.data[:3]),
]  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A tensor that a program starts from: a piece of memory, seen in one of its shapes through some layouts.

    again: the same tensor as another of the same state.
    """

    piece: int
    shape: int
    layouts: tuple[int, ...]
    again: int | None = None


@dataclass
class Program:
    """givens: the tensors at each call, of which the first ``arguments`` are passed; the others are closed over.

    nested: the arguments are passed in a dict. rebound: where the first tensor closed over lies after the first call.
    """

    givens: list[list[Given]]
    arguments: int
    weights: bool
    recorded: bool
    steps: list[tuple[int, list[int], tuple]]
    results: list[int]
    nested: bool
    rebound: Given | None


class State:
    """Memory, and the tensors that lie on it; the same numbers each time that it is made."""

    def __init__(self, pieces: int = 2):
        self.memory = [np.arange(1, SIZE + 1, dtype=np.float32) / 4 + i for i in range(pieces)]
        self.roots = [fn.from_numpy(m) for m in self.memory]
        self.bases = [[root.view(shape) for shape in SHAPES] for root in self.roots]
        self.weight = fn.full((1,), 0.5).requires_grad_()

    def everything(self, known: list[Tensor]) -> list[Tensor]:
        """All tensors that may have got a history."""
        return [*self.roots, *(t for bases in self.bases for t in bases), *known]

    def tensors(self, givens: list[Given]) -> list[Tensor]:
        """The tensors of one call."""
        made: list[Tensor] = []
        for given in givens:
            if given.again is not None and given.again < len(made):
                made.append(made[given.again])
                continue
            x = self.bases[given.piece][given.shape]
            for layout in given.layouts:
                x = LAYOUTS[layout][1](x) if x.ndim else x
            made.append(x)
        return made


def _given(rng: Any, count: int, weights: bool) -> Given:
    drawn = [int(i) for i in rng.integers(0, len(LAYOUTS), rng.integers(0, 3))]
    # A gradient of what another tensor overwrote, unknown to it, is refused under jit and silently wrong in eager code.
    layouts = tuple(i for i in drawn if not (weights and LAYOUTS[i][0] == "twin"))
    again = int(rng.integers(count)) if count and rng.random() < 0.15 else None
    return Given(int(rng.random() < 0.2), int(rng.integers(len(SHAPES))), layouts, again)


def _execute(program: Program, args: list, held: list, weight: Tensor) -> list:
    """What the program returns. In one that records, the gradients go into ``weight``."""
    env = [*args, *held, *([weight * 2.0] if program.weights else [])]
    for op, operands, params in program.steps:
        env.append(operations()[op].run(*[env[i] for i in operands], *params))
    loss = [t.sum() for t in env if t.requires_grad and t.is_floating_point()]  # type: ignore[attr-defined]
    if loss:
        total = loss[0]
        for more in loss[1:]:
            total = total + more  # type: ignore[operator]
        total.backward()  # type: ignore[attr-defined]
    return [env[i].detach() if env[i].requires_grad else env[i] for i in program.results]  # type: ignore[attr-defined]


def draw(seed: int) -> Program:
    """A program; each of its instructions does not fail when it is tried."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    weights = bool(rng.random() < 0.3)
    givens = [[_given(rng, i, weights) for i in range(count)]]
    arguments = int(rng.integers(1, count + 1))
    state = State()
    env = state.tensors(givens[0])
    recorded = weights or bool(rng.random() < 0.5)
    steps: list[tuple[int, list[int], tuple]] = []
    with fn.set_grad_enabled(recorded):
        env += [state.weight * 2.0] if weights else []  # type: ignore[operator]
        for _ in range(int(rng.integers(2, 9))):
            op = int(rng.integers(len(TABLE) if rng.random() < 0.6 else len(operations())))
            chosen = operations()[op]
            operands = [int(i) for i in rng.integers(0, len(env), chosen.takes)]
            params = chosen.draw(rng, [tuple(env[i].shape) for i in operands])
            if params is None:
                continue
            try:
                out = chosen.run(*[env[i] for i in operands], *params)
            except ERRORS:
                continue
            if isinstance(out, Tensor) and out._v.size <= 4 * SIZE:
                env.append(out)
                steps.append((op, operands, params))
    results = [int(i) for i in rng.integers(0, len(env), rng.integers(1, 4))]
    for _ in range(int(rng.integers(0, 3))):
        other = [_given(rng, i, weights) for i in range(count)]
        same = [t.shape for t in State().tensors(other)] == [t.shape for t in State().tensors(givens[0])]
        givens.append(other if same or rng.random() < 0.3 else givens[0])
    rebound = _given(rng, 0, weights) if rng.random() < 0.2 else None
    return Program(givens, arguments, weights, recorded, steps, results, bool(rng.random() < 0.3), rebound)


# ---- comparing --------------------------------------------------------------------------------------------------------
def _sharing(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Which of the tensors share memory."""
    return [
        (i, j)
        for i in range(len(tensors))
        for j in range(i)
        if tensors[i] is tensors[j] or np.shares_memory(tensors[i]._v, tensors[j]._v)
    ]


def _layout(t: Tensor) -> tuple:
    steps = [step for size, step in zip(t.shape, t.stride(), strict=True) if size > 1]  # type: ignore[attr-defined]
    return steps, t.is_contiguous(), t.requires_grad  # type: ignore[attr-defined]


def observed(program: Program, transform: Callable) -> list:
    """All that can be seen of the program at its calls, up to an error."""
    state, seen = State(), []
    held = state.tensors(program.givens[0])[program.arguments :]
    calls = {}  # one compiled function, whatever it is passed

    def body(given: Any) -> list:
        return _execute(program, list(given["all"]) if program.nested else list(given), held, state.weight)

    f = calls.setdefault("f", transform(body))
    for call, givens in enumerate([program.givens[0], *program.givens]):
        args = state.tensors(givens)[: program.arguments]
        bases = state.everything([])  # whose views would have to stay where they are
        if call == 1 and held and program.rebound is not None and not any(held[0] is t for t in bases):
            other = state.tensors([program.rebound])[0]
            if other.shape == held[0].shape:
                held[0].data = other  # type: ignore[attr-defined]
        try:
            with fn.set_grad_enabled(program.recorded):
                results = f({"all": args} if program.nested else args)
        except ERRORS as error:
            seen.append(
                ("error", type(error).__name__ if call == 0 else "")
            )  # with other shapes jit looks at those first
            return seen
        known = [*args, *held]
        seen.append(("identity", [next((i for i, t in enumerate(known) if t is r), -1) for r in results]))
        seen.append(("results", [r.numpy().copy() for r in results]))
        seen.append(("layouts", [_layout(r) for r in results if r._v.size]))
        seen.append(("sharing", _sharing([*results, *known])))
        seen.append(("memory", [m.copy() for m in state.memory]))
        seen.append(("gradient", None if state.weight.grad is None else state.weight.grad.numpy().copy()))
        with fn.no_grad():
            for r in results:
                if r._v.flags.writeable and r.dtype == np.float32:
                    r.mul_(0.5)
        seen.append(("memory after writes to the results", [m.copy() for m in state.memory]))
        for t in state.everything(known):
            t.detach_()  # type: ignore[attr-defined]  # eager code leaves the freed history of what was written
        seen.append(("versions", [t._cell is not None and t._cell.version > 0 for t in known]))
    return seen


def difference(seed: int) -> str | None:
    """What differs between eager code and jit in one program, or None."""
    program = draw(seed)
    eager, compiled = observed(program, lambda f: f), observed(program, fn.jit)
    for call, (one, two) in enumerate(zip(eager, compiled, strict=False)):
        if one[0] != two[0]:
            return f"eager code: {_told(one)}, jit: {_told(two)}"
        if not _equal(one[1], two[1]):
            return f"{one[0]} (fact {call})"
    return None if len(eager) == len(compiled) else "another number of calls"


def _told(fact: tuple) -> str:
    return fact[1] if fact[0] == "error" else fact[0]


def _equal(one: Any, two: Any) -> bool:
    """Whether two facts agree; numbers up to rounding, for a sum over another layout has another order."""
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        alike = one.shape == two.shape and one.dtype == two.dtype
        return alike and np.allclose(one, two, 1e-5, 1e-6, equal_nan=one.dtype.kind == "f")
    if isinstance(one, list):
        return len(one) == len(two) and all(_equal(a, b) for a, b in zip(one, two, strict=True))
    return type(one) is type(two) and one == two


def describe(seed: int) -> str:
    """A program as text."""
    program = draw(seed)
    lines = [
        f"recorded {program.recorded}, weights {program.weights}, {program.arguments} arguments, results {program.results}"
    ]
    for givens in program.givens:
        lines.append("  " + "; ".join(
            f"{g.again}" if g.again is not None else f"piece {g.piece} {SHAPES[g.shape]} {[LAYOUTS[i][0] for i in g.layouts]}"
            for g in givens))  # fmt: skip
    lines += [f"  {operations()[op].name}{tuple(operands)} {params}" for op, operands, params in program.steps]
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(main)))
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print the first program of each kind of failure")
    options = parser.parse_args()
    kinds: dict[str, list[int]] = defaultdict(list)
    for seed in range(options.seed, options.seed + options.count):
        try:
            found = difference(seed)
        except Exception as error:
            found = f"{type(error).__name__}: {str(error)[:120]}"
        if found is not None:
            kinds[found].append(seed)
    for kind, seeds in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):6d}  {kind}: {seeds[:8]}")
        if options.show:
            print(describe(seeds[0]))
    print(f"{options.count} programs, {sum(map(len, kinds.values()))} differ")


if __name__ == "__main__":
    main()
