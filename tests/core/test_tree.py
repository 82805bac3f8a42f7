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


def test_a_class_of_ones_own() -> None:
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    tree.register(Pair, lambda p: ((), (p.a, p.b)), lambda cls, keys, parts: cls(*parts))
    doubled = tree.map(lambda v: 2 * v, [Pair(1, 2), 3])
    assert (doubled[0].a, doubled[0].b, doubled[1]) == (2, 4, 6)
