"""The register tile of a convolution whose channels do not mix: a vector of channels of each pixel, for two runs of pixels.

It does what ``direct_tile`` does, with a vector of elements where that broadcasts one. A loaded vector of weights serves up to 16 multiply-adds,
each of which takes its other operand from memory. Pixels may be any distance apart, so strides and dilations need
no image of their own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.vector.writer import Writer


@cache
def channel_run(itemsize: int) -> int:
    """Returns pixels of a run at most: two runs, and a register with each pixel's distance from the first."""
    return 8 if tile_shape(itemsize)[0] == 8 else 6


def _channels_twin(
    count: int, start: Any, a: Any, b: Any, offsets: Any, step: int, apart: int, c: Any, further: int, beside: int,
    length: int, accumulate: bool,
) -> None:  # fmt: skip
    lanes = vector_bytes() // c.dtype.itemsize
    rows = [(apart * run + step * j, beside * run + further * j) for run in range(2) for j in range(length)]
    totals = []
    for source, target in rows:
        terms = (a[k * lanes : (k + 1) * lanes] * b[offsets[k] + source :][:lanes] for k in range(count))
        totals.append(sum(terms) + (c[target : target + lanes] if accumulate else start[:lanes]))
    for (_, target), total in zip(rows, totals, strict=True):  # the runs may overlap: no total is read again
        c[target : target + lanes] = total


@intrinsic(twin=_channels_twin)
def tile_channels(
    typingctx: Any, count: Any, start: Any, a: Any, b: Any, offsets: Any, step: Any, apart: Any, c: Any, further: Any,
    beside: Any, length: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """Computes ``c[j, lane] = start[lane] + sum(a[k, lane] * b[offsets[k] + j * step + lane])`` for two runs of ``length`` pixels j.

    count > 0. accumulate: the sum is added to c, and not to ``start``. Pixels of c are ``further`` apart. The second run
    begins ``apart`` further on in b, and ``beside`` further on in c.
    """
    from numba.core import types

    word = types.intp

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Channels.of(context, builder, c).emit_channels(*values)
        return context.get_dummy_value()

    return types.void(word, start, a, b, offsets, word, word, c, word, word, word, types.boolean), codegen


class Channels(Writer):
    """Writes ``tile_channels``: a loop over ``count`` for each length of the runs, chosen by a switch."""

    def emit_channels(self, count: Any, start: Any, a: Any, b: Any, offsets: Any, step: Any, apart: Any, c: Any,
                      further: Any, beside: Any, length: Any, adding: Any) -> None:  # fmt: skip
        builder, word = self.builder, self.word
        first, done = self.load(start), builder.append_basic_block("done")
        choice = builder.switch(length, done)
        for pixels in range(1, channel_run(self.size) + 1):
            case = builder.append_basic_block(f"run{pixels}")
            choice.add_case(word(pixels), case)
            builder.position_at_end(case)
            runs = [(base, word(j)) for base in (word(0), word(1)) for j in range(pixels)]
            at = lambda base, j, near, far: builder.add(builder.mul(base, far), builder.mul(j, near))
            targets = [self.address(builder.gep(c, [at(*run, further, beside)])) for run in runs]
            begin = [builder.select(adding, builder.load(t, align=self.size), first) for t in targets]
            sums = self._sums(count, begin, a, (b, builder.gep(b, [apart])), offsets, step)
            for place, total in zip(targets, sums, strict=True):
                builder.store(total, place, align=self.size)
            builder.branch(done)
        builder.position_at_end(done)

    def _sums(self, count: Any, begin: list, a: Any, images: tuple, offsets: Any, step: Any) -> list:
        """Returns the sums of both runs, after a loop over the taps."""
        builder, word, pixels = self.builder, self.word, len(begin) // 2
        distances = [builder.mul(step, word(j)) for j in range(pixels)]

        def advance(k: Any, state: list) -> list:
            weights = self.load(builder.gep(a, [builder.mul(k, word(self.lanes))]))
            offset = builder.load(builder.gep(offsets, [k]))
            rows = [builder.gep(image, [offset]) for image in images]
            new = []
            for i, total in enumerate(state):
                pixel = self.at(rows[i // pixels], distances[i % pixels])
                new.append(builder.call(self.fma, [weights, pixel, total]))
            return new

        return self.loop(count, begin, advance)
