"""What a parameter group may be: as in PyTorch an ordered collection, in a dict."""

from __future__ import annotations

from typing import Any

import pytest

import funcnn as fn
from funcnn import nn, optim


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.AdamW])
def test_sets(rule: Any) -> None:
    """The order of a set changes between runs, and with it which state belongs to which parameter."""
    ps = [nn.Parameter(fn.ones(n + 1)) for n in range(3)]
    with pytest.raises(TypeError, match=rf"{rule.__name__}: the parameters of a group must have an order, got a set"):
        rule([{"params": set(ps)}], lr=0.1)
    held = rule(set(ps), lr=0.1)
    assert {id(p) for p in held.param_groups[0]["params"]} == {id(p) for p in ps}
    with pytest.raises(TypeError, match="must have an order"):
        held.add_param_group({"params": {nn.Parameter(fn.ones(1))}})
    for kind in (list, tuple, iter, dict.fromkeys, frozenset):
        assert len(rule([{"params": kind(ps)}], lr=0.1).param_groups[0]["params"]) == 3


def test_groups_are_dicts() -> None:
    p = nn.Parameter(fn.ones(2))
    with pytest.raises(TypeError, match="SGD: a parameter group must be a dict, got list"):
        optim.SGD([p], lr=0.1).add_param_group([nn.Parameter(fn.ones(1))])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a parameter group must be a dict, got Parameter"):
        optim.SGD([{"params": [p]}, nn.Parameter(fn.ones(1))], lr=0.1)
