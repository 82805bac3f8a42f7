"""Random programs, PyTorch beside funcnn eager and jitted: ``python -m benchmarks.fuzz_programs --count 20000 --seed 0``.

A program makes a few tensors of random shapes and dtypes, some of them leaves that want gradients, and applies operations of
``fuzz_table`` to them and to what they give: arithmetic, views, in-place writes. After every step all tensors must agree with
PyTorch's, at the end the gradients must; then the whole program runs under ``jit``. Where PyTorch raises, so must funcnn.
What fails is made as short as it goes, and failures are grouped by their kind. Needs torch.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz_table import OPS, Op, Unfit

SHAPES = ((), (1,), (3,), (4,), (2, 3), (3, 3), (3, 2), (1, 4), (2, 1, 3), (0,), (2, 0), (2, 2, 2))
DTYPES = ("float64",) * 5 + ("float32",) * 2 + ("int64", "int64", "int32", "uint8", "bool")
STEPS = 7  # of a program, after its tensors
MOST = 1 << 9  # elements; larger results are not kept
LIMITS = ("returns multiple views", "refer to a single memory location")  # what PyTorch alone cannot do
OUR_LIMITS = ("the memory is read-only (expanded", "overlap and cannot be written")  # several elements at one place
FAR = 1e5  # numbers beyond say nothing: rounding decides about them


@dataclass(frozen=True)
class Step:
    """One application: a line of the table, positions of its tensors, its drawn parameters."""

    op: Op
    args: tuple[int, ...]
    parameters: tuple

    def __str__(self) -> str:
        listed = [f"t{i}" for i in self.args] + [repr(p) for p in self.parameters]
        return f"{self.op.name}({', '.join(listed)})"


@dataclass
class Program:
    """Arrays, which of them are made leaves that want gradients, and steps."""

    arrays: list[np.ndarray]
    leaves: list[bool]
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"t{i} = {array.dtype}{list(array.shape)} {array.tolist()}{' leaf' if leaf else ''}"
            for i, (array, leaf) in enumerate(zip(self.arrays, self.leaves, strict=True))
        ]
        return "\n".join([*lines, *map(str, self.steps)])


class Refused(Exception):
    """A step raised. ``at``: which step; the cause is the library's error."""

    def __init__(self, at: int, cause: BaseException):
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.at = at


# ---- running ------------------------------------------------------------------------------------------------------------------
def start(m: Any, tensors: list, leaves: list[bool]) -> list:
    """The pool that the steps work on: arguments as they are, leaves as fresh copies."""
    return [t.detach().clone().requires_grad_() if leaf else t for t, leaf in zip(tensors, leaves, strict=True)]


def apply(m: Any, step: Step, pool: list) -> None:
    """Run one step; its result joins the pool unless it is small talk (None, a tensor that was written)."""
    result = step.op.run(m, *[pool[i] for i in step.args], *step.parameters)
    pool.append(pool[step.args[0]] if result is None or step.op.writes else result)


def gradients(m: Any, pool: list, leaves: list[bool]) -> list:
    """What the leaves get from a weighted sum of everything that requires grad, None where nothing does.

    The weights of finite elements do not depend on them: the cosine of a large one would be another after a rounding of
    it. Those of infinite ones are NaN: PyTorch's derivative of a product divides by its factors, and has none there.
    """
    terms = [t for t in pool[len(leaves) :] if t.requires_grad and t.numel()]
    if terms:
        total = sum((t * _weights(m, t.detach())).sum().double() for t in terms)
        total.backward()
    return [t.grad for t, leaf in zip(pool, leaves, strict=False) if leaf]


def _weights(m: Any, t: Any) -> Any:
    return m.arange(t.numel()).to(t.dtype).cos().reshape(t.shape) + t * 0.0


def play(m: Any, program: Program, tensors: list, after: Any = None) -> list:
    """The whole program: all tensors, then the leaves' gradients. Raises ``Refused``; ``after(i, pool)`` sees each step."""
    pool = start(m, tensors, program.leaves)
    for i, step in enumerate(program.steps):
        try:
            apply(m, step, pool)
        except Exception as error:
            raise Refused(i, error) from error
        if after is not None:
            after(i, pool)
    try:
        return [*pool, *gradients(m, pool, program.leaves)]
    except Exception as error:
        raise Refused(len(program.steps), error) from error


