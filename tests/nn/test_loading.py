"""Loading: checkpoints of older versions, overridden ``_load_from_state_dict``, and what counts as unexpected, as in PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn

torch = pytest.importorskip("torch")
BOTH = pytest.mark.parametrize("T", [fn, torch], ids=["funcnn", "torch"])
NORMS = {
    "BatchNorm1d": (2, 3),
    "BatchNorm2d": (2, 3, 2, 2),
    "BatchNorm3d": (2, 3, 2, 2, 2),
    "InstanceNorm2d": (2, 3, 4, 4),
}


def outcome(f: Any) -> tuple:
    """The two lists, or what was raised."""
    try:
        found = f()
    except (RuntimeError, TypeError) as error:
        return (type(error).__name__,)
    return list(found.missing_keys), list(found.unexpected_keys)


@BOTH
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_version_1_have_no_count(T: Any, name: str) -> None:
    def net() -> Any:
        return T.nn.Sequential(getattr(T.nn, name)(3, track_running_stats=True), T.nn.ReLU())

    m = net()
    m(T.ones(*NORMS[name]))
    full = m.state_dict()
    assert full._metadata["0"] == {"version": 2}
    old = {k: v for k, v in full.items() if "num_batches" not in k}
    fresh = net()
    fresh(T.ones(*NORMS[name]))
    assert outcome(lambda: fresh.load_state_dict(old)) == ([], [])
    assert fresh[0].num_batches_tracked.item() == m[0].num_batches_tracked.item()
    for version, expected in ((None, ([], [])), (1, ([], [])), (2, ("RuntimeError",))):
        told = OrderedDict(old)
        told._metadata = OrderedDict({"": {"version": 1}, "0": {} if version is None else {"version": version}})
        assert outcome(lambda: net().load_state_dict(told)) == expected
    assert outcome(lambda: net().load_state_dict({k: v for k, v in old.items() if "mean" not in k})) == (
        "RuntimeError",
    )
    assert "0.num_batches_tracked" not in old


@BOTH
def test_scalars_of_one_element_load(T: Any) -> None:
    m = T.nn.BatchNorm1d(2)
    numbers = {**m.state_dict(), "num_batches_tracked": T.ones(1).long() * 7}
    m.load_state_dict(numbers)
    assert m.num_batches_tracked.item() == 7 and tuple(m.num_batches_tracked.shape) == ()


def overriding(T: Any, calls: list) -> Any:
    class Renamed(T.nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
            calls.append(
                (
                    prefix,
                    sorted(state_dict),
                    local_metadata.get("version"),
                    rest[0],
                    local_metadata.get("assign_to_params_buffers", False),
                )
            )
            if prefix + "kernel" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "kernel")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    class Alone(T.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = T.nn.Parameter(T.zeros(2))

        def _load_from_state_dict(
            self,
            state_dict: Any,
            prefix: str,
            local_metadata: Any,
            strict: bool,
            missing: list,
            unexpected: list,
            errors: list,
        ) -> None:
            with T.no_grad():
                self.w.copy_(state_dict[prefix + "anything"])
            if prefix + "complaint" in state_dict:
                errors.append("as it says")

    return T.nn.Sequential(Renamed(2, 2), Alone(), T.nn.Linear(2, 1))  # fmt: skip


def test_overridden_methods_are_called() -> None:
    """Renaming, loading by hand, complaining: the same calls, lists, errors and numbers as PyTorch's."""
    results = []
    for T in (fn, torch):
        calls: list = []
        m = overriding(T, calls)
        numbers = OrderedDict({"0.kernel": T.ones(2, 2) * 3, "0.bias": T.ones(2), "1.anything": T.ones(2) * 5,
                               "2.weight": T.ones(1, 2) * 7, "2.bias": T.ones(1)})  # fmt: skip
        found = [outcome(lambda: m.load_state_dict(numbers))]
        found.append({k: v.tolist() for k, v in m.state_dict().items()})
        found.append(sorted(numbers))
        for extra in ("0.more", "1.more", "3.weight", "top", "1.complaint", "2.weight.deep"):
            given = OrderedDict({**numbers, extra: T.ones(1)})
            found.append(outcome(lambda: m.load_state_dict(given)))
            found.append(outcome(lambda: m.load_state_dict(given, strict=False)))
        found.append(
            outcome(lambda: m.load_state_dict({k: v for k, v in numbers.items() if k != "0.bias"}, strict=False))
        )
        results.append((found, calls))
    assert results[0] == results[1]


def test_an_overridden_method_with_metadata_of_its_own() -> None:
    """It writes at once, for nobody else will."""

    class Forgetful(fn.nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
            super()._load_from_state_dict(state_dict, prefix, {}, *rest)

    m = Forgetful(2, 1)
    m.load_state_dict({"weight": np.full((1, 2), 4.0), "bias": np.ones(1)})
    assert m.weight.tolist() == [[4, 4]]


def test_nothing_is_written_where_something_does_not_fit() -> None:
    m = fn.nn.Sequential(fn.nn.Linear(2, 2), fn.nn.BatchNorm1d(2))
    before = {k: v.tolist() for k, v in m.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"size mismatch for 1.weight"):
        m.load_state_dict({**{k: v * 0 + 9 for k, v in m.state_dict().items()}, "1.weight": fn.ones(3)})
    assert {k: v.tolist() for k, v in m.state_dict().items()} == before
