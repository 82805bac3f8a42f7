"""What a Module holds, taken out and put in: ``state_dict``, ``load_state_dict``, and the functional clone under ``jit``."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import funcnn as fn
from funcnn.core import tree
from funcnn.core.context import ctx, running
from funcnn.core.errors import ShapeError, TracerError
from funcnn.core.mutation import assign
from funcnn.nn.binding import trees
from funcnn.nn.containers import ModuleList, Sequential
from funcnn.nn.module import Module
from funcnn.nn.parameter import Parameter
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.tensor import creation
from funcnn.transforms.grad import value_and_grad
from funcnn.transforms.jit import jit
from tests.nn.pairs import OURS, Net, Scale, agree, build, numbers, theirs


# ---- saving and loading ------------------------------------------------------------------------------------------------
def test_state_dict_shares_memory_and_is_detached():
    m = Scale()
    state = m.state_dict()
    assert isinstance(state, OrderedDict) and list(state) == ["weight", "count"]
    assert not state["weight"].requires_grad and m.state_dict(keep_vars=True)["weight"] is m.weight
    assign(state["weight"], creation.zeros(2), "zero_")
    assert numbers(m.weight) == [0.0, 0.0]
    kept = {"other": 1}
    assert m.state_dict(kept, "a.") is kept and list(kept) == ["other", "a.weight", "a.count"]


def test_load_copies_tensors_and_arrays():
    m = Net()
    weight, memory = m.second.weight, m.second.weight._v
    state = m.state_dict()
    state = {key: np.full(value.shape, 7.0) for key, value in state.items()}  # float64 goes into float32
    found = m.load_state_dict(state)
    assert repr(found) == "<All keys matched successfully>" and found.missing_keys == [] and found.unexpected_keys == []
    assert m.second.weight is weight and weight._v is memory and numbers(weight) == [7.0, 7.0]
    assert weight.requires_grad and weight.is_leaf and weight.dtype == np.float32


@pytest.mark.parametrize("strict", [True, False])
def test_load_errors_as_torch_and_changes_nothing(strict):
    def question(lib):
        m = build(lib).Net()
        before = {key: np.asarray(value).copy() for key, value in m.state_dict().items()}
        bad = {key: lib.tensor([9.0, 9.0]) for key in m.state_dict() if key != "gain"}
        del bad["first.count"]
        bad["more.weight"] = bad["second.extra"] = lib.ones(1)
        try:
            m.load_state_dict(bad, strict)
        except RuntimeError as error:
            if lib is OURS:  # torch has changed what did fit
                assert all((np.asarray(value) == before[key]).all() for key, value in m.state_dict().items())
            return sorted(str(error).replace("torch.Size", "funcnn.Size").split("\n\t"))
        return "loaded"

    agree(question)


def test_load_reports_keys_as_torch():
    def question(lib):
        found = (
            build(lib)
            .Net()
            .load_state_dict({"gain": lib.ones(2), "x": lib.ones(1), "first.y": lib.ones(1)}, strict=False)
        )
        return list(found.missing_keys), sorted(found.unexpected_keys)

    agree(question)


def test_load_refuses_what_is_no_array_and_no_dict():
    with pytest.raises(RuntimeError, match="received str"):
        Scale().load_state_dict({"weight": "no", "count": creation.ones(1)})
    with pytest.raises(TypeError, match="dict-like"):
        Scale().load_state_dict([1])


def test_load_from_torch():
    torch_net = build(theirs()).Net()
    m = Net()
    m.load_state_dict(torch_net.double().state_dict())
    assert numbers(m.gain) == [2.0, 3.0] and m.gain.dtype == np.float32


def test_assign_takes_the_tensors_over():
    m = Scale()
    weight, count = creation.tensor([4.0, 5.0], dtype=np.float64), creation.tensor([1.0])
    m.load_state_dict({"weight": weight, "count": count}, assign=True)
    assert isinstance(m.weight, Parameter) and m.weight._v is weight._v and m.weight.requires_grad and m.count is count
    before = m.weight
    with pytest.raises(RuntimeError, match="floating"):
        m.load_state_dict({"weight": creation.tensor([1, 2]), "count": count}, assign=True)
    assert m.weight is before


def test_extra_state():
    class Counting(Scale):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    m, other = Counting(), Counting()
    m.calls = 5
    assert list(m.state_dict()) == ["weight", "count", "_extra_state"]
    other.load_state_dict(m.state_dict())
    assert other.calls == 5
    with pytest.raises(RuntimeError, match='Missing key.*"_extra_state"'):
        other.load_state_dict(Scale().state_dict())
    with pytest.raises(RuntimeError, match='Unexpected key.*"_extra_state"'):
        Scale().load_state_dict(m.state_dict())


def test_state_dict_hooks():
    m = Scale()
    m.register_state_dict_pre_hook(lambda module, prefix, keep_vars: module.register_buffer("late", creation.ones(1)))
    m.register_state_dict_post_hook(lambda module, state, prefix, local: state.__delitem__(f"{prefix}count"))
    assert list(m.state_dict()) == ["weight", "late"]

    other = Scale()

    def rename(module, state, prefix, local, strict, missing, unexpected, errors):
        state[f"{prefix}weight"] = state.pop(f"{prefix}kernel")

    other.register_load_state_dict_pre_hook(rename)
    forgive = other.register_load_state_dict_post_hook(lambda module, found: found.missing_keys.clear())
    given = {"kernel": creation.tensor([1.0, 2.0])}
    assert other.load_state_dict(given).missing_keys == [] and list(given) == ["kernel"]
    assert numbers(other.weight) == [1.0, 2.0]
    forgive.remove()
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict(given)


# ---- transformations ---------------------------------------------------------------------------------------------------
def test_jit_traces_again_when_the_structure_changes():
    m = Scale()

    class Switch(Module):
        def __init__(self):
            super().__init__()
            self.inner = m

        def forward(self, x):
            return self.inner(x) if self.training else x

    switch = Switch()
    step = jit(lambda x: switch(x))
    x = creation.tensor([2.0, 3.0])
    with running(None, False):
        assign(m.weight, creation.tensor([5.0, 7.0]), "copy_")
        assert numbers(step(x)) == [10.0, 21.0]
        assign(m.weight, creation.tensor([1.0, 2.0]), "copy_")
        assert numbers(step(x)) == [2.0, 6.0] and step.traces == 1
        switch.eval()
        assert numbers(step(x)) == [2.0, 3.0] and step.traces == 2
        switch.train()
        assert numbers(step(x)) == [2.0, 6.0] and step.traces == 2
        m.weight = Parameter(creation.tensor([3.0, 3.0]))
        assert numbers(step(x)) == [6.0, 9.0] and step.traces == 3
        m.register_forward_hook(lambda module, args, out: mul(out, 10.0))
        assert numbers(step(x)) == [60.0, 90.0]


def test_traced_values_do_not_stay_in_a_module():
    class Remembering(Scale):
        def forward(self, x):
            self.count = mul(x, 2.0)
            return x

    m = Remembering()
    held = m.count
    with pytest.raises(TracerError, match="'count' was made outside jit.*copy_"):
        jit(lambda x: m(x))(creation.ones(1))
    assert m.count is held


def test_structure_sees_frozen_parameters():
    m = Scale()
    before = m._structure()
    m.weight.requires_grad_(False)
    assert m._structure() != before and ctx.stage is None


def test_trees_follow_the_state_dict():
    m = Net()
    m.empty = Module()
    params, state = trees(m)
    assert [path for path, _ in tree.paths(params)] == ["gain", "first.weight", "second.weight"]
    assert [path for path, _ in tree.paths(state)] == ["first.count", "first.scratch", "second.count", "second.scratch"]
    assert params["first"]["weight"] is m.first.weight and params["gain"] is m.gain


def test_bound_computes_with_the_given_tensors():
    m = Net()
    params, state = trees(m)
    doubled = tree.map(lambda t: mul(t, 2.0), params)
    x = creation.ones(2)
    clone = m._bound(doubled, state)
    assert isinstance(clone, Net) and clone.tied is clone.first and clone.first.weight is doubled["first"]["weight"]
    assert numbers(clone(x)) == [16.0, 24.0] and numbers(m(x)) == [2.0, 3.0]
    assert [n for n, _ in clone.named_parameters()] == [n for n, _ in m.named_parameters()]


def test_bound_keeps_what_forward_assigns_to_itself():
    class Counting(Scale):
        def forward(self, x):
            self.seen = x
            self.count = add(self.count, 1.0)
            return super().forward(x)

    m = Counting()
    params, state = trees(m)
    clone = m._bound(params, state)
    clone(creation.ones(2))
    assert numbers(trees(clone)[1]["count"]) == [1.0] and numbers(m.count) == [0.0] and "seen" not in m.__dict__


def test_bound_ties_weights_and_adds_their_gradients():
    class Tied(Module):
        def __init__(self):
            super().__init__()
            self.parts = ModuleList([Scale(), Scale()])
            self.parts[1].weight = self.parts[0].weight

        def forward(self, x):
            return self.parts[1](self.parts[0](x))

    m = Tied()
    params, state = trees(m)
    assert [path for path, _ in tree.paths(params)] == ["parts.0.weight"]
    weight = creation.tensor([2.0, 3.0])

    def loss(params):
        out = m._bound(params, state)(creation.ones(2))
        return mul(out, creation.tensor([1.0, 10.0])).sum()

    value, g = value_and_grad(loss)({"parts": {"0": {"weight": weight}}})
    assert value.item() == 94.0 and numbers(g["parts"]["0"]["weight"]) == [4.0, 60.0]  # d(w*w) = 2w


def test_bound_keeps_equal_tensors_apart():
    m = Sequential(Scale(), Scale())
    _, state = trees(m)
    one = creation.ones(2)
    same = {"0": {"weight": one}, "1": {"weight": one}}
    assert [path for path, _ in tree.paths(trees(m._bound(same, state))[0])] == ["0.weight", "1.weight"]


@pytest.mark.parametrize(
    "change", [lambda p: p.pop("gain"), lambda p: p.update(x=1), lambda p: p.update(tied={"weight": 1}),
               lambda p: p["first"].update(y=2)]
)  # fmt: skip
def test_bound_refuses_other_keys(change):
    m = Net()
    params, state = trees(m)
    change(params)
    with pytest.raises(ShapeError, match="pure"):
        m._bound(params, state)


# ---- running statistics ----------------------------------------------------------------------------------------------
def test_running_statistics_are_used_as_long_as_there_are_some() -> None:
    x = fn.tensor(np.random.default_rng(0).normal(2.0, 3.0, (5, 2, 4)).astype(np.float32))
    bn = fn.nn.BatchNorm1d(2)
    bn(x)
    bn.eval()
    before = bn(x).detach().numpy()
    bn.track_running_stats = False
    np.testing.assert_array_equal(bn(x).detach().numpy(), before)
    bn.train()
    held = bn.running_mean.numpy().copy()
    bn(x)
    np.testing.assert_array_equal(bn.running_mean.numpy(), held)
    without = fn.nn.BatchNorm1d(2, track_running_stats=False)
    without.track_running_stats = True
    np.testing.assert_allclose(without(x).detach().numpy(), without.eval()(x).detach().numpy())


def test_instance_norm_follows_the_option_of_now() -> None:
    x = fn.tensor(np.random.default_rng(0).normal(2.0, 3.0, (5, 2, 4)).astype(np.float32))
    norm = fn.nn.InstanceNorm1d(2, track_running_stats=True)
    norm(x)
    norm.eval()
    norm.track_running_stats = False
    np.testing.assert_allclose(norm(x).numpy(), fn.nn.InstanceNorm1d(2)(x).numpy())


def test_reset_running_stats() -> None:
    bn = fn.nn.BatchNorm2d(3)
    bn(fn.randn(2, 3, 4, 4))
    bn.reset_running_stats()
    assert bn.running_mean.tolist() == [0.0] * 3 and bn.running_var.tolist() == [1.0] * 3
    assert bn.num_batches_tracked.item() == 0
    fn.nn.BatchNorm2d(3, track_running_stats=False).reset_running_stats()
