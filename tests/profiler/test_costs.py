"""The cost rules against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import optim
from funcnn.core import primitive
from funcnn.core.evaluation import planned
from funcnn.core.primitive import Primitive
from funcnn.kernels.launch import LaunchPlan
from funcnn.ops.base.costs import ERF_FLOPS, EXP_FLOPS, TANH_FLOPS
from funcnn.optim.fused import adam_update, sgd_update
from funcnn.optim.rules import ADAM, SGD
from funcnn.profiler import costs
from tests.helpers import all_primitives

SDPA = "scaled_dot_product_attention"


def array(*shape, dtype="float32"):
    return costs.arrays(costs.facts([np.empty(shape, dtype)]))[0]


PRIMITIVES = {prim.name: prim for prim in all_primitives()}


FOREIGN = Primitive("somebody_elses", shape=lambda x: (x,))


def cost(name, ins, outs, **params):
    """Gives the flops by the rule that the primitive of this name declares; of "" somebody else's."""
    return costs.of(PRIMITIVES[name] if name else FOREIGN, ins, outs, params)[0]


@pytest.mark.parametrize(
    "name, ins, outs, params, expected",
    [
        ("conv", [(2, 4, 8), (6, 4, 3)], [(2, 6, 6)], {}, 2 * 2 * 6 * 6 * 4 * 3),
        ("conv", [(2, 4, 8, 8), (4, 1, 3, 3)], [(2, 4, 6, 6)], {"groups": 4}, 2 * 2 * 4 * 36 * 9),
        ("conv_input_grad", [(2, 6, 6), (6, 4, 3)], [(2, 4, 8)], {}, 2 * 2 * 6 * 6 * 4 * 3),
        ("conv_weight_grad", [(2, 4, 8), (2, 6, 6)], [(6, 4, 3)], {}, 2 * 2 * 6 * 6 * 4 * 3),
        ("matmul", [(5, 3, 7), (5, 7, 2)], [(5, 3, 2)], {}, 2 * 5 * 3 * 7 * 2),
        ("matmul", [(7,), (7,)], [()], {}, 14),
        ("add", [(3, 1), (1, 4)], [(3, 4)], {}, 12),
        ("tanh", [(3, 4)], [(3, 4)], {}, 12 * TANH_FLOPS),
        ("sum", [(3, 4)], [(4,)], {}, 12),
        ("max_pool", [(1, 2, 8, 8)], [(1, 2, 4, 4)], {"size": (2, 3), "stride": (2, 2)}, 32 * 6),
        ("softmax", [(3, 4)], [(3, 4)], {}, 12 * (EXP_FLOPS + 4)),
        ("batch_norm", [(3, 4)], [(3, 4), (4,)], {}, 12 * 7),
        ("group_norm_grad", [(3, 4)], [(3, 4)], {}, 12 * 11),
        ("lstm", [(5, 2, 7), (12, 7), (2, 3), (2, 3), (12, 3)], [(5, 2, 3)], {}, 5 * 2 * 12 * (2 * (7 + 3) + EXP_FLOPS + 4)),
        ("lstm_grad", [(5, 2, 3), (2, 3), (2, 3)], [(5, 2, 12)], {}, 5 * 2 * 12 * (2 * 3 + 8)),
        ("recurrent_weights", [(5, 2, 12), (5, 2, 7), (5, 2, 3), (2, 3)], [(12, 7)], {}, 5 * 2 * 12 * (2 * (7 + 3) + 1)),
        (SDPA, [(2, 5, 8), (2, 6, 8), (2, 6, 7)], [(2, 5, 7)], {}, 2 * 5 * 6 * (2 * (8 + 7) + EXP_FLOPS + 4)),
        (SDPA, [(2, 3, 8), (2, 3, 8), (2, 3, 8)], [(2, 3, 8)], {"causal": True}, 2 * 6 * (32 + EXP_FLOPS + 4)),
        (f"{SDPA}_grad", [(1,), (2, 5, 8), (2, 6, 8), (2, 6, 8)], [], {}, 2 * 5 * 6 * (2 * 40 + EXP_FLOPS + 4)),
        ("gelu", [(3, 4)], [(3, 4)], {}, 12 * (ERF_FLOPS + 4)),
        ("interpolate", [(1, 2, 4, 4)], [(1, 2, 8, 8)], {"axes": (("linear",), ("linear",))}, 128 * 2 * 4),
        ("grid_sample", [(1, 3, 4, 4), (1, 5, 5, 2)], [(1, 3, 5, 5)], {"taps": 2}, 75 * 2 * 4),
        ("grid_sample_grid_grad", [(1, 3, 5, 5), (1, 3, 4, 4), (1, 5, 5, 2)], [], {"taps": 4}, 75 * 4 * 16),
        ("argsort", [(2, 8)], [(2, 8)], {"dim": 1}, 16 * 3),
        ("svd", [(2, 3, 4)], [(2, 3, 3), (2, 3), (2, 3, 4)], {}, 2 * (6 * 3 * 4 * 3 + 20 * 27)),
        ("", [(3, 4)], [(7,)], {}, 7),
    ],
)  # fmt: skip
def test_flops_by_hand(name, ins, outs, params, expected):
    assert cost(name, [array(*s) for s in ins], [array(*s) for s in outs], **params) == expected