def tensors_of(m: Any, program: Program) -> list:
    """Fresh tensors of the program's arrays."""
    return [m.tensor(array.copy()) for array in program.arrays]


# ---- making -------------------------------------------------------------------------------------------------------------------
KINDS = {"any": "bfiu", "num": "fiu", "float": "f", "int": "iu", "bool": "b"}


def _suits(torch: Any, want: str, t: Any, first: Any) -> bool:
    kind, _, form = want.partition(":")
    name = str(t.dtype).removeprefix("torch.")
    if ("u" if name[0] == "u" else name[0]) not in KINDS[kind]:
        return False
    if form in ("d1", "d2", "d3"):
        return t.dim() >= int(form[1])
    if form == "like":
        return (t.shape == first.shape and t.dtype == first.dtype) or (kind == "num" and t.shape == first.shape)
    if form in ("fits", "pairs"):
        try:
            wide = torch.broadcast_shapes(t.shape, first.shape)
        except RuntimeError:
            return False
        return form == "pairs" or wide == first.shape
    if form == "inner":
        return t.dim() >= 1 and t.dtype == first.dtype and t.shape[-2 if t.dim() > 1 else 0] == first.shape[-1]
    return True


def _draw_step(torch: Any, draw: Random, pool: list, table: list[Op]) -> Step:
    op = draw.choice(table)
    chosen: list[int] = []
    for want in op.takes:
        first = pool[chosen[0]] if chosen else None
        fitting = [i for i, t in enumerate(pool) if _suits(torch, want, t, first)]
        if not fitting:
            raise Unfit
        late = [i for i in fitting if i >= len(pool) - 3]
        chosen.append(draw.choice(late if late and draw.random() < 0.5 else fitting))
    tensors = [pool[i] for i in chosen]
    if op.writes and tensors[0].is_leaf and tensors[0].requires_grad and draw.random() < 0.9:
        raise Unfit
    return Step(op, tuple(chosen), tuple(parameter(draw, tensors) for parameter in op.parameters))


def _array(draw: Random, dtypes: tuple[str, ...]) -> np.ndarray:
    shape, dtype = draw.choice(SHAPES), draw.choice(dtypes)
    rng = np.random.default_rng(draw.randrange(1 << 30))
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if "int" in dtype:
        return np.asarray(rng.integers(0 if dtype[0] == "u" else -3, 5, shape), dtype)
    numbers = np.asarray(rng.integers(-8, 9, shape) * 0.25 + 0.0625, dtype)  # sums and products of them are exact
    if draw.random() < 0.1 and numbers.size:
        numbers.flat[draw.randrange(numbers.size)] = draw.choice([np.nan, np.inf, -np.inf, 0.0])
    return numbers


def _readable(pool: list) -> bool:
    """Whether PyTorch tells the history of all tensors; of a sibling of a written output of ``unbind`` it does not."""
    try:
        return all(t.grad_fn is None or t.requires_grad for t in pool)
    except RuntimeError:
        return False


def make(torch: Any, seed: int, steps: int = STEPS, table: list[Op] = OPS, dtypes: tuple[str, ...] = DTYPES) -> Program:
    """The program of a seed: operations of a table, on tensors of these dtypes.

    It is made while PyTorch runs it; a step that PyTorch refuses is kept now and then, at the end."""
    draw = Random(seed)
    arrays = [_array(draw, dtypes) for _ in range(draw.randint(2, 4))]
    program = Program(arrays, [a.dtype.kind == "f" and draw.random() < 0.5 for a in arrays])
    pool = start(torch, tensors_of(torch, program), program.leaves)
    for _ in range(60):
        if len(program.steps) >= steps:
            break
        try:
            step = _draw_step(torch, draw, pool, table)
        except Unfit:
            continue
        before = len(pool)
        try:
            apply(torch, step, pool)
        except Exception:
            if draw.random() < 0.1:
                program.steps.append(step)
                break
            if step.op.writes:  # it may have changed the pool half-way
                break
            del pool[before:]
            continue
        if not _readable(pool):
            break
        if pool[-1].numel() > MOST:
            del pool[before:]
            continue
        program.steps.append(step)
    return program


