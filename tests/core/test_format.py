"""Printed tensors against PyTorch's text, and a few forms in full."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from funcnn.core.format import format_tensor, set_printoptions
from funcnn.core.size import Size

SHAPES = [
    (), (1,), (5,), (12,), (30,), (2, 3), (3, 20), (2, 2, 3), (0,), (0, 3), (2, 0, 3), (40, 30), (1001,), (7, 8, 30),
    (11, 12, 13), (2, 3, 2, 2), (1, 200),
]  # fmt: skip


def _holed(rng: np.random.Generator, values: np.ndarray, hole: float) -> np.ndarray:
    return np.where(rng.random(values.shape) < 0.3, hole, values)


KINDS: dict[str, Callable] = {
    "normal": lambda rng, s: rng.normal(size=s),
    "large": lambda rng, s: rng.normal(size=s) * 1e5,
    "small": lambda rng, s: rng.normal(size=s) * 1e-5,
    "huge": lambda rng, s: rng.normal(size=s) * 1e10,
    "spread": lambda rng, s: np.exp(rng.normal(size=s) * 5),
    "whole": lambda rng, s: rng.integers(-5, 5, s),
    "whole_spread": lambda rng, s: rng.integers(-5000, 500000, s),
    "whole_huge": lambda rng, s: rng.integers(0, 2, s) * 1e9,
    "nan": lambda rng, s: _holed(rng, rng.normal(size=s), np.nan),
    "inf": lambda rng, s: _holed(rng, rng.integers(0, 9, s), np.inf),
    "minus_inf": lambda rng, s: _holed(rng, rng.normal(size=s) * 100, -np.inf),
    "all_nan": lambda rng, s: np.full(s, np.nan),
    "zeros": lambda rng, s: np.zeros(s),
    "minus_zeros": lambda rng, s: -np.zeros(s),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_floats_print_as_in_torch(kind: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    for shape in SHAPES:
        array = np.array(KINDS[kind](rng, shape), dtype)
        leaf = torch.from_numpy(array.copy()).requires_grad_()
        for theirs, notes in (
            (leaf.detach(), ()),
            (leaf, ("requires_grad=True",)),
            (leaf * 1, ("grad_fn=<MulBackward0>",)),
        ):
            expected = repr(theirs).replace("torch.", "funcnn.")
            got = format_tensor(array, suffixes=notes)
            if dtype == "float64":  # "funcnn.float64" is a letter longer, so the last line may break elsewhere
                got, expected = (re.sub(r",\s+", ", ", text) for text in (got, expected))
            assert got == expected, (shape, notes)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8", "bool"])
def test_integers_and_bools_print_as_in_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    for shape in SHAPES:
        array = np.array(rng.integers(0, 2 if dtype == "bool" else 120, shape)).astype(dtype)
        assert format_tensor(array) == repr(torch.from_numpy(array.copy())).replace("torch.", "funcnn."), shape


def test_forms_in_full() -> None:
    assert format_tensor(np.array([[0.5, -1.25]], np.float32)) == "tensor([[ 0.5000, -1.2500]])"
    assert format_tensor(np.array([1.0, 2.0])) == "tensor([1., 2.], dtype=funcnn.float64)"
    assert format_tensor(np.array(3)) == "tensor(3)"
    assert format_tensor(np.zeros((0, 3), np.float32)) == "tensor([], size=(0, 3))"
    assert format_tensor(np.arange(2000)) == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"


def test_print_options_and_their_profiles() -> None:
    array = np.array([1.23456, 2.0], np.float32)
    try:
        set_printoptions(precision=2)
        assert format_tensor(array) == "tensor([1.23, 2.00])"
        set_printoptions(sci_mode=True)
        assert format_tensor(array) == "tensor([1.23e+00, 2.00e+00])"
        set_printoptions(profile="full")
        assert "..." not in format_tensor(np.arange(2000))
        with pytest.raises(ValueError, match="profile"):
            set_printoptions(profile="none")
    finally:
        set_printoptions(profile="default")
    assert format_tensor(array) == "tensor([1.2346, 2.0000])"


def test_size() -> None:
    size = Size((2, 3, 4))
    assert repr(size) == "funcnn.Size([2, 3, 4])" and size == (2, 3, 4) and size.numel() == 24
    assert isinstance(size[1:], Size) and isinstance(size + (1,), Size) and isinstance((1,) + size, Size)
    assert size[0] == 2 and size + (1,) == (2, 3, 4, 1)
