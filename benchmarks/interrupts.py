"""Interrupts at random instants: ``python -m benchmarks.interrupts [--count 1900] [--processes 100] [--seed 0]``.

Whatever runs (operations in place, gradients, tracing, replay, training eager and compiled, and in fresh processes the import,
compiling and loading), an exception is raised at a random instant of it. Afterwards

- the modes are as before: recording, tracing, paths, keys, training flags, NumPy's errors, signal handlers, and no lock is held;
- every tensor holds its value from before the operation or the one it has after it, bit for bit;
- the same call gives what a twin gives that was never interrupted and starts from those values.

An instant is either one at which Python looks for signals (the beginning of a Python function, the end of one in C: all can be
counted, so each is equally likely), or the time when a timer rings.

The 2,000 of the default take about two minutes on two idle cores, most of it in the fresh processes, one for each core at a time.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import funcnn as fn
from benchmarks.interrupts_fresh import in_processes
from funcnn import nn
from funcnn.core import primitive
from funcnn.core.context import Scope, ctx
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.threads import number as threads
from funcnn.ops.random import generator
from funcnn.profiler import record

F = nn.functional


# ---- what is interrupted ------------------------------------------------------------------------------------------------
@dataclass
class Work:
    """A call that can be repeated, and the tensors that it may change."""

    call: Callable[[], Any]
    tensors: Callable[[], list[Tensor]] = list
    module: Any = None
    locks: list = field(default_factory=list)


def model() -> nn.Module:
    """Small, with everything that changes in training."""
    fn.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 3))


def training(rule: str, compiled: str) -> Work:
    """A step of training: eager, compiled once, or compiled anew at each call."""
    net = model()
    options = {"momentum": 0.9} if rule == "SGD" else {"amsgrad": True}
    optimizer = getattr(fn.optim, rule)(net.parameters(), lr=0.1, **options)
    x = fn.tensor(np.random.default_rng(0).standard_normal((5, 6)).astype("f4"))
    target = fn.tensor(np.array([0, 1, 2, 1, 0]))

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()
        return loss

    jitted = fn.jit(step) if compiled == "once" else None

    def call() -> float:
        return float((jitted or (fn.jit(step) if compiled else step))(x))

    def tensors() -> list[Tensor]:
        slots = [slot for p in net.parameters() for slot in optimizer.state[p].values() if isinstance(slot, Tensor)]
        return [*net.parameters(), *net.buffers(), *slots]

    return Work(call, tensors, net, [] if jitted is None else [jitted.lock])


def gradients() -> Work:
    """Gradients of gradients, batched, through a pure layer that draws random numbers."""
    layer, params, state = nn.pure(model())
    x = fn.tensor(np.random.default_rng(1).standard_normal((4, 6)).astype("f4"))

    def loss(params: dict, x: Tensor) -> Tensor:
        y, _ = layer(params, state, x, training=True, key=fn.random.key(3))
        return (y * y).mean()

    def call() -> list:
        g = fn.grad(loss)(params, x)
        rows = fn.vmap(fn.grad(lambda row: (row**3).sum()))(x)
        curve = fn.grad(lambda t: fn.grad(lambda u: (u**3).sum())(t).sum())(x[0])
        return [t.numpy().copy() for t in (*fn.tree.leaves(g), rows, curve)]

    return Work(call)


def contexts() -> Work:
    """Every context manager, within one another and as decorators."""
    x = fn.ones(3).requires_grad_()

    @fn.no_grad()
    def plain(x: Tensor) -> Tensor:
        return x * 2

    def call() -> list:
        with fn.no_grad(), fn.enable_grad(), generator.use_key(fn.random.key(1)), fn.no_compile():
            y = F.dropout(x * 2, 0.5, True)
        with fn.no_grad() as _, Scope("a", None):
            z = plain(x) + 1
        with fn.profiler.profile() as outer, fn.profiler.profile():
            x.exp()
        mode = fn.no_grad()
        with mode, mode:
            w = x + 1
        seen = sum(event.kind == "operation" for event in outer.events)
        return [seen, y.requires_grad, z.requires_grad, w.requires_grad, *y.detach().numpy()]

    return Work(call)


def writing(number: int) -> Work:
    """One operation in place."""
    x, mask = fn.tensor(np.linspace(-1, 1, 20_000).astype("f4")), fn.tensor(np.arange(20_000) % 3 == 0)
    view, other = x[100:], fn.full((20_000,), 0.5)
    step = fn.jit(lambda x: x.mul_(0.5).sum())
    writes: list[Callable[[], Any]] = [
        lambda: x.add_(1), lambda: view.mul_(0.5), lambda: x.copy_(other), lambda: x.masked_fill_(mask, 0.25),
        lambda: x.__setitem__(slice(3, 9), 2.0), lambda: view.neg_(), lambda: x.zero_(), lambda: step(x),
        lambda: fn.manual_seed(3), lambda: fn.rand(3).sum(), lambda: x.detach().clamp_(-0.5, 0.5),
    ]  # fmt: skip
    write = writes[number % len(writes)]
    return Work(lambda: float(made.sum()) if isinstance(made := write(), Tensor) else 0.0, lambda: [x, view])


WORKS: dict[str, Callable[[], Work]] = {
    "SGD, eager": lambda: training("SGD", ""),
    "Adam, eager": lambda: training("Adam", ""),
    "SGD, replayed": lambda: training("SGD", "once"),
    "Adam, replayed": lambda: training("Adam", "once"),
    "SGD, traced": lambda: training("SGD", "anew"),
    "AdamW, traced": lambda: training("AdamW", "anew"),
    "grad, vmap, pure": gradients,
    "contexts": contexts,
    **{f"in place {number}": lambda number=number: writing(number) for number in range(11)},
}


# ---- the instant --------------------------------------------------------------------------------------------------------
class Interrupt(KeyboardInterrupt):
    """Raised at the instant."""


class Instants:
    """Raises at the n-th instant at which Python looks for signals; counts them."""

    def __init__(self, at: int | None = None):
        self.at, self.count = at, 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        """What ``sys.setprofile`` wants."""
        if event in ("call", "c_return"):
            self.count += 1
            if self.count == self.at:
                raise Interrupt

    def run(self, call: Callable[[], Any]) -> Any:
        """Call with it in place."""
        sys.setprofile(self)
        try:
            return call()
        finally:
            sys.setprofile(None)


def after(seconds: float, call: Callable[[], Any]) -> Any:
    """Call with a timer that rings once."""
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, seconds))
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ring(number: int, frame: Any) -> None:
    """The handler of the timer."""
    raise Interrupt


# ---- what must hold afterwards --------------------------------------------------------------------------------------------
def modes(work: Work) -> dict[str, Any]:
    """Everything that says in which mode the thread and the process are."""
    return {
        "context": (ctx.top, ctx.stage, ctx.grad, ctx.path, ctx.module, ctx.backward),
        "watchers": (len(Scope.wanted), len(compiling.Watch.forbidden)),
        "profiles": (len(record.sinks), len(primitive.around), len(compiling.around), record._current.operation),
        "key": generator._override.held,
        "numpy": tuple(np.geterr().items()),
        "threads": threads._chosen,
        "training": work.module and tuple(part.training for part in work.module.modules()),
        "handler": signal.getsignal(signal.SIGALRM),
        "locked": tuple(
            map(_locked, (generator.default_generator.lock, memory._pool.lock, compiling._lock, *work.locks))
        ),
    }


def _locked(lock: Any) -> bool:
    """Whether another thread could not take the lock."""
    taken: list[bool] = []

    def take() -> None:
        taken.append(lock.acquire(timeout=5))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return not taken[0]


def values(work: Work) -> list[np.ndarray]:
    """Copies of all that the call may change, the random generator's state first."""
    return [t._v.copy() for t in (generator.default_generator.state, *work.tensors())]