# ---- comparing ----------------------------------------------------------------------------------------------------------------
def numbers(t: Any) -> np.ndarray | None:
    """The values, or None for no tensor."""
    return None if t is None else np.array(t.detach().numpy())


def differs(theirs: Any, ours: Any, rough: bool = False) -> str:
    """How two results differ, or an empty text. rough: single precision was among what they were computed from."""
    x, y = numbers(theirs), numbers(ours)
    if x is None or y is None:
        return "" if x is y else f"gradient {'missing' if y is None else 'where there is none'}"
    if x.shape != y.shape:
        return f"shape {y.shape}, torch {x.shape}"
    if x.dtype != y.dtype:
        return f"dtype {y.dtype}, torch {x.dtype}"
    if x.dtype.kind != "f":
        return "" if (x == y).all() else "values"
    rtol = 1e-4 if rough or x.dtype == np.float32 else 1e-7
    near = (np.abs(x) < FAR) | ~np.isfinite(x)
    scale = max(1.0, float(np.max(np.abs(x), where=np.isfinite(x) & near, initial=0)))
    return (
        "" if np.allclose(np.where(near, x, 0), np.where(near, y, 0), rtol, rtol * scale, equal_nan=True) else "values"
    )


@dataclass(frozen=True)
class Failure:
    """Where a program goes apart: under what, how, after which operation."""

    mode: str
    how: str
    where: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.where}: {self.how}"


def _named(program: Program, at: int) -> str:
    return program.steps[at].op.name if at < len(program.steps) else "backward"


def _reference(torch: Any, program: Program) -> tuple[list, list, Refused | None]:
    """PyTorch's pool after each step, its results (with the arguments behind them), or its refusal."""
    states: list = []
    arguments = tensors_of(torch, program)

    def keep(i: int, pool: list) -> None:
        states.append([numbers(t) for t in pool])

    try:
        return states, [*play(torch, program, arguments, keep), *arguments], None
    except Refused as refused:
        return states, [], refused


class _Apart(Exception):
    def __init__(self, at: int, how: str):
        super().__init__(how)
        self.at = at


def check(torch: Any, fn: Any, program: Program, jit: bool = True) -> Failure | None:
    """The first way in which funcnn differs from PyTorch, or None."""
    states, expected, refused = _reference(torch, program)

    def compare(i: int, pool: list) -> None:
        if i >= len(states):
            return
        rough = any(state.dtype == np.float32 for state in states[i])
        for t, state in zip(pool, states[i], strict=True):
            how = differs(_Held(state), t, rough)
            if how:
                raise _Apart(i, how)

    arguments = tensors_of(fn, program)
    try:
        got = [*play(fn, program, arguments, compare), *arguments]
    except _Apart as apart:
        return Failure("eager", str(apart), _named(program, apart.at))
    except Refused as ours:
        if refused is not None and refused.at <= ours.at:
            return None
        if any(text in str(ours) for text in OUR_LIMITS):
            return None
        return Failure("eager", f"raises {ours}", _named(program, ours.at))
    if refused is not None:
        if refused.at == len(program.steps) or any(text in str(refused) for text in LIMITS):
            return None  # a derivative that needs what was overwritten: keeping it is no fault
        return Failure("eager", f"does not raise; torch: {refused}"[:150], _named(program, refused.at))
    rough = any(t is not None and "float32" in str(t.dtype) for t in expected)
    for theirs, ours in zip(expected, got, strict=True):
        how = differs(theirs, ours, rough)
        if how:
            return Failure("eager", how, "backward")
    return _check_jit(fn, program, got) if jit else None