def test_primitives_that_handle_no_floating_point_numbers_cost_no_flops_by_default():
    whole = array(3, dtype="int64")
    assert (
        cost("", [whole], [whole]) == 0
        and cost("le", [array(3)], [array(3, dtype="bool")]) == 3
        and cost("", [], []) == 0
    )


def test_an_optimizers_update_costs_its_rules_flops_for_each_element():
    for rule, prim in ((ADAM, adam_update), (SGD, sgd_update)):
        ins, outs = [array(3), array(4)], [array(3), array(4), array(3), array(4)]
        assert costs.of(prim, ins, outs, {"count": 2})[0] == 7 * rule.flops


def _double(ins, outs):
    outs[0][...] = 2 * ins[0]


@pytest.mark.parametrize("name", ["conv", "gather", "batch_norm", "my_norm", "tanh_grad", "adam_update"])
def test_a_users_primitive_is_not_charged_as_ours_of_the_same_name(name):
    mine = Primitive(name, shape=lambda x: (x,), cpu=_double)
    assert costs.of(mine, [array(5)], [array(5)], {}) == (5.0, 40.0)
    with fn.profiler.profile() as prof:
        mine(fn.ones(5))
    (event,) = [e for e in prof.events if e.name == name]
    assert (event.flops, event.bytes) == (5.0, 40.0)


def test_declared_costs_count_and_a_failing_rule_costs_a_warning():
    declared = Primitive("mine", shape=lambda x: (x,), cpu=_double, flops=lambda ins, outs, params: 3 * outs[0].size)
    assert costs.of(declared, [array(5)], [array(5)], {}) == (15.0, 40.0)
    wrong = Primitive("mine", shape=lambda x: (x,), cpu=_double, bytes=lambda ins, outs, params: ins[7].nbytes)
    with fn.profiler.profile() as prof:
        wrong(fn.ones(5)) + 1
    with pytest.warns(UserWarning, match="the cost rule of mine raised IndexError"):
        events = prof.events
    assert [(e.name, e.flops, e.bytes) for e in events if e.kind == "operation"] == [
        ("mine", 5.0, 0.0),
        ("add", 5.0, 44.0),
    ]


def test_every_primitive_of_ours_declares_its_flops():
    """The default is for what users declare; the profiler knows no primitive by its name."""
    assert [prim.name for prim in all_primitives() if prim.flops is None and prim.view is None] == []


@pytest.mark.parametrize(
    "run",
    [
        lambda: F.conv2d(fn.ones(2, 3, 8, 8), fn.ones(4, 3, 3, 3), fn.ones(4)),
        lambda: F.softmax(fn.ones(40, 50), 1),
        lambda: F.avg_pool2d(fn.ones(1, 2, 9, 9), 3),
        lambda: F.embedding(fn.tensor([1, 2, 3]), fn.ones(10, 4)),
        lambda: fn.ones(400, 1000).exp(),
    ],
)
def test_a_launch_plan_costs_what_the_profiler_says(run):
    found = []

    def around(prim, values, params, where):
        made = planned(prim, values, params)
        found.append((prim.name, made.plan.cost[:2] if isinstance(made.plan, LaunchPlan) else None))
        return primitive.evaluate(prim, values, params, where, True)

    primitive.around["test"] = around
    try:
        run()
    finally:
        primitive.around.pop("test")
    with fn.profiler.profile() as prof:
        run()
    events = [event for event in prof.events if event.kind == "operation"]
    told = [(name, cost) for name, cost in found if cost is not None]
    assert told
    for name, cost in told:
        assert cost in [(event.flops, event.bytes) for event in events if event.name == name]


def test_gathering_reads_what_it_gathers():
    table, index = fn.ones(1000, 16), fn.tensor([1, 2, 3])
    with fn.profiler.profile() as prof:
        F.embedding(index, table)
    rows = next(e for e in prof.events if e.kind == "operation" and e.bytes)
    assert rows.bytes == 2 * 3 * 16 * 4 + 3 * 8 and rows.flops == 0


def test_kernel_bytes_count_each_array_once():
    a, b = np.empty(3), np.empty((2, 2), np.float32)
    assert costs.kernel_bytes((a, 1, (b, (a, 2.0)))) == 24 + 16


@pytest.mark.parametrize("make, moved", [(optim.Adam, 7 * 400 + 2 * 4 + 5 * 8), (optim.SGD, 3 * 400 + 4 * 8)])
def test_the_optimizers_kernels_say_what_they_move_behind_their_tables(make, moved):
    p = fn.ones(100).requires_grad_()
    opt = make([p], lr=0.1)
    p.sum().backward()
    opt.step()
    with fn.profiler.profile() as prof:
        opt.step()
    (update,) = [e for e in prof.events if e.kind == "operation"]
    (kernel,) = [e for e in prof.events if e.kind == "kernel"]
    assert kernel.bytes == moved + 4 * 8 + 10 * 4, "and a row of chunks, and scratch"
    assert kernel.flops == update.flops > 0 and kernel.parent == update.name
