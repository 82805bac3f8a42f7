"""Module: registration, traversal, modes, dtypes, hooks, repr and copies, as torch's."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from funcnn.core.errors import DTypeError, TracerError
from funcnn.core.mutation import assign
from funcnn.nn.module import Module
from funcnn.nn.parameter import Parameter
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.tensor import creation
from funcnn.transforms.jit import jit
from tests.nn.pairs import OURS, Net, Scale, agree, build, numbers


# ---- parameters and registration -----------------------------------------------------------------------------------------
def test_parameter_is_a_leaf_on_the_same_memory():
    data = creation.ones(3)
    p = Parameter(data)
    assert isinstance(p, Parameter) and p.requires_grad and p.is_leaf and p._v is data._v
    assert not Parameter(data, requires_grad=False).requires_grad
    assert type(mul(p, 2.0)) is not Parameter
    assert repr(p).startswith("Parameter containing:\ntensor([1., 1., 1.]")


def test_parameter_refuses_integers_and_lists():
    with pytest.raises(DTypeError, match="floating"):
        Parameter(creation.tensor([1, 2]))
    with pytest.raises(TypeError, match="list"):
        Parameter([1.0])


def test_write_through_the_data_is_seen_by_backward():
    data = creation.ones(2)
    p = Parameter(data)
    y = mul(p, p)
    assign(data, creation.zeros(2), "zero_")
    with pytest.raises(RuntimeError, match="overwritten"):
        y.backward(creation.ones(2))


@pytest.mark.parametrize(
    "value",
    [
        lambda lib: lib.Parameter(lib.ones(1)),
        lambda lib: lib.Module(),
        lambda lib: lib.Buffer(lib.ones(1)),
        lambda lib: lib.ones(1),
        lambda lib: None,
        lambda lib: 3,
    ],
)
@pytest.mark.parametrize("name", ["weight", "count", "scratch", "child", "plain", "bias"])
def test_assignment_registers_or_refuses_as_torch(name, value):
    def question(lib):
        m = build(lib).Scale()
        m.child = lib.Module()
        m.plain = 1
        setattr(m, name, value(lib))
        tables = [sorted(m._parameters), sorted(m._buffers), sorted(m._modules), sorted(m._non_persistent_buffers_set)]
        return tables, name in m.__dict__, list(m.state_dict())

    agree(question)


@pytest.mark.parametrize("kind", ["Parameter", "Module", "Buffer"])
def test_assignment_before_init(kind):
    class Early(Module):
        def __init__(self):
            self.thing = Module() if kind == "Module" else getattr(OURS, kind)(creation.ones(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()


@pytest.mark.parametrize("name", ["", "a.b", "weight", "forward", "count", "child", 3])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_register_names_as_torch(kind, name):
    def question(lib):
        m = build(lib).Scale()
        m.child = lib.Module()
        value = {"parameter": lib.Parameter(lib.ones(1)), "buffer": lib.ones(1), "module": lib.Module()}[kind]
        getattr(m, f"register_{kind}")(name, value)
        return list(m._parameters), list(m._buffers), list(m._modules)

    agree(question)


def test_register_refuses_other_types():
    m = Module()
    for register in (m.register_parameter, m.register_buffer, m.add_module):
        with pytest.raises(TypeError):
            register("x", 3)


def test_delete_and_missing_attributes():
    m = Scale()
    del m.weight, m.count, m.scratch
    assert not list(m.parameters()) and not list(m.buffers()) and not m._non_persistent_buffers_set
    with pytest.raises(AttributeError, match="'Scale' object has no attribute 'weight'"):
        _ = m.weight
    with pytest.raises(AttributeError):
        del m.weight


def test_dir_lists_registered_names():
    names = dir(Net())
    assert {"first", "gain", "forward", "training"} <= set(names)


# ---- traversal ---------------------------------------------------------------------------------------------------------
def test_names_as_torch():
    def question(lib):
        m = build(lib).Net()
        return [
            [n for n, _ in m.named_parameters()],
            [n for n, _ in m.named_parameters("net", recurse=False)],
            [n for n, _ in m.named_parameters(remove_duplicate=False)],
            [n for n, _ in m.named_buffers()],
            [n for n, _ in m.named_modules()],
            [n for n, _ in m.named_modules(remove_duplicate=False)],
            [n for n, _ in m.named_children()],
            list(m.state_dict()),
            list(m.state_dict(prefix="net.")),
            len(list(m.parameters())), len(list(m.modules())), len(list(m.buffers(recurse=False))),
        ]  # fmt: skip

    agree(question)


def test_apply_visits_children_first():
    def question(lib):
        seen = []
        m = build(lib).Net()
        assert m.apply(lambda module: seen.append(type(module).__name__)) is m
        return seen

    agree(question)


@pytest.mark.parametrize("method", ["get_submodule", "get_parameter", "get_buffer"])
@pytest.mark.parametrize(
    "path", ["", "first", "first.weight", "second.count", "first.size", "gain", "no.way", "nothing"]
)
def test_get_by_path_as_torch(method, path):
    def question(lib):
        found = getattr(build(lib).Net(), method)(path)
        return isinstance(found, lib.Module), isinstance(found, lib.Parameter)

    agree(question)


@pytest.mark.parametrize("path", ["first", "first.deep", "no.way", "", "first.weight", "gain"])
@pytest.mark.parametrize("strict", [False, True])
def test_set_submodule_as_torch(path, strict):
    def question(lib):
        m = build(lib).Net()
        m.set_submodule(path, lib.Module(), strict)
        return [n for n, _ in m.named_modules()]

    agree(question)


# ---- modes, gradients, dtypes ------------------------------------------------------------------------------------------
def test_train_eval_and_freezing():
    m = Net()
    assert m.eval() is m and not any(module.training for module in m.modules())
    m.train()
    assert m.first.training
    with pytest.raises(ValueError, match="boolean"):
        m.train(1)
    m.requires_grad_(False)
    assert not any(p.requires_grad for p in m.parameters())


def test_zero_grad():
    m = Net()
    m(creation.ones(2)).backward(creation.ones(2))
    held = m.gain.grad
    assert numbers(held) == [1.0, 1.0]
    m.zero_grad(set_to_none=False)
    assert m.gain.grad is held and numbers(held) == [0.0, 0.0]
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())


def test_conversion_keeps_the_parameters_boxes():
    m = Net()
    m.register_buffer("steps", creation.tensor([1]))
    gain, old = m.gain, m.gain._v
    gain.grad = creation.ones(2)
    assert m.double() is m
    assert m.gain is gain and gain.dtype == np.float64 and gain.grad.dtype == np.float64 and old.dtype == np.float32
    assert m.first.count.dtype == np.float64 and m.steps.dtype == np.int64
    assert m.to("cpu").to(creation.ones(1)).gain.dtype == np.float32
    assert m.half().gain.dtype == np.float16 and m.type(np.float32).steps.dtype == np.float32
    with pytest.raises(TypeError, match="floating"):
        m.to(np.int64)
    with pytest.raises(RuntimeError):
        m.to("cuda")


def test_conversion_inside_jit_is_refused():
    m = Scale()
    with pytest.raises(TracerError, match="convert it before"):
        jit(lambda x: m.double()(x))(creation.ones(2))
    assert m.weight.dtype == np.float32


def test_forward_is_required():
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        Module()(1)


# ---- hooks -------------------------------------------------------------------------------------------------------------
def test_hooks_run_in_order_and_may_replace():
    def question(lib):
        m, calls = build(lib).Scale(), []

        def note(word, result=None):
            def hook(module, *given):
                calls.append((word, len(given)))
                return result

            return hook

        m.register_forward_pre_hook(note("pre", lib.ones(2)))
        m.register_forward_pre_hook(note("first", None), prepend=True)
        m.register_forward_pre_hook(note("named", ((lib.ones(2),), {"shift": 5.0})), with_kwargs=True)
        m.register_forward_hook(note("after"))
        m.register_forward_hook(note("named after"), with_kwargs=True)
        last = m.register_forward_hook(note("last", "replaced"))
        outs = [m(lib.ones(2), shift=1.0)]
        last.remove()
        last.remove()
        outs.append(m(lib.ones(2)).tolist() if lib is not OURS else numbers(m(lib.ones(2))))
        with m.register_forward_hook(note("short", 1)):
            outs.append(m(lib.ones(2)))
        return calls, outs, m(lib.ones(2)).shape == (2,)

    agree(question)


def test_pre_hook_with_kwargs_must_return_a_pair():
    m = Scale()
    m.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="tuple"):
        m(creation.ones(2))


# ---- text, copies ------------------------------------------------------------------------------------------------------
def test_repr_as_torch():
    def question(lib):
        classes = build(lib)

        class Wide(lib.Module):
            def extra_repr(self):
                return "one\ntwo"

        m = classes.Net()
        m.wide = Wide()
        m.wide.inner = classes.Net()
        return repr(m), repr(lib.Module()), repr(classes.Scale()), repr(Wide())

    agree(question)


def test_deepcopy_keeps_ties_and_separates_memory():
    m = Net()
    twin = copy.deepcopy(m)
    assert (
        twin.tied is twin.first
        and twin.gain is not m.gain
        and isinstance(twin.gain, Parameter)
        and twin.gain.requires_grad
    )
    assign(twin.state_dict()["gain"], creation.zeros(2), "zero_")
    assert numbers(m.gain) == [2.0, 3.0]


def test_pickle():
    m = Scale(3).eval()
    twin = pickle.loads(pickle.dumps(m))
    assert list(twin.state_dict()) == ["weight", "count"] and isinstance(twin.weight, Parameter) and not twin.training
    assert twin._non_persistent_buffers_set == {"scratch"} and numbers(twin(creation.ones(3))) == [1.0, 1.0, 1.0]
