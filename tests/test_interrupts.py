"""An interrupt at any instant leaves modes, values and locks as they were; ``python -m benchmarks.interrupts`` tries thousands."""

from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import funcnn as fn
from benchmarks.interrupts import Instants, Interrupt, Work, in_process, modes
from benchmarks.interrupts_fresh import STAGES, in_processes
from funcnn.core.context import Scope, ctx, running
from funcnn.core.tensor import version
from funcnn.kernels.cpu.build import compile as compiling
from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.build.parts import uncollected
from funcnn.kernels.interrupts import uninterrupted
from funcnn.ops.random.generator import use_key
from tests.plain import compiled_only

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")


@compiled_only
@pytest.mark.parametrize("seed", [0])
def test_interrupts_at_random_instants(seed):
    wrong = [f"{name}: {what}" for name, what in in_process(44, seed) if what]
    assert not wrong, "\n".join(wrong)


@compiled_only
def test_interrupts_of_importing_compiling_and_loading():
    truth = {}
    for stage, seconds in (("import", 0.6), ("load", 0.6), ("compile", 1.0)):
        names = {}
        exec(f"def work():\n{STAGES[stage][1]}", names)
        truth[stage] = repr(names["work"]()), seconds
    wrong = [f"{name}: {what}" for name, what in in_processes(4, 0, truth) if what]
    assert not wrong, "\n".join(wrong)


CONTEXTS = {
    "no_grad": fn.no_grad, "enable_grad": fn.enable_grad, "set_grad_enabled": lambda: fn.set_grad_enabled(True),
    "no_compile": fn.no_compile, "use_key": lambda: use_key(None), "Scope": lambda: Scope("a.b"),
    "running": lambda: running(None, False), "profile": fn.profiler.profile,
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_every_context_is_left_whole_at_every_instant(name):
    work, make = Work(lambda: None), CONTEXTS[name]
    before, context = modes(work), make()

    def enter_twice():
        with context, make():
            len("")

    counting = Instants()
    counting.run(enter_twice)
    for at in range(1, counting.count + 1):
        context = make()
        with pytest.raises(Interrupt):
            Instants(at).run(enter_twice)
        assert modes(work) == before, f"instant {at}"
    with pytest.raises(ZeroDivisionError), make():
        raise ZeroDivisionError  # and swallows nothing
    with ExitStack() as stack:
        stack.enter_context(make())
    assert modes(work) == before


def test_a_hook_is_taken_away_at_every_instant():
    module, call = fn.nn.Linear(1, 1), lambda *_: None

    def body():
        with handle:
            reached[0] = True
            len("")

    reached, handle, counting = [False], module.register_forward_hook(call), Instants()
    counting.run(body)
    assert counting.count >= 3
    for at in range(1, counting.count + 1):
        handle = module.register_forward_hook(call)
        reached[0] = False
        with pytest.raises(Interrupt):
            Instants(at).run(body)
        assert not (reached[0] and module._forward_hooks), f"instant {at}"
        handle.remove()
    with pytest.raises(ZeroDivisionError), module.register_forward_hook(call):
        raise ZeroDivisionError


def test_an_operation_that_is_broken_off_is_no_parent_of_later_ones():
    x, work = fn.ones(3), Work(lambda: None)
    fn.exp(x)
    before = modes(work)

    def body():
        with fn.profiler.profile() as prof:
            found.append(prof)
            with suppress(Interrupt):
                instants.run(lambda: fn.exp(x))
            fn.neg(x)

    for at in range(1, 40):
        found, instants = [], Instants(at)
        body()
        assert {event.parent for event in found[0].events if event.name == "neg" and event.kind == "operation"} == {""}
        assert modes(work) == before


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_looked_for_as_before_at_every_instant(enabled):
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        counting = Instants()
        counting.run(lambda: uncollected(len, ""))
        for at in range(1, counting.count + 1):
            with pytest.raises(Interrupt):
                Instants(at).run(lambda: uncollected(len, ""))
            assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_one_context_may_be_entered_within_itself():
    off = fn.no_grad()
    with off, fn.enable_grad(), off:
        assert not fn.is_grad_enabled()
    for _ in range(2):
        with off:
            assert not fn.is_grad_enabled()
        assert fn.is_grad_enabled()

    @off
    def inside():
        return fn.is_grad_enabled()

    assert not inside() and fn.is_grad_enabled()


def test_a_trace_that_is_broken_off_gives_back_what_it_wrote():
    x = fn.zeros(3)

    def writes():
        x.add_(1)
        view = x[1:]
        view.mul_(2)
        raise Interrupt

    before = version(x)
    with pytest.raises(Interrupt):
        fn.jit(writes)()
    assert x.tolist() == [0, 0, 0] and ctx.stage is None and version(x) == before


def test_what_was_recorded_notices_a_write_that_was_broken_off(monkeypatch):
    x = fn.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z, real = (y * y).sum(), np.copyto

    def written(*args):
        real(*args)
        raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "copyto", written)
        with pytest.raises(Interrupt), fn.no_grad():
            y.copy_(fn.ones(2))
    assert y.tolist() == [1, 1]
    with pytest.raises(fn.GradientError, match="overwritten by an in-place"):  # not differentiated with the new value
        z.backward()


