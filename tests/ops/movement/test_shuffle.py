"""Pixel and channel shuffles: what they refuse, and their layers beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn

torch = pytest.importorskip("torch")
X = fn.ones(1, 6, 4, 5)
ERRORS = {
    "channels": (RuntimeError, r"pixel_shuffle: upscale_factor 2 needs channels in multiples of 4, got shape \(1, 6, 4, 5\)", lambda: F.pixel_shuffle(X, 2)),
    "factor": (ValueError, "pixel_shuffle: upscale_factor must be a positive int, got 0", lambda: F.pixel_shuffle(X, 0)),
    "rank": (RuntimeError, "pixel_shuffle: expected at least 3 dimensions", lambda: F.pixel_shuffle(X[0, 0], 2)),
    "size": (RuntimeError, "pixel_unshuffle: downscale_factor 2 needs height and width", lambda: F.pixel_unshuffle(X, 2)),
    "groups": (RuntimeError, "channel_shuffle: 4 groups do not divide", lambda: F.channel_shuffle(X, 4)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("text", ["PixelShuffle(2)", "PixelUnshuffle(3)", "ChannelShuffle(4)"])
def test_layers(text):
    mine, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    pure = eval(f"L.{text}", {"L": L})
    assert repr(mine) == repr(theirs) == repr(pure) and not mine.state_dict()
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3))
    np.testing.assert_array_equal(mine(fn.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy())
    np.testing.assert_array_equal(pure({}, {}, fn.tensor(x))[0].numpy(), mine(fn.tensor(x)).numpy())