def load(work: Work, arrays: list[np.ndarray]) -> None:
    """Put such copies back, into the memory that is there."""
    for t, array in zip((generator.default_generator.state, *work.tensors()), arrays, strict=True):
        t._v[...] = array


def equal(a: Any, b: Any) -> bool:
    """Bit for bit."""
    return (
        all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True)) if isinstance(a, list) else a == b
    )


class Trial:
    """A work and its twin, which is never interrupted."""

    def __init__(self, name: str):
        self.name, self.work, self.twin = name, WORKS[name](), WORKS[name]()
        for _ in range(3):
            self.work.call(), self.twin.call()
        counting = Instants()
        counting.run(self.work.call)
        self.instants = counting.count
        start = time.perf_counter()
        self.work.call()
        self.seconds = time.perf_counter() - start

    def once(self, rng: random.Random) -> str:
        """Interrupt once; what is wrong afterwards, or nothing."""
        work, twin = self.work, self.twin
        before, before_modes = values(work), modes(work)
        load(twin, before)
        result = twin.call()
        done = values(twin)
        load(work, before)
        timed = rng.random() < 0.3
        at = rng.uniform(0, self.seconds * 1.2) if timed else rng.randint(1, self.instants)
        where = f"{'second' if timed else 'instant'} {at}"
        try:
            got = after(at, work.call) if timed else Instants(int(at)).run(work.call)
            if not equal(got, result):
                return f"{where}: another result, uninterrupted"
        except Interrupt:
            pass
        if (now_modes := modes(work)) != before_modes:
            return f"{where}: modes {[key for key in now_modes if now_modes[key] != before_modes[key]]}"
        now = values(work)
        for i, (old, here, new) in enumerate(zip(before, now, done, strict=True)):
            if not (np.array_equal(here, old, equal_nan=True) or np.array_equal(here, new, equal_nan=True)):
                return f"{where}: tensor {i} is neither as before nor as after"
        load(twin, now)
        expected = twin.call()
        expected_values = values(twin)
        load(work, now)
        if not equal(work.call(), expected) or not equal(values(work), expected_values):
            return f"{where}: the next call gives another result"
        return ""