# ---- what holds signals ---------------------------------------------------------------------------------------------------
@contextmanager
def handler(number, handle):
    """A handler of the test's own."""
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_signals_wait_for_the_end_of_a_step():
    seen = []

    def step():
        signal.raise_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGALRM)
        for _ in range(100):
            seen.append("step")
        return uninterrupted(lambda: len(seen))  # within one another

    def fail(number, frame):
        seen.append(number)
        raise Interrupt

    with handler(signal.SIGUSR1, fail), handler(signal.SIGALRM, lambda number, frame: seen.append(number)):
        with pytest.raises(Interrupt):
            uninterrupted(step)
        assert seen == ["step"] * 100 + [signal.SIGUSR1, signal.SIGALRM]
        assert signal.getsignal(signal.SIGUSR1) is fail
        seen.clear()
        with pytest.raises(Interrupt):  # what the step raises does not lose a signal
            uninterrupted(lambda: [signal.raise_signal(signal.SIGUSR1), {}["missing"]])
        assert seen == [signal.SIGUSR1]


def test_other_threads_are_not_held():
    seen = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=uninterrupted, args=(lambda: seen.append(signal.getsignal(signal.SIGINT)),))
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("at", ["begin", "end"])
def test_a_signal_while_handlers_change_hands_leaves_none_behind(monkeypatch, at):
    real, calls = signal.signal, []

    def interrupting(number, handle):
        result = real(number, handle)
        calls.append(number)
        if len(calls) == (1 if at == "begin" else 4):
            raise Interrupt
        return result

    def handle(number, frame):
        raise AssertionError

    with handler(signal.SIGUSR1, handle), handler(signal.SIGUSR2, handle), handler(signal.SIGALRM, handle):
        numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
        with monkeypatch.context() as patch:
            patch.setattr("funcnn.kernels.interrupts._numbers", lambda: numbers)
            patch.setattr(signal, "signal", interrupting)
            with pytest.raises(Interrupt):
                uninterrupted(lambda: None)
        assert all(signal.getsignal(number) is handle for number in numbers)


def _adds(x):
    x[0] += 1


@compiled_only
def test_a_kernel_compiles_to_the_end_before_a_signal_is_handled(monkeypatch):
    monkeypatch.setattr(compiling, "cache_directory", lambda: None)
    adding, x = kernel(_adds), np.zeros(1)

    def fail(number, frame):
        raise Interrupt

    real = compiling.threads.start
    monkeypatch.setattr(compiling.threads, "start", lambda: (signal.raise_signal(signal.SIGUSR1), real())[1])
    with handler(signal.SIGUSR1, fail):
        with pytest.raises(Interrupt):
            adding(x)
        assert adding.compiled is not None  # complete, though the call was broken off
        monkeypatch.undo()
        adding(x)
    assert x[0] == 1


def test_a_context_left_in_python_is_found(monkeypatch):
    """The instruments see what they are made for."""
    monkeypatch.setattr(running, "__exit__", lambda self, *exc: self.close(), raising=False)
    work = Work(lambda: None)
    before, found = modes(work), []
    for at in range(1, 20):
        with suppress(Interrupt):
            Instants(at).run(_inside)
        found.append(modes(work) != before)
        ctx.top, ctx.grad = before["context"][0], before["context"][2]
    assert any(found)


def _inside():
    with running(None, False):
        len("")


def test_modes_are_left_in_c_everywhere():
    """What ``with`` leaves in Python is no mode: it writes the machine code of a loop."""
    package = Path(fn.__file__).parent
    found = {
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("def __exit__", "@contextmanager", "with np.errstate"))
    }
    known = {
        "kernels/cpu/pool/rows.py: @contextmanager", "kernels/cpu/vector/writer.py: @contextmanager",
        "testing/engine.py: @contextmanager",  # a test's dirty memory
    }  # fmt: skip
    assert found == known, "derive from kernels.interrupts.Leaving, or use core.primitive.quietly (docs/design/0010)"
