"""Rows of movement, joining, padding and windows."""

from __future__ import annotations

from typing import Any

from tests.cases.both import both
from tests.cases.case import Arr

A = Arr((2, 3, 4))
M = Arr((3, 4))


def _written(x: Any, y: Any) -> Any:
    x[:, ::2, 3] = y
    return x


def _windows_written(x: Any, y: Any) -> Any:
    x.unfold(2, 1, 3).copy_(y)
    return x


ROWS = [
    both("reshape", lambda m, x: m.reshape(x, (4, 6)), A),
    both("reshape_minus_one", lambda m, x: x.reshape(-1, 2), A),
    both("view", lambda m, x: x.contiguous().view(6, 4), A),
    both("flatten", lambda m, x: m.flatten(x, 1), A),
    both("unflatten", lambda m, x: x.unflatten(2, (2, 2)), A),
    both("squeeze", lambda m, x: m.squeeze(x), Arr((1, 3, 1))),
    both("squeeze_dim", lambda m, x: m.squeeze(x, 0), Arr((1, 3, 1))),
    both("unsqueeze", lambda m, x: m.unsqueeze(x, -1), M),
    both("transpose", lambda m, x: m.transpose(x, 0, -1), A),
    both("t", lambda m, x: m.t(x), M),
    both("T", lambda m, x: x.T, M),
    both("mT", lambda m, x: x.mT, A),
    both("permute", lambda m, x: m.permute(x, (2, 0, 1)), A),
    both("movedim", lambda m, x: m.movedim(x, (0, 1), (-1, 0)), A),
    both("expand", lambda m, x: x.expand(2, 3, -1), Arr((3, 1)), ),
    both("expand_new", lambda m, x: x.expand(5, 3, 4), M),
    both("broadcast_to", lambda m, x: m.broadcast_to(x, (2, 3, 4)), Arr((3, 1))),
    both("narrow", lambda m, x: m.narrow(x, 1, 1, 2), A),
    both("select", lambda m, x: m.select(x, 1, -1), A),
    both("slice_steps", lambda m, x: x[:, ::2, 1:4:2], A),
    both("slice_written", lambda m, x, y: _written(x * 1, y), A, Arr((2, 2))),
    both("diagonal", lambda m, x: m.diagonal(x, 1, 1, 2), A),
    both("diagonal_reversed", lambda m, x: m.diagonal(x, 1, 2, 0), A),
    both("diagonal_beyond", lambda m, x: m.diagonal(x, 7), M),
    both("diagonal_below", lambda m, x: m.diagonal(x, -1), M),
    both("ravel", lambda m, x: m.ravel(x), A),
    both("contiguous", lambda m, x: x.transpose(0, 1).contiguous(), M),
    both("cat", lambda m, x, y: m.cat([x, y], 1), M, Arr((3, 2))),
    both("cat_same", lambda m, x: m.cat((x, x * 2, x)), M),
    both("stack", lambda m, x, y: m.stack([x, y], 1), M, M),
    both("hstack", lambda m, x, y: m.hstack([x, y]), M, M),
    both("vstack", lambda m, x, y: m.vstack([x, y]), Arr((4,)), M),
    both("split", lambda m, x: m.split(x, 3, 2), A),
    both("split_sections", lambda m, x: m.split(x, [1, 0, 3], 2), A),
    both("chunk", lambda m, x: m.chunk(x, 3, 2), A),
    both("tensor_split", lambda m, x: m.tensor_split(x, 3, dim=2), A),
    both("tensor_split_at", lambda m, x: m.tensor_split(x, (1, 3), dim=2), A),
    both("unbind", lambda m, x: x.unbind(1), A),
    both("repeat", lambda m, x: x.repeat(2, 1, 3), M),
    both("tile", lambda m, x: m.tile(x, (2,)), M),
    both("repeat_interleave", lambda m, x: m.repeat_interleave(x, 2, dim=1), M),
    both("repeat_interleave_flat", lambda m, x: m.repeat_interleave(x, 2), M),
    both("flip", lambda m, x: m.flip(x, (0, 2)), A),
    both("fliplr", lambda m, x: m.fliplr(x), M),
    both("flipud", lambda m, x: m.flipud(x), M),
    both("roll", lambda m, x: m.roll(x, (1, -2), (0, 2)), A),
    both("roll_flat", lambda m, x: m.roll(x, 5), A),
    both("rot90", lambda m, x: m.rot90(x, 3, (1, 2)), A),
    both("meshgrid", lambda m, x, y: m.meshgrid(x, y, indexing="xy"), Arr((3,)), Arr((2,))),
    both("pad_constant", lambda m, x: m.nn.functional.pad(x, (1, 2, 0, 3), value=1.5), A),
    both("pad_crop", lambda m, x: m.nn.functional.pad(x, (-1, 2)), A),
    both("pad_reflect", lambda m, x: m.nn.functional.pad(x, (2, 1), mode="reflect"), A),
    both("pad_replicate", lambda m, x: m.nn.functional.pad(x, (2, 3), mode="replicate"), A),
    both("pad_circular", lambda m, x: m.nn.functional.pad(x, (2, 3), mode="circular"), A),
    both("unfold_windows", lambda m, x: x.unfold(1, 2, 1), A),
    both("unfold_apart", lambda m, x: x.unfold(2, 1, 3), A),
    both("unfold_written", lambda m, x, y: _windows_written(x * 1, y), A, Arr((2, 3, 2, 1))),
    both("unfold_steps", lambda m, x: x.unfold(0, 3, 2), Arr((8,))),
    both("im2col", lambda m, x: m.nn.functional.unfold(x, (2, 3), dilation=(2, 1), padding=1, stride=(1, 2)),
         Arr((2, 2, 5, 4))),
    both("tril", lambda m, x: m.tril(x, 1), A),
    both("triu", lambda m, x: m.triu(x, -1), A),
    both("diag_of_vector", lambda m, x: m.diag(x, 1), Arr((3,))),
    both("diag_of_matrix", lambda m, x: m.diag(x, -1), M),
    both("diag_embed", lambda m, x: m.diag_embed(x, -1, 0, 2), M),
]  # fmt: skip