class _Held:
    """An array in the place of a PyTorch tensor."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def detach(self) -> _Held:
        return self

    def numpy(self) -> np.ndarray:
        return self.array


def _check_jit(fn: Any, program: Program, expected: list) -> Failure | None:
    def whole(*tensors: Any) -> Any:
        return [t.detach() if hasattr(t, "detach") else None for t in play(fn, program, list(tensors))]

    compiled = fn.jit(whole)
    for call in ("first", "second"):
        arguments = tensors_of(fn, program)
        try:
            got = [*compiled(*arguments), *arguments]
        except Refused as refused:
            if "is traced" in str(refused) or "traced tensor" in str(refused):
                return None  # a shape or a branch that depends on numbers: jit says so
            if any(text in str(refused) for text in OUR_LIMITS):
                return None
            return Failure("jit", f"raises {refused}", _named(program, refused.at))
        except Exception as error:
            return Failure("jit", f"raises {type(error).__name__}: {error}", f"{call} call")
        for i, (theirs, ours) in enumerate(zip(expected, got, strict=True)):
            how = differs(theirs, ours)
            if how:
                return Failure("jit", how, f"{call} call, result {i}" if i < 0 else _last_write(program))
    return None


def _last_write(program: Program) -> str:
    return " ".join(step.op.name for step in program.steps[-3:])


def shorten(torch: Any, fn: Any, program: Program, failure: Failure) -> Program:
    """Leave out steps, with what reads them or with their input in their place, as long as the same kind of failure stays."""
    changed = True
    while changed:
        changed = False
        for smaller in (
            less(program, at) for at in reversed(range(len(program.steps))) for less in (_without, _skipped)
        ):
            found = None if smaller is None else check(torch, fn, smaller, failure.mode == "jit")
            if smaller is not None and found and found.mode == failure.mode and found.how[:25] == failure.how[:25]:
                program, changed = smaller, True
                break
    return program


def _without(program: Program, at: int) -> Program | None:
    """The program without one step and all that reads its result, positions moved up."""
    gone, base = at + len(program.arrays), len(program.arrays)
    steps = []
    alive: dict[int, int] = {i: i for i in range(base)}
    for i, step in enumerate(program.steps):
        if i + base == gone or any(a not in alive for a in step.args):
            continue
        alive[i + base] = base + len(steps)
        steps.append(Step(step.op, tuple(alive[a] for a in step.args), step.parameters))
    return Program(program.arrays, program.leaves, steps)


def _skipped(program: Program, at: int) -> Program | None:
    """The program without one step, whose input stands for its result."""
    gone = at + len(program.arrays)
    if not program.steps[at].args:
        return None
    stand = program.steps[at].args[0]
    moved = [stand if a == gone else a - (a > gone) for a in range(gone + len(program.steps) - at)]
    rest = [Step(s.op, tuple(moved[a] for a in s.args), s.parameters) for s in program.steps[at + 1 :]]
    return Program(program.arrays, program.leaves, [*program.steps[:at], *rest])


def fuzz(torch: Any, fn: Any, seeds: range, jit: bool = True) -> dict[str, tuple[int, Program, Failure]]:
    """Run the programs of these seeds; failures by kind, each with its count and shortest program."""
    found: dict[str, tuple[int, Program, Failure]] = {}
    for seed in seeds:
        program = make(torch, seed)
        failure = check(torch, fn, program, jit)
        if failure is None:
            continue
        program = shorten(torch, fn, program, failure)
        failure = check(torch, fn, program, jit) or failure
        kind = f"{failure.mode}: {failure.where}: {failure.how[:60]}"
        count, held, _ = found.get(kind, (0, program, failure))
        shortest = program if len(program.steps) < len(held.steps) else held
        found[kind] = (count + 1, shortest, failure)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run and report. Raises ``SystemExit`` with 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_programs", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="leave out jit")
    args = parser.parse_args(arguments)
    import torch

    import funcnn as fn

    torch.set_num_threads(1)
    fn.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = fuzz(torch, fn, range(args.seed, args.seed + args.count), not args.eager)
    for kind, (count, program, failure) in sorted(found.items(), key=lambda item: -item[1][0]):
        print(f"\n{count} x {kind}\n{failure.how}\n{program}")
    modes = Counter({"eager": 0, "jit": 0})
    for count, _, failure in found.values():
        modes[failure.mode] += count
    print(f"\n{args.count} programs: {modes['eager']} fail eagerly, {modes['jit']} under jit, {len(found)} kinds")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
