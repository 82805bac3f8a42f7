"""Pytrees: order, structure, matching, registration."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest

from funcnn.core import tree
from funcnn.core.errors import ShapeError

Point = namedtuple("Point", "x y")
NESTED = {"b": [1, (2, None)], "a": Point(3, {"z": 4}), "c": OrderedDict(q=5)}


def test_leaves_come_in_written_order_and_rebuild_the_tree() -> None:
    leaves, treedef = tree.flatten(NESTED)
    assert leaves == [1, 2, 3, 4, 5] and treedef.num_leaves == 5
    again = tree.unflatten(treedef, leaves)
    assert (
        again == NESTED
        and list(again) == ["b", "a", "c"]
        and isinstance(again["a"], Point)
        and isinstance(again["c"], OrderedDict)
    )


def test_structures_are_values() -> None:
    assert tree.flatten(NESTED)[1] == tree.flatten(tree.map(str, NESTED))[1]
    assert hash(tree.flatten([1])[1]) == hash(tree.flatten([2])[1]) and tree.flatten([1])[1] != tree.flatten((1,))[1]


def test_map_matches_dicts_by_key() -> None:
    assert tree.map(lambda a, b: a + b, {"x": 1, "y": 2}, {"y": 20, "x": 10}) == {"x": 11, "y": 22}
    with pytest.raises(ShapeError, match=r"expected a dict with keys \['x'\], got a dict with keys \['z'\]"):
        tree.map(lambda a, b: a, {"x": 1}, {"z": 1})
    with pytest.raises(ShapeError, match="2 entries"):
        tree.map(lambda a, b: a, [1, 2], [1])


def test_paths_and_nest_are_inverse() -> None:
    params = {"conv": {"weight": 1, "bias": 2}, "fc": {"weight": 3}}
    assert tree.paths(params) == [("conv.weight", 1), ("conv.bias", 2), ("fc.weight", 3)]
    assert tree.nest(dict(tree.paths(params))) == params
    hollow = {"conv": {"weight": 1}, "relu": {}, "deep": {"a": {}, "b": {"c": {}, "d": 4}}, "none": None}
    for flat in (tree.paths(hollow), dict(tree.paths(hollow))):
        again = tree.nest(flat)
        assert again == hollow and list(again) == list(hollow)
    assert tree.nest(tree.paths({})) == {} and tree.paths({}) == [] and tree.paths(7) == [("", 7)]
    assert [path for path, _ in tree.paths(hollow)] == ["conv.weight", "deep.b.d", "none"]
    assert tree.paths(hollow)[0] == ("conv.weight", 1) and tree.paths(hollow)[-2:] == [("deep.b.d", 4), ("none", None)]


def test_paths_go_through_lists_tuples_and_registered_classes() -> None:
    found = tree.paths(NESTED, "p")
    assert [path for path, _ in found] == ["p.b.0", "p.b.1.0", "p.b.1.1", "p.a.0", "p.a.1.z", "p.c.q"]
    assert [leaf for _, leaf in found if leaf is not None] == tree.leaves(NESTED)
    assert tree.nest(tree.paths({"a": [1, (2,)], "e": []})) == {"a": {"0": 1, "1": {"0": 2}}, "e": []}
    assert [keys for keys, _ in tree.walk(NESTED)] == [("b", 0), ("b", 1, 0), ("a", 0), ("a", 1, "z"), ("c", "q")]


def test_a_class_of_ones_own() -> None:
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    tree.register(Pair, lambda p: ((), (p.a, p.b)), lambda cls, keys, parts: cls(*parts))
    doubled = tree.map(lambda v: 2 * v, [Pair(1, 2), 3])
    assert (doubled[0].a, doubled[0].b, doubled[1]) == (2, 4, 6)
