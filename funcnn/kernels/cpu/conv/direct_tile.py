"""The register tile of direct convolution: channels along the vector, pixels beside each other, elements broadcast from memory.

``tile_gather`` holds 48 neighbouring pixels of eight channels, which a row of ten pixels does not fill. Here a tile is one
vector of channels for two runs of exactly as many pixels as there are: for each tap one vector of weights is loaded, and each
pixel's element is broadcast from memory by the multiply-add that needs it. So 24 sums cost 25 loads, of which an AVX-512
CPU makes one beside each multiply-add. Where half a vector holds all channels, half vectors are used: as many
multiply-adds of them fit a cycle on CPUs that split the wide ones.

The code has one loop for each element of pixels in a run, from 1 to RUN, chosen by a switch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.vector.writer import Writer


@cache
def longest_run(itemsize: int) -> int:
    """Returns pixels of a run at most: two runs are as many sums as a quarter of the registers leaves."""
    return 12 if tile_shape(itemsize)[0] == 8 else 6


def _runs_twin(
    count: int, start: Any, a: Any, half: bool, b: Any, offsets: Any, apart: int, c: Any, beside: int, length: int,
    accumulate: bool,
) -> None:  # fmt: skip
    lanes = vector_bytes() // c.dtype.itemsize // (2 if half else 1)
    runs = [(image, target, target[: length * lanes].copy()) for image, target in ((b, c), (b[apart:], c[beside:]))]
    for image, target, before in runs:  # they may overlap: both are read before one is written
        for j in range(length):
            terms = (a[k * lanes : (k + 1) * lanes] * image[offsets[k] + j] for k in range(count))
            first = before[j * lanes : (j + 1) * lanes] if accumulate else start[:lanes]
            target[j * lanes : (j + 1) * lanes] = first + sum(terms)


@intrinsic(twin=_runs_twin)
def tile_runs(
    typingctx: Any, count: Any, start: Any, a: Any, half: Any, b: Any, offsets: Any, apart: Any, c: Any, beside: Any,
    length: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """Computes ``c[j, lane] = start[lane] + sum(a[k, lane] * b[offsets[k] + j])`` for two runs of ``length`` pixels j; count > 0.

    accumulate: the sum is added to c, and not to ``start``. The second run begins ``apart`` further on in b, and ``beside`` further on in c. a and c are of vectors, or of halves.
    """
    from numba.core import types

    word = types.intp

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Runs.of(context, builder, c).emit_runs(*values)
        return context.get_dummy_value()

    return types.void(word, start, a, types.boolean, b, offsets, word, c, word, word, types.boolean), codegen


class Runs(Writer):
    """Writes ``tile_runs``: a loop over ``count`` for each length of the runs, in whole vectors and in halves."""

    def emit_runs(self, count: Any, start: Any, a: Any, half: Any, b: Any, offsets: Any, apart: Any, c: Any, beside: Any,
                  length: Any, adding: Any) -> None:  # fmt: skip
        builder = self.builder
        halves = Runs(builder, self.scalar, self.size, self.lanes // 2)
        with builder.if_else(half) as (narrow, wide):
            with narrow:
                halves.emit_lengths(count, start, a, b, offsets, apart, c, beside, length, adding)
            with wide:
                self.emit_lengths(count, start, a, b, offsets, apart, c, beside, length, adding)

    def emit_lengths(
        self,
        count: Any,
        start: Any,
        a: Any,
        b: Any,
        offsets: Any,
        apart: Any,
        c: Any,
        beside: Any,
        length: Any,
        adding: Any,
    ) -> None:
        """One loop for each length."""
        builder, zero = self.builder, self.same(0.0)
        first = builder.select(adding, zero, self.load(start))
        done = builder.append_basic_block("done")
        choice = builder.switch(length, done)
        for pixels in range(1, longest_run(self.size) + 1):
            case = builder.append_basic_block(f"run{pixels}")
            choice.add_case(self.word(pixels), case)
            builder.position_at_end(case)
            sums = self._sums(count, first, a, (b, builder.gep(b, [apart])), offsets, pixels)
            places = [self.address(target, j) for target in (c, builder.gep(c, [beside])) for j in range(pixels)]
            befores = [builder.select(adding, builder.load(place, align=self.size), zero) for place in places]
            totals = [builder.fadd(before, value) for before, value in zip(befores, sums, strict=True)]
            for place, total in zip(places, totals, strict=True):  # the runs may overlap: no total is read again
                builder.store(total, place, align=self.size)
            builder.branch(done)
        builder.position_at_end(done)

    def _sums(self, count: Any, start: Any, a: Any, images: tuple, offsets: Any, pixels: int) -> list:
        """Returns the sums of both runs, after a loop over the taps."""
        builder, word = self.builder, self.word

        def advance(k: Any, state: list) -> list:
            weights = self.load(builder.gep(a, [builder.mul(k, word(self.lanes))]))
            offset = builder.load(builder.gep(offsets, [k]))
            rows = [builder.gep(image, [offset]) for image in images]
            new = []
            for i, total in enumerate(state):
                pixel = builder.load(builder.gep(rows[i // pixels], [word(i % pixels)]))
                new.append(builder.call(self.fma, [weights, self.splat(pixel), total]))
            return new

        return self.loop(count, [start] * (2 * pixels), advance)
