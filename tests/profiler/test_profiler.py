"""What a profile records and shows: fields of events, labels, nesting, threads, the table, the trace and the picture."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn
from funcnn.core import primitive
from funcnn.core.context import Scope, ctx
from funcnn.kernels.cpu.build import compile as kernels
from funcnn.profiler import record as recording
from funcnn.profiler import roofline
from tests.plain import surrounded

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv1", nn.Conv2d(1, 2, 3))
        self.features.add_module("act", nn.ReLU())
        self.head = nn.Linear(8, 3)
        self.loose = [nn.Linear(3, 3)]  # not registered

    def forward(self, x):
        return self.loose[0](self.head(fn.flatten(self.features(x), 1)))


def profiled(run):
    with fn.profiler.profile() as prof:
        run()
    return prof


def operations(prof, name):
    return [e for e in prof.events if e.kind == "operation" and e.name == name]


def linears(prof):
    return [event for name in ("linear", "linear_relu", "matmul") for event in operations(prof, name)]


def everything_is_off():
    assert not primitive.around and not kernels.around and not recording.sinks and not Scope.wanted


@pytest.fixture(autouse=True)
def off_before_and_after():
    everything_is_off()
    yield
    everything_is_off()
    assert ctx.path == "" and ctx.module is None and ctx.backward is False


# ---- events ---------------------------------------------------------------------------------------------------------------
def test_the_costs_of_a_convolution_and_an_addition():
    x, w, b = fn.randn(2, 4, 9, 9), fn.randn(6, 2, 3, 3), fn.randn(6)
    prof = profiled(lambda: F.conv2d(x, w, b, stride=2, padding=1, groups=2) + 1.0)
    (conv,) = operations(prof, "conv")
    outputs = 2 * 6 * 5 * 5
    assert conv.flops == 2 * outputs * 2 * 3 * 3 + outputs
    assert conv.bytes == 4 * (2 * 4 * 81 + 6 * 2 * 9 + 6 + outputs)
    assert conv.shapes == ((2, 4, 9, 9), (6, 2, 3, 3), (6,)) and conv.dtype == np.float32
    (add,) = operations(prof, "add")
    assert (add.flops, add.bytes) == (outputs, 4 * (2 * outputs + 1))
    assert conv.seconds > 0 and conv.gflops == pytest.approx(conv.flops / conv.seconds / 1e9)
    assert add.gbs == pytest.approx(add.bytes / add.seconds / 1e9)
    assert conv.start < add.start and conv.thread == threading.get_native_id()
    assert conv.limit in ("compute", "memory") and 0 < conv.percent


def test_kernels_lie_within_their_operation_and_the_longest_has_its_flops():
    x, w = fn.randn(2, 3, 8, 8, dtype=fn.float64), fn.randn(4, 3, 3, 3, dtype=fn.float64)
    prof = profiled(lambda: F.conv2d(x, w, padding=1))
    (conv,) = operations(prof, "conv")
    inner = [e for e in prof.events if e.kind == "kernel"]
    assert inner and all(e.parent == "conv" and e.dtype == np.float64 for e in inner)
    for e in inner:
        assert conv.start <= e.start and e.start + e.seconds <= conv.start + conv.seconds
    longest = max((e for e in inner if not e.name.startswith(("copy_image", "pack"))), key=lambda e: e.seconds)
    assert longest.flops == conv.flops and sum(e.flops for e in inner) == conv.flops
    assert {k.__name__ for k in prof.kernels()} == {e.name for e in inner}
    assert not any(e.cold for e in profiled(lambda: F.conv2d(x, w, padding=1)).events)


def test_views_cost_nothing_and_repeated_numbers_count_once():
    x, row = fn.ones(6, 4), fn.ones(1, 4)
    prof = profiled(lambda: (x.reshape(4, 6), row.expand(6, 4) + x, x.t() + 1))
    for event in operations(prof, "reshape") + operations(prof, "permute") + operations(prof, "expand"):
        assert (event.flops, event.bytes, event.limit) == (0, 0, "")
    assert [e.bytes for e in operations(prof, "add")] == [4 * (4 + 24 + 24), 4 * (24 + 1 + 24)]


# ---- where ------------------------------------------------------------------------------------------------------------------
PATHS = {"features.conv1", "features.act", "head", "Linear", ""}


def step_of(model, x):
    def step():
        for p in model.parameters():
            p.grad = None
        loss = model(x).square().sum()
        loss.backward()
        return loss

    return step


@pytest.mark.parametrize("compiled", [False, True])
def test_module_paths_and_directions(compiled):
    step = step_of(Net(), fn.randn(3, 1, 4, 4))
    run = fn.jit(step) if compiled else step
    run()
    prof = profiled(run)
    assert {e.path for e in prof.events} == PATHS
    (conv,) = operations(prof, "conv")
    assert (conv.path, conv.direction) == ("features.conv1", "forward")
    (grad,) = operations(prof, "conv_weight_grad")
    assert (grad.path, grad.direction) == ("features.conv1", "backward")
    (loss,) = operations(prof, "square")
    assert (loss.path, loss.backward) == ("", False)
    heads = [e for e in prof.events if e.path == "head"]
    assert {e.backward for e in heads} == {False, True}
    kernel = next(e for e in prof.events if e.kind == "kernel" and e.parent == "conv_weight_grad")
    assert (kernel.path, kernel.backward) == ("features.conv1", True)


@pytest.mark.parametrize("compiled", [False, True])
def test_paths_of_pure_layers(compiled):
    net = L.Sequential(body=L.Sequential(fc=L.Linear(3, 4), act=L.ReLU()), head=L.Linear(4, 2))
    params, state = net.init(fn.random.key(0))
    gradient = fn.value_and_grad(lambda p, x: net(p, state, x)[0].sum())
    run = fn.jit(gradient) if compiled else gradient
    prof = profiled(lambda: run(params, fn.ones(2, 3)))
    assert {e.path for e in linears(prof) if not e.backward} == {"body.fc", "head"}
    assert {e.path for e in linears(prof) if e.backward} >= {"body.fc"}


def test_a_module_inside_a_pure_layer_continues_its_path():
    layer, params, state = nn.pure(Net())
    outer = L.Sequential(a=layer)
    prof = profiled(lambda: outer({"a": params}, {"a": state}, fn.ones(1, 1, 4, 4)))
    assert [e.path for e in operations(prof, "conv")] == ["a.features.conv1"]


def test_a_module_called_through_its_grandparent_and_one_within_itself():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x, again=True):
            x = self.block[0](x)
            return self(x, False) if again else x

    prof = profiled(lambda: Deep()(fn.ones(1, 2)))
    assert {e.path for e in linears(prof)} == {"block.0"}


def test_hooks_run_inside_the_module_that_has_them():
    model = nn.Sequential(nn.ReLU())
    model[0].register_forward_hook(lambda module, args, y: y + 1)
    prof = profiled(lambda: model(fn.ones(2)))
    assert [e.path for e in operations(prof, "add")] == ["0"]


# ---- when -------------------------------------------------------------------------------------------------------------------
def test_an_exception_ends_the_profile_and_leaves_what_was_recorded():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(fn.ShapeError), fn.profiler.profile() as prof:
        model(fn.ones(1, 2))
        model(fn.ones(1, 3))
    everything_is_off()
    assert linears(prof) and all(e.seconds > 0 for e in prof.events)


def test_nested_profiles_both_record_and_may_end_in_any_order():
    x = fn.ones(3)
    outer, inner = fn.profiler.profile(), fn.profiler.profile()
    with outer:
        x.exp()
        with inner:
            x.sin()
        x.cos()
    assert [e.name for e in inner.events] == ["sin"] and [e.name for e in outer.events] == ["exp", "sin", "cos"]
    first, second = fn.profiler.profile(), fn.profiler.profile()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    x.exp()
    second.__exit__()
    assert not first.events and len(second.events) == 1
    with pytest.raises(RuntimeError, match="entered before"), first:
        pass


def test_what_stood_around_before_still_does():
    seen = []

    def around(kernel, args):
        seen.append(kernel.__name__)
        return kernel.compiled(*args)

    x = fn.ones(1, 1, 4, 4)
    with surrounded(around):
        prof = profiled(lambda: F.max_pool2d(x, 2))
        assert [*kernels.around.values()][-1] is around
    assert seen == [e.name for e in prof.events if e.kind == "kernel"] != []


def test_events_of_all_threads_are_kept_apart():
    x, w = fn.ones(1, 1, 5, 5), fn.ones(1, 1, 3, 3)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    F.conv2d(x, w)

    def work():
        for _ in range(20):
            F.conv2d(x, w)
            model(fn.ones(2, 4))

    workers = [threading.Thread(target=work) for _ in range(3)]
    with fn.profiler.profile() as prof:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(operations(prof, "conv")) == 60 and len({e.thread for e in prof.events}) == 3
    assert {e.path for e in operations(prof, "tanh")} == {"1"}
    for event in prof.events:
        assert event.kind == "operation" or event.parent == "conv"


def test_importing_funcnn_does_not_import_the_profiler():
    code = "import sys, funcnn; print('funcnn.profiler' in sys.modules, funcnn.profiler.profile.__name__, hasattr(funcnn, 'no_such'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "profile", "False"]


# ---- the table ---------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def record():
    step = step_of(Net(), fn.randn(3, 1, 4, 4))
    step()
    return profiled(lambda: (step(), step()))


def lines(text):
    return text.split("\n\n")[0].splitlines()[2:]


COLUMN = {"calls": 0, "time": 1, "mean": 3, "flops": 4, "bytes": 5, "gflops": 6, "gbs": 7, "percent": -1}


@pytest.mark.parametrize("column", COLUMN)
def test_the_table_is_sorted(record, column):
    text = record.table(sort_by=column, kind="operation")
    found = [
        line.split()[2:] for line in lines(text) if line.split()[-1] != line.split()[-2] and "m" in line.split()[-2]
    ]
    values = [float(row[COLUMN[column]]) for row in found]
    assert len(values) > 3 and values == sorted(values, reverse=True)


def test_the_table_limits_groups_and_refuses(record):
    assert len(lines(record.table(limit=2))) == 3 and "... and" in record.table(limit=2)
    names = [line.split()[0] for line in lines(record.table(sort_by="name"))]
    assert names == sorted(names)
    assert "features.conv1" in record.table(by="path") and "(3,1,4,4)" in record.table(by="shapes")
    assert record.table(kind="kernel").startswith("kernel") and "operation  " not in record.table(kind="kernel")
    assert "ms of wall time" in str(record) and "events" in repr(record)
    widths = {len(line) for line in record.table(kind="operation", sort_by="gflops").split("\n\n")[0].splitlines()[:2]}
    assert len(widths) == 1
    for bad in ({"sort_by": "speed"}, {"by": "colour"}, {"kind": "layer"}):
        with pytest.raises(ValueError, match=f"table: {next(iter(bad))} must be one of"):
            record.table(**bad)
    assert "0.000 ms" in fn.profiler.profile().table()


# ---- the trace and the picture ----------------------------------------------------------------------------------------------------
def test_the_trace_is_what_perfetto_reads(record, tmp_path):
    record.export_chrome_trace(tmp_path / "trace.json")
    content = json.loads((tmp_path / "trace.json").read_text())
    complete = [e for e in content["traceEvents"] if e["ph"] == "X"]
    assert len(complete) == len(record.events)
    for event in complete:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert event["ts"] >= 0 and event["dur"] > 0
        assert {"module", "direction", "flops", "bytes", "GFLOP/s", "GB/s", "percent of limit"} <= set(event["args"])
    assert {e["ph"] for e in content["traceEvents"]} == {"X", "M"}
    assert any(e["args"]["module"] == "features.conv1" for e in complete)


def test_the_picture(record, tmp_path):
    pytest.importorskip("matplotlib")
    record.plot(tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    profiled(lambda: None).plot(tmp_path / "empty.svg")
    assert "<svg" in (tmp_path / "empty.svg").read_text()


def test_the_picture_without_matplotlib_says_what_to_install(record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        record.plot(tmp_path / "roofline.png")


def _tracked():
    for _ in range(4):  # each look lets go of tuples whose contents were let go before
        gc.collect()
    return len(gc.get_objects())


def test_recorded_events_are_nothing_for_the_garbage_collector():
    """What it walks at each of its rounds does not grow with a profile, so the last event costs what the first did."""
    x = fn.ones(10)
    with fn.profiler.profile() as prof:
        for _ in range(50):
            x + x
        before = _tracked()
        for _ in range(500):
            x + x
        after = _tracked()
    assert after - before < 50 and len(prof.events) == 550


def test_integer_operations_have_their_own_dtype():
    with fn.profiler.profile() as prof:
        fn.arange(5) + 1
    assert {str(e.dtype) for e in prof.events if e.name == "add"} == {"int64"}


def test_an_operation_without_a_kernel_is_drawn_though_another_call_of_it_had_one(tmp_path):
    small, large = fn.ones(10), fn.ones(1 << 20)
    large + large
    with fn.profiler.profile() as prof:
        small + small
        large + large
    calls = {e.shapes[0]: e.kernels for e in prof.events if e.name == "add" and e.kind == "operation"}
    assert calls[10,] == 0 and calls[1 << 20,] == 1
    rows = roofline.chosen(prof.events, 12)
    assert ("operation", "add") in {(row.kind, row.name) for row in rows}


@pytest.mark.parametrize("limit", [-1, 1.5, True, "3"])
def test_a_number_of_rows_that_is_none_is_refused(record, limit, tmp_path):
    with pytest.raises(ValueError, match="limit must be an int of 0 or more"):
        record.table(limit=limit)
    with pytest.raises(ValueError, match="limit must be an int of 0 or more"):
        record.plot(tmp_path / "picture.png", limit=limit)
    assert "... and" in record.table(limit=0)


def test_the_lines_are_those_of_the_threads_that_the_percentages_mean(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(roofline, "_limits", lambda axes, limits, threads, low, high, named: drawn.append(threads))
    before = fn.get_num_threads()
    try:
        fn.set_num_threads(1)
        with fn.profiler.profile() as prof:
            fn.ones(300, 300) @ fn.ones(300, 300)
    finally:
        fn.set_num_threads(before)
    prof.plot(tmp_path / "picture.png")
    assert drawn == [1]
