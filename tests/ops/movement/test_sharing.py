"""Which results share memory with which inputs: as in PyTorch, whether an argument makes the operation trivial or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from tests import helpers as h
from tests.cases import TABLE
from tests.cases.case import Case

V, M, S, B, C = (4,), (3, 3), (), (2, 3, 4), (1, 4, 2, 2)

# Operations at the arguments for which nothing is left to do, or a dimension is missing: name, shape, call.
TRIVIAL: list[tuple[str, tuple[int, ...], Callable]] = [
    ("pad by zero", V, lambda m, x: m.nn.functional.pad(x, (0, 0))),
    ("pad by nothing", V, lambda m, x: m.nn.functional.pad(x, ())),
    ("pad by negative widths", V, lambda m, x: m.nn.functional.pad(x, (-1, -1))),
    ("pad by zero, reflect", B, lambda m, x: m.nn.functional.pad(x, (0, 0), mode="reflect")),
    ("pad by zero, circular", B, lambda m, x: m.nn.functional.pad(x, (0, 0), mode="circular")),
    ("pad by zero, replicate", B, lambda m, x: m.nn.functional.pad(x, (0, 0), mode="replicate")),
    ("roll by 0", V, lambda m, x: m.roll(x, 0)),
    ("roll by the size", V, lambda m, x: m.roll(x, 4, 0)),
    ("roll all", M, lambda m, x: m.roll(x, 9)),
    ("rot90 four times", M, lambda m, x: m.rot90(x, 4)),
    ("rot90 no time", M, lambda m, x: m.rot90(x, 0)),
    ("rot90", M, lambda m, x: m.rot90(x, 1)),
    ("repeat once", V, lambda m, x: x.repeat(1)),
    ("repeat in front", V, lambda m, x: x.repeat(1, 1)),
    ("tile once", V, lambda m, x: m.tile(x, (1,))),
    ("repeat_interleave once", V, lambda m, x: m.repeat_interleave(x, 1)),
    ("repeat_interleave once along", M, lambda m, x: m.repeat_interleave(x, 1, 1)),
    ("repeat_interleave by a tensor", V, lambda m, x: m.repeat_interleave(x, m.tensor([1, 1, 1, 1]))),
    ("pixel_shuffle by 1", C, lambda m, x: m.nn.functional.pixel_shuffle(x, 1)),
    ("pixel_unshuffle by 1", C, lambda m, x: m.nn.functional.pixel_unshuffle(x, 1)),
    ("channel_shuffle of 1", C, lambda m, x: m.nn.functional.channel_shuffle(x, 1)),
    ("diag of a matrix", M, lambda m, x: m.diag(x)),
    ("diag of a vector", (1,), lambda m, x: m.diag(x)),
    ("diag_embed of one", (1,), lambda m, x: m.diag_embed(x)),
    ("flip of nothing", M, lambda m, x: m.flip(x, ())),
    ("flip of one", (1,), lambda m, x: m.flip(x, (0,))),
    ("cat of one", V, lambda m, x: m.cat([x])),
    ("stack of one", V, lambda m, x: m.stack([x])),
    ("hstack of one", V, lambda m, x: m.hstack([x])),
    ("vstack of one", V, lambda m, x: m.vstack([x])),
    ("clone", V, lambda m, x: x.clone()),
    ("sum over nothing", S, lambda m, x: m.sum(x)),
    ("amax of one", S, lambda m, x: m.amax(x)),
    ("mean of one", (1,), lambda m, x: m.mean(x, 0)),
    ("prod of one", (1,), lambda m, x: m.prod(x, 0)),
    ("cumsum of one", S, lambda m, x: m.cumsum(x, 0)),
    ("logsumexp of one", S, lambda m, x: m.logsumexp(x, 0)),
    ("norm of one", S, lambda m, x: x.norm()),
    ("max of 0-d", S, lambda m, x: m.max(x, 0)),
    ("min of 0-d", S, lambda m, x: m.min(x, 0)),
    ("median of 0-d", S, lambda m, x: m.median(x, 0)),
    ("whole median", S, lambda m, x: m.median(x)),
    ("cummax of 0-d", S, lambda m, x: m.cummax(x, 0)),
    ("cummin of 0-d", S, lambda m, x: m.cummin(x, 0)),
    ("kthvalue of 0-d", S, lambda m, x: m.kthvalue(x, 1)),
    ("topk of 0-d", S, lambda m, x: m.topk(x, 1)),
    ("sort of 0-d", S, lambda m, x: m.sort(x)),
    ("gather of 0-d", S, lambda m, x: m.gather(x, 0, m.tensor(0))),
    ("index_select of 0-d", S, lambda m, x: m.index_select(x, 0, m.tensor([0]))),
    ("index_fill of nothing", V, lambda m, x: m.index_fill(x, 0, m.tensor([], dtype=m.int64), 1.0)),
    ("masked_fill of nothing", V, lambda m, x: x.masked_fill(m.zeros(4, dtype=m.bool), 1.0)),
    ("masked_select of all", V, lambda m, x: m.masked_select(x, m.ones(4, dtype=m.bool))),
    ("index by all", V, lambda m, x: x[[0, 1, 2, 3]]),
    ("index by a mask", V, lambda m, x: x[m.ones(4, dtype=m.bool)]),
    ("index by true", V, lambda m, x: x[True]),
    ("take", V, lambda m, x: m.take(x, m.tensor([0, 1]))),
    ("where", V, lambda m, x: m.where(m.ones(4, dtype=m.bool), x, x)),
    ("tril of all", M, lambda m, x: m.tril(x, 5)),
    ("round", V, lambda m, x: m.round(x)),
    ("trunc of integers", V, lambda m, x: m.trunc(x.long())),
    ("clamp of nothing", V, lambda m, x: x.clamp(-100, 100)),
    ("abs", V, lambda m, x: x.abs()),
    ("add 0", V, lambda m, x: x + 0),
    ("mul 1", V, lambda m, x: x * 1),
    ("pow 1", V, lambda m, x: x**1),
    ("matmul", M, lambda m, x: x @ m.eye(3, dtype=x.dtype)),
    ("einsum transposed", M, lambda m, x: m.einsum("ij->ji", x)),
    ("einsum alone", M, lambda m, x: m.einsum("ij->ij", x)),
    ("einsum diagonal", M, lambda m, x: m.einsum("ii->i", x)),
    ("softmax of one", (1,), lambda m, x: m.softmax(x, 0)),
    ("dropout in evaluation", V, lambda m, x: m.nn.functional.dropout(x, 0.5, False)),
    ("interpolate to the same size", C, lambda m, x: m.nn.functional.interpolate(x, (2, 2))),
    ("bilinear to the same size", C, lambda m, x: m.nn.functional.interpolate(x, (2, 2), mode="bilinear")),
    ("max_pool of 1", C, lambda m, x: m.nn.functional.max_pool2d(x, 1)),
    ("avg_pool of 1", C, lambda m, x: m.nn.functional.avg_pool2d(x, 1)),
    ("adaptive pool to the same", C, lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, 2)),
    ("adaptive max pool to the same", C, lambda m, x: m.nn.functional.adaptive_max_pool2d(x, 2)),
    ("unfold of 1x1", C, lambda m, x: m.nn.functional.unfold(x, 1)),
    ("fold of 1x1", (1, 4, 4), lambda m, x: m.nn.functional.fold(x, (2, 2), 1)),
    ("Identity", V, lambda m, x: m.nn.Identity()(x)),
    ("Flatten of a matrix", M, lambda m, x: m.nn.Flatten()(x)),
    ("Dropout in evaluation", V, lambda m, x: m.nn.Dropout().eval()(x)),
    # views
    ("Tensor.unfold", V, lambda m, x: x.unfold(0, 2, 1)),
    ("Tensor.unfold, apart", V, lambda m, x: x.unfold(0, 2, 2)),
    ("Tensor.unfold of 0-d", S, lambda m, x: x.unfold(0, 1, 1)),
    ("positive", V, lambda m, x: m.positive(x)),
    ("unary plus", V, lambda m, x: +x),
    ("diagonal", M, lambda m, x: x.diagonal()),
    ("diagonal, reversed", M, lambda m, x: x.diagonal(0, 1, 0)),
    ("diagonal, off", B, lambda m, x: x.diagonal(1, 2, 0)),
    ("diagonal of a transpose", M, lambda m, x: x.t().diagonal(-1)),
    ("expand", (1,), lambda m, x: x.expand(4)),
    ("expand in front", V, lambda m, x: x.expand(1, 4)),
    ("row of expanded", V, lambda m, x: x.expand(2, 4)[0]),
    ("broadcast_to", (1,), lambda m, x: m.broadcast_to(x, (3,))),
    ("reshape", V, lambda m, x: x.reshape(2, 2)),
    ("reshape of a transpose", M, lambda m, x: x.t().reshape(9)),
    ("flatten of a vector", V, lambda m, x: x.flatten()),
    ("flatten of a transpose", M, lambda m, x: x.t().flatten()),
    ("ravel", V, lambda m, x: x.ravel()),
    ("ravel of a transpose", M, lambda m, x: x.t().ravel()),
    ("ravel of a diagonal", M, lambda m, x: x.diagonal().ravel()),
    ("squeeze", (1,), lambda m, x: x.squeeze()),
    ("unsqueeze", V, lambda m, x: x.unsqueeze(0)),
    ("t of a vector", V, lambda m, x: x.t()),
    ("T", M, lambda m, x: x.T),
    ("mT", M, lambda m, x: x.mT),
    ("mT of 0-d", S, lambda m, x: x.mT),
    ("swapaxes", M, lambda m, x: m.swapaxes(x, 0, 1)),
    ("movedim", M, lambda m, x: m.movedim(x, 0, 1)),
    ("all of it", V, lambda m, x: x[:]),
    ("ellipsis", V, lambda m, x: x[...]),
    ("none", V, lambda m, x: x[None]),
    ("a number", V, lambda m, x: x[1]),
    ("narrow of all", V, lambda m, x: m.narrow(x, 0, 0, 4)),
    ("select", M, lambda m, x: m.select(x, 1, 0)),
    ("split", V, lambda m, x: m.split(x, 2)),
    ("chunk of one", V, lambda m, x: m.chunk(x, 1)),
    ("tensor_split", V, lambda m, x: m.tensor_split(x, 2)),
    ("unbind", M, lambda m, x: m.unbind(x)),
    ("meshgrid", V, lambda m, x: m.meshgrid(x, x, indexing="ij")),
    ("detach", V, lambda m, x: x.detach()),
    ("data", V, lambda m, x: x.data),
    ("contiguous", V, lambda m, x: x.contiguous()),
    ("contiguous of a transpose", M, lambda m, x: x.t().contiguous()),
    ("to the same dtype", V, lambda m, x: x.to(x.dtype)),
    ("to a copy", V, lambda m, x: x.to(x.dtype, copy=True)),
    ("double", V, lambda m, x: x.double()),
    ("float", V, lambda m, x: x.float()),
    ("as_tensor", V, lambda m, x: m.as_tensor(x)),
    ("expand_as", (1,), lambda m, x: x.expand_as(m.ones(3))),
    ("view", V, lambda m, x: x.view(4)),
    ("view_as transposed", M, lambda m, x: x.permute(1, 0)),
    ("atleast flatten", B, lambda m, x: x.flatten(1)),
    ("unflatten", V, lambda m, x: x.unflatten(0, (2, 2))),
]  # fmt: skip


def pattern(results: list[np.ndarray], inputs: list[np.ndarray]) -> list[list[bool]]:
    """For each result: with which inputs and which earlier results it shares memory."""
    return [
        [bool(np.shares_memory(result, other)) for other in (*inputs, *results[:i]) if other.size and result.size]
        for i, result in enumerate(results)
    ]


def arrays_of(result: Any) -> list[np.ndarray]:
    """The memory of a result of either library."""
    listed = [result] if hasattr(result, "detach") else list(result)
    return [t.detach().numpy() for t in listed]


def on(m: Any, call: Callable, shape: tuple[int, ...]) -> tuple[list[list[bool]], bool, bool]:
    """The pattern of a call, whether its result is its input, and whether writing to it changes the input."""
    array = np.asarray(np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape))
    x = m.from_numpy(array)
    result = call(m, x)
    found = pattern(arrays_of(result), [array])
    written, before = result if hasattr(result, "detach") else result[0], array.copy()
    written.fill_(7)
    return found, result is x, bool((array != before).any())


@pytest.mark.filterwarnings("ignore:Tensor.mT is deprecated")
@pytest.mark.parametrize(("name", "shape", "call"), TRIVIAL, ids=[name for name, _, _ in TRIVIAL])
def test_trivial_calls_share_what_they_share_in_pytorch(name: str, shape: tuple, call: Callable) -> None:
    torch = pytest.importorskip("torch")
    assert on(fn, call, shape) == on(torch, call, shape)


@pytest.mark.parametrize("row", [row for row in TABLE if row.torch], ids=[row.id for row in TABLE if row.torch])
@pytest.mark.filterwarnings("ignore")
def test_every_row_shares_what_it_shares_in_pytorch(row: Case) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = h.inputs(row, row.dtypes[0]), h.inputs(row, row.dtypes[0])
    result = row.torch(*[torch.from_numpy(array) for array in theirs])  # type: ignore[misc]
    expected = pattern(arrays_of(result), theirs)
    assert pattern([t.detach().numpy() for t in h.outputs(row.fn(*h.boxes(ours)))], ours) == expected