def in_process(count: int, seed: int, names: list[str] | None = None) -> Iterator[tuple[str, str]]:
    """Interrupts in this process: the name of what ran, and what was wrong."""
    rng = random.Random(seed)
    old, hook = signal.signal(signal.SIGALRM, ring), sys.unraisablehook
    sys.unraisablehook = lambda raised: None if raised.exc_type is Interrupt else hook(raised)  # from a destructor
    trials = [Trial(name) for name in names or WORKS]
    try:
        for number in range(count):
            trial = trials[number % len(trials)]
            wrong = trial.once(rng)
            if wrong:
                trials[number % len(trials)] = Trial(trial.name)
            yield trial.name, wrong
    finally:
        signal.signal(signal.SIGALRM, old)
        sys.unraisablehook = hook


def main() -> None:
    """Count what was wrong, by kind of work."""
    parser = argparse.ArgumentParser(description="Interrupt funcnn at random instants.")
    parser.add_argument("--count", type=int, default=1900, help="interrupts in this process")
    parser.add_argument("--processes", type=int, default=100, help="interrupts in processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ran, failed = Counter(), Counter()
    for source in (in_process(options.count, options.seed), in_processes(options.processes, options.seed)):
        for name, wrong in source:
            ran[name] += 1
            if wrong:
                failed[name] += 1
                print(f"{name}: {wrong}", flush=True)
    for name, times in ran.items():
        print(f"{name:24s} {times:6d} interrupts, {failed[name]} wrong")
    print(f"{sum(ran.values())} interrupts, {sum(failed.values())} wrong")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
