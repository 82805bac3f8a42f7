"""Evaluating primitives: NumPy's errors stay silent inside, and the user's settings are as they were afterwards."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.primitive import Primitive


def test_floating_point_errors_pass_in_silence():
    before = np.geterr()
    with np.errstate(all="raise"):
        assert fn.exp(fn.tensor([1000.0])).item() == np.inf
        assert np.isnan((fn.zeros(3) / fn.zeros(3)).numpy()).all()
        with pytest.raises(IndexError):  # from within an operation
            fn.nn.functional.embedding(fn.tensor([7]), fn.ones(3, 2))
        with pytest.raises(FloatingPointError):
            np.exp(np.float32(1000.0))
    assert np.geterr() == before


def test_a_history_has_pytorchs_names_and_others_keep_their_own():
    x = fn.ones(3).requires_grad_()
    assert (x**2).grad_fn.name == fn.square(x).grad_fn.name == "PowBackward0"
    own = Primitive("square", lambda x: (x,), vjp=lambda g, ins, o: (g,), cpu=lambda ins, outs: np.square(*ins, *outs))
    assert own(x).grad_fn.name == "SquareBackward0"
