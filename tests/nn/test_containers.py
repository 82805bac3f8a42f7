"""Containers behave, print and name their contents as torch's."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest

import funcnn  # noqa: F401  (attaches the methods of Tensor)
from funcnn.nn import containers
from funcnn.nn.module import Module
from funcnn.nn.parameter import Parameter
from funcnn.ops.elementwise.arithmetic import add
from funcnn.ops.tensor import creation

OURS = SimpleNamespace(
    Module=Module, Parameter=Parameter, ones=creation.ones,
    **{n: getattr(containers, n) for n in ("Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict")},
)  # fmt: skip


def theirs() -> SimpleNamespace:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    return SimpleNamespace(
        Module=nn.Module, Parameter=nn.Parameter, ones=torch.ones, Sequential=nn.Sequential, ModuleList=nn.ModuleList,
        ModuleDict=nn.ModuleDict, ParameterList=nn.ParameterList, ParameterDict=nn.ParameterDict,
    )  # fmt: skip


def shift_of(lib: SimpleNamespace):
    """A module class adding a number, in either library."""

    class Shift(lib.Module):
        def __init__(self, by: float):
            super().__init__()
            self.by = by
            self.weight = lib.Parameter(lib.ones(1))

        def forward(self, x):
            return add(x, self.by) if lib is OURS else x + self.by

        def extra_repr(self):
            return f"by={self.by}"

    return Shift


def plain(text: str) -> str:
    return text.replace("torch.FloatTensor", "float32").replace("torch.", "")


def agree(question) -> None:
    """``question(lib, Shift)`` has one answer, or raises one type of error, in both libraries."""
    answers = []
    for lib in (OURS, theirs()):
        try:
            answers.append(question(lib, shift_of(lib)))
        except Exception as error:
            answers.append(type(error))
    assert answers[0] == answers[1]


def look(m) -> tuple:
    return plain(repr(m)), list(m.state_dict()), len(m)


LISTS = {
    "getitem": lambda m, S: [m[0].by, m[-1].by, m[1].by],
    "too far": lambda m, S: m[3],
    "too far back": lambda m, S: m[-4],
    "slice": lambda m, S: (type(m[1:]).__name__, look(m[1:]), look(m[:-2]), look(m[::2])),
    "set": lambda m, S: m.__setitem__(-1, S(9)),
    "set wrong": lambda m, S: m.__setitem__(0, 3),
    "del": lambda m, S: m.__delitem__(0),
    "del slice": lambda m, S: m.__delitem__(slice(1, None)),
    "del far": lambda m, S: m.__delitem__(7),
    "append": lambda m, S: m.append(S(9)) is m,
    "append wrong": lambda m, S: m.append(3),
    "extend": lambda m, S: m.extend([S(8), S(9)]) is m,
    "extend itself": lambda m, S: m.extend(list(m)) is m,
    "insert": lambda m, S: m.insert(1, S(9)) and None,
    "insert last": lambda m, S: m.insert(3, S(9)) and None,
    "pop": lambda m, S: m.pop(1).by,
    "iterate": lambda m, S: [x.by for x in m],
    "dir": lambda m, S: [n for n in dir(m) if n.isdigit()],
    "truth": lambda m, S: (bool(m), bool(type(m)())),
}


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_list_operations(kind, what):
    def question(lib, Shift):
        parts = [Shift(1), Shift(1), Shift(2)]
        m = lib.Sequential(*parts) if kind == "Sequential" else lib.ModuleList(parts)
        return LISTS[what](m, Shift), look(m)

    agree(question)


SEQUENTIALS = {
    "ordered": lambda lib, S: lib.Sequential(OrderedDict(a=S(1), b=S(2))),
    "ordered slice": lambda lib, S: lib.Sequential(OrderedDict(a=S(1), b=S(2), c=S(3)))[1:],
    "ordered pop": lambda lib, S: lib.Sequential(lib.Sequential(OrderedDict(a=S(1), b=S(2))).pop(0)),
    "plain dict": lambda lib, S: lib.Sequential({"a": S(1)}),
    "tuples": lambda lib, S: lib.Sequential(("fc1", S(1))),
    "list": lambda lib, S: lib.Sequential([S(1)]),
    "empty": lambda lib, S: lib.Sequential(),
    "dotted": lambda lib, S: lib.Sequential(OrderedDict({"a.b": S(1)})),
    "add": lambda lib, S: lib.Sequential(S(1)) + lib.Sequential(S(2), S(3)),
    "add list": lambda lib, S: lib.Sequential(S(1)) + [S(2)],
    "times": lambda lib, S: 2 * lib.Sequential(S(1), S(2)),
    "times zero": lambda lib, S: lib.Sequential(S(1)) * 0,
    "times float": lambda lib, S: lib.Sequential(S(1)) * 1.5,
    "nested": lambda lib, S: lib.Sequential(lib.Sequential(S(1), lib.ModuleList([S(2)] * 3)), S(1)),
}


@pytest.mark.parametrize("what", SEQUENTIALS)
def test_sequential(what):
    agree(lambda lib, Shift: look(SEQUENTIALS[what](lib, Shift)))


def test_sequential_in_place():
    def question(lib, Shift):
        m = lib.Sequential(Shift(1))
        m += lib.Sequential(Shift(2))
        m *= 2
        return look(m), [x.by for x in m], m[0] is m[2]

    agree(question)


def test_sequential_applies_in_order():
    Shift = shift_of(OURS)
    out = containers.Sequential(Shift(1.0), containers.Sequential(Shift(2.0), Shift(4.0)))(creation.ones(2))
    assert np.asarray(out._v).tolist() == [8.0, 8.0]
    with pytest.raises(NotImplementedError):
        containers.ModuleList([Shift(1.0)])(creation.ones(2))


MODULE_LISTS = {
    "empty": lambda lib, S: lib.ModuleList(),
    "generator": lambda lib, S: lib.ModuleList(S(i) for i in range(3)),
    "collapsed": lambda lib, S: lib.ModuleList([S(1)] * 10 + [S(2)] + [S(3), S(3)]),
    "nested": lambda lib, S: lib.ModuleList([lib.Sequential(S(1), S(2)) for _ in range(2)]),
    "add": lambda lib, S: lib.ModuleList([S(1)]) + [S(2)],
    "number": lambda lib, S: lib.ModuleList(3),
    "inside": lambda lib, S: lib.Sequential(lib.ModuleList([S(1)] * 2)),
}


@pytest.mark.parametrize("what", MODULE_LISTS)
def test_module_list(what):
    agree(lambda lib, Shift: look(MODULE_LISTS[what](lib, Shift)))


MODULE_DICTS = {
    "dict": lambda lib, S: lib.ModuleDict({"b": S(1), "a": S(2)}),
    "pairs": lambda lib, S: lib.ModuleDict([("b", S(1)), ["a", S(2)]]),
    "ordered": lambda lib, S: lib.ModuleDict(OrderedDict(b=S(1), a=S(2))),
    "another": lambda lib, S: lib.ModuleDict(lib.ModuleDict({"b": S(1)})),
    "empty": lambda lib, S: lib.ModuleDict(),
    "number": lambda lib, S: lib.ModuleDict(3),
    "no pairs": lambda lib, S: lib.ModuleDict([3]),
    "triples": lambda lib, S: lib.ModuleDict([("a", S(1), 2)]),
    "taken name": lambda lib, S: lib.ModuleDict({"keys": S(1)}),
    "not a module": lambda lib, S: lib.ModuleDict({"a": 3}),
}


@pytest.mark.parametrize("what", MODULE_DICTS)
def test_module_dict(what):
    agree(lambda lib, Shift: look(MODULE_DICTS[what](lib, Shift)))


def test_module_dict_operations():
    def question(lib, Shift):
        m = lib.ModuleDict({"b": Shift(1), "a": Shift(2)})
        m["c"] = Shift(3)
        m.update({"a": Shift(4)})
        seen = [
            list(m),
            list(m.keys()),
            [x.by for x in m.values()],
            [(k, x.by) for k, x in m.items()],
            "b" in m,
            m.pop("b").by,
        ]
        del m["c"]
        seen.append(look(m))
        m.clear()
        return seen, len(m)

    agree(question)


def test_parameter_list_as_torch():
    def question(lib, Shift):
        m = lib.ParameterList([lib.ones(2, 3), lib.Parameter(lib.ones(1)), 5])
        m.append(lib.ones(4))
        m += [lib.ones(2)]
        m[1] = lib.ones(7)
        part = m[1:4:2]
        return (look(m), look(part), type(m[0]).__name__, m[2], [n for n, _ in m.named_parameters()], m[-1].shape == (2,),
                [type(x).__name__ == "Parameter" for x in m])  # fmt: skip

    agree(question)


@pytest.mark.parametrize("given", [lambda lib: 3, lambda lib: lib.ones(2)])
def test_parameter_list_refuses(given):
    agree(lambda lib, Shift: lib.ParameterList(given(lib)))
    agree(lambda lib, Shift: lib.ParameterList()(1))
    agree(lambda lib, Shift: lib.ParameterList()[0])


def test_parameter_dict_as_torch():
    def question(lib, Shift):
        m = lib.ParameterDict({"b": lib.ones(2), "a": lib.Parameter(lib.ones(1, 2)), "c": "word"})
        m["d"] = lib.ones(3)
        seen = [look(m), list(m), list(reversed(m)), "a" in m, m.get("x", 1), m.pop("c"), m.setdefault("e", 4)]
        seen += [m.popitem(), look(m.copy()), list(m | {"z": 1}), list({"z": lib.ones(1)}.keys() | m.keys()) != []]
        m |= lib.ParameterDict([("y", lib.ones(1))])
        seen += [list(m.keys()), len(list(m.values())), [k for k, _ in m.items()], look(m.fromkeys(["q"], 0))]
        m.clear()
        return [*seen, len(m)]

    agree(question)


@pytest.mark.parametrize("given", [3, [3], [("a", 1, 2)], [(1, 2)]])
def test_parameter_dict_refuses(given):
    agree(lambda lib, Shift: look(lib.ParameterDict(given)))
    agree(lambda lib, Shift: lib.ParameterDict().popitem())
    agree(lambda lib, Shift: lib.ParameterDict()(1))
