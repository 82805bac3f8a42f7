"""Random programs with the compiler's passes on and off: the same bits. ``python -m benchmarks.fuzz_passes --count 20000``

A program is made equation by equation of what fits: arithmetic, views, literals, reductions, checks, primitives with outputs
that may be left out, copies of equations before, and calls of smaller programs. Each is verified, run as it is, after each
pass, and as it is read back from its text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from funcnn.compiler.ir import Constant, Equation, Program, Store, Var, call_p
from funcnn.compiler.passes.pipeline import PASSES, optimized
from funcnn.compiler.runtime.reference import Replay
from funcnn.compiler.sharing import in_order, shared
from funcnn.compiler.text import loaded, parse, show
from funcnn.compiler.verify import verify, verify_pass
from funcnn.core.primitive import evaluate

PRIMITIVES = loaded()
FLOATS = [np.dtype("float32"), np.dtype("float64")]
SHAPES = [(), (3,), (2, 3), (3, 2), (1, 3), (2, 2, 3), (1, 2, 4, 4), (0, 3)]
UNARY = ["neg", "exp", "sin", "tanh", "relu", "sigmoid", "square", "abs", "detach", "clone", "floor", "sqrt"]
BINARY = ["add", "sub", "mul", "maximum", "minimum"]
REDUCTIONS = ["sum", "amax", "amin", "mean"]


@dataclass
class Maker:
    """A program in the making. Names of variables are given in order; ``known`` are those that may be used."""

    rng: np.random.Generator
    count: int = 0
    known: list[Var] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)

    def var(self, shape: tuple, dtype: np.dtype) -> Var:
        """A new variable."""
        self.count += 1
        return Var(self.count - 1, tuple(shape), np.dtype(dtype))

    def emit(self, name: str, *ins: Var, **params: object) -> tuple[Var, ...]:
        """One more equation, its outputs as the shape rule says."""
        prim = call_p if name == "call" else PRIMITIVES[name]
        outs = tuple(self.var(aval.shape, aval.dtype) for aval in prim.shape(*ins, **params))
        self.equations.append(Equation(prim, ins, outs, params, line=f"made.py:{len(self.equations)}"))
        self.known += outs
        return outs

    def pick(self, fits: Callable[[Var], bool] = lambda var: True) -> Var | None:
        """Some known variable that fits, rather a late one."""
        found = [var for var in self.known if fits(var)]
        return found[-1 - int(self.rng.integers(len(found)) * self.rng.random())] if found else None

    def one_of(self, things: list) -> object:
        """One of them."""
        return things[int(self.rng.integers(len(things)))]


def _is_float(var: Var) -> bool:
    return var.dtype.kind == "f"


# ---- steps: each adds an equation or two, where something fits -----------------------------------------------------------------
def _unary(m: Maker) -> None:
    if x := m.pick(_is_float):
        m.emit(str(m.one_of(UNARY)), x)


def _binary(m: Maker) -> None:
    if x := m.pick(_is_float):
        y = m.pick(lambda v: (v.shape, v.dtype) == (x.shape, x.dtype))
        if y is not None:
            m.emit(str(m.one_of(BINARY)), x, y)


def _view(m: Maker) -> None:
    x = m.pick()
    assert x is not None
    kind = m.one_of(["permute", "expand", "slice", "reshape"])
    if kind == "permute":
        m.emit("permute", x, dims=tuple(int(d) for d in m.rng.permutation(x.ndim)))
    elif kind == "expand" and x.ndim < 4:
        m.emit("expand", m.emit("reshape", x, shape=(1, *x.shape))[0], shape=(2, *x.shape))
    elif kind == "slice" and x.ndim and x.shape[0] > 1:
        whole = [0] * x.ndim
        m.emit("slice", x, starts=(1, *whole[1:]), stops=x.shape, steps=(1,) * x.ndim)
    else:
        m.emit("reshape", x, shape=(x.size,))


def _literal(m: Maker) -> None:
    if m.rng.random() < 0.6:
        shape = m.one_of([(), (3,), (2, 3), (3, 2), (20, 20)])
        m.emit("full", shape=shape, value=m.one_of([0.0, -0.0, 1.0, 2.5, float("inf")]), dtype=m.one_of(FLOATS))
    else:
        m.emit("iota", size=3, start=0, step=int(m.rng.integers(1, 3)), dtype=m.one_of([*FLOATS, np.dtype("int64")]))


def _reduction(m: Maker) -> None:
    if x := m.pick(lambda v: _is_float(v) and v.ndim > 0 and v.size > 0):
        m.emit(str(m.one_of(REDUCTIONS)), x, axes=(int(m.rng.integers(x.ndim)),))


def _checked(m: Maker) -> None:
    """An index that is in range, or (seldom) is not: then every form of the program must raise."""
    if x := m.pick(lambda v: v.ndim == 1 and v.size > 2):
        bad = m.rng.random() < 0.03
        index = m.emit("full", shape=(2,), value=99 if bad else int(m.rng.integers(2)), dtype=np.dtype("int64"))[0]
        m.emit("gather", x, index, dim=0)


def _many(m: Maker) -> None:
    """Outputs that may stay unused."""
    if x := m.pick(lambda v: _is_float(v) and v.ndim == 4 and v.size > 0 and min(v.shape[2:]) > 1):
        m.emit(
            "max_pool", x, size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False, indices=True
        )
    if x := m.pick(lambda v: _is_float(v) and v.ndim == 3 and v.size > 0):
        m.emit("moments", x, axes=(2,), freedom=max(x.shape[2] - 1, 1))


def _again(m: Maker) -> None:
    """An equation that was there before, or one like it."""
    if m.equations:
        eq = m.one_of(m.equations)
        assert isinstance(eq, Equation)
        outs = tuple(m.var(out.shape, out.dtype) for out in eq.outs)
        m.equations.append(replace(eq, outs=outs))
        m.known += outs


def _call(m: Maker) -> None:
    ins = tuple(m.known[int(i)] for i in m.rng.choice(len(m.known), min(2, len(m.known)), replace=False))
    inner = _program(m.rng, int(m.rng.integers(1, 5)), [(var.shape, var.dtype) for var in ins], depth=1)
    m.emit("call", *ins, program=inner)


STEPS = [_unary, _unary, _binary, _binary, _view, _view, _literal, _reduction, _checked, _many, _again, _again, _call]


def _layout(rng: np.random.Generator, var: Var) -> tuple[int, ...]:
    """Strides of memory in order, or with the dimensions the other way round."""
    if rng.random() < 0.5:
        return in_order(var.shape, var.dtype.itemsize)
    return in_order(var.shape[::-1], var.dtype.itemsize)[::-1]


def _program(rng: np.random.Generator, steps: int, types: list[tuple], depth: int = 0) -> Program:
    m = Maker(rng)
    inputs = tuple(m.var(shape, dtype) for shape, dtype in types)
    m.known += inputs
    constants = []
    for _ in range(int(rng.integers(3))):
        var = m.var(m.one_of(SHAPES[:4]), m.one_of(FLOATS))  # type: ignore[arg-type]
        constants.append(Constant(var, rng.standard_normal(var.shape).astype(var.dtype).reshape(var.shape)))
        m.known.append(var)
    for _ in range(steps):
        step = m.one_of(STEPS)
        if step is not _call or depth < 2:
            step(m)  # type: ignore[operator]
    outputs = tuple(m.pick() for _ in range(int(rng.integers(1, 4))))
    stores = []
    for target in inputs if depth == 0 else ():
        var = m.pick(lambda v, target=target: (v.shape, v.dtype) == (target.shape, target.dtype))
        if rng.random() < 0.3 and var is not None:
            stores.append(Store(var, target))
    known = {var: _layout(rng, var) for var in inputs if depth == 0 and rng.random() < 0.5}
    return shared(Program(inputs, tuple(constants), tuple(m.equations), outputs, tuple(stores), known))  # type: ignore[arg-type]


def make(seed: int) -> tuple[Program, list[np.ndarray]]:
    """The program of a seed, and inputs for it."""
    rng = np.random.default_rng(seed)
    types = [(SHAPES[rng.integers(len(SHAPES))], FLOATS[rng.integers(2)]) for _ in range(int(rng.integers(1, 5)))]
    program = _program(rng, int(rng.integers(3, 20)), types)
    return program, [_array(rng, var, program.strides.get(var)) for var in program.inputs]


def _array(rng: np.random.Generator, var: Var, strides: tuple[int, ...] | None) -> np.ndarray:
    array = np.asarray(rng.standard_normal(var.shape), var.dtype).reshape(var.shape)
    turned = strides is not None and strides != in_order(var.shape, var.dtype.itemsize)
    return np.asfortranarray(array) if turned else array


# ---- running -------------------------------------------------------------------------------------------------------------------
def outcome(program: Program, arrays: list[np.ndarray]) -> list | str:
    """What a program gives, as shapes, dtypes and bytes, or the error that it raises. Nothing may share memory."""
    given = [array.copy(order="K") for array in arrays]
    try:
        results = Replay(program).run(given)
    except IndexError as error:
        return f"{type(error).__name__}: {error}"
    for position, one in enumerate(results):
        for other in (*given, *(c.array for c in program.constants), *results[:position]):
            assert not np.shares_memory(one, other), "what leaves a program has memory of its own"
    assert all(np.array_equal(one, two) for one, two in zip(given, arrays, strict=True)), "an input was written"
    return [(array.shape, array.dtype.name, array.tobytes()) for array in results]


def _check_sharing(program: Program, arrays: list[np.ndarray]) -> None:
    """What shares memory as NumPy runs the views is what the program says; of an unknown layout, at most that."""
    values = dict(zip(program.inputs, arrays, strict=True)) | {c.var: c.array for c in program.constants}
    unknown = {var for var in program.inputs if var not in program.strides}
    for eq in program.equations:
        if eq.programs or "check" in eq.effects:
            return  # what comes behind depends on what is computed elsewhere, or may raise
        ins = [values[var] for var in eq.ins]
        values.update(zip(eq.outs, evaluate(eq.prim, ins, eq.params), strict=True))
        if eq.prim.view is not None and ins[0].size:
            shares = np.may_share_memory(values[eq.outs[0]], ins[0])
            assert shares == (eq.shares is not None) or (eq.ins[0] in unknown and not shares), show(program)
            unknown |= {eq.outs[0]} if eq.ins[0] in unknown else set()


def check(seed: int) -> int:
    """Run one program in all its forms; how many equations the passes removed. Raises where two forms differ."""
    program, arrays = make(seed)
    verify(program)
    _check_sharing(program, arrays)
    expected = outcome(program, arrays)
    at = program
    for each in PASSES:
        before, at = at, each(at)
        verify_pass(before, at, each.__name__)
        assert outcome(at, arrays) == expected, (
            f"seed {seed}: {each.__name__} changes the results:\n{show(before)}\n{show(at)}"
        )
    short = optimized(program)
    verify_pass(program, short, "all passes")
    assert outcome(short, arrays) == expected, f"seed {seed}: all passes change the results:\n{show(program)}"
    for form in (program, short):
        read = parse(show(form))
        assert read == form and show(read) == show(form), f"seed {seed}: the text reads back otherwise:\n{show(form)}"
        assert outcome(read, arrays) == expected
    return len(program.equations) - len(short.equations)


def main(arguments: list[str] | None = None) -> None:
    """Run and report. Raises ``AssertionError`` at the first program that fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_passes", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    removed = sum(check(seed) for seed in range(args.seed, args.seed + args.count))
    print(f"{args.count} programs give the same bits after each pass; {removed} equations were removed")


if __name__ == "__main__":
    main()
