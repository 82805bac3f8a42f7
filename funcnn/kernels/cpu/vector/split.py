"""Planes are copied between zeros, and for strides their rows are split by phase: each element is read once, in whole vectors.

For a stride s a step loads s vectors, whose masks leave zeros where the padding is, and makes a vector of each phase from them
by s - 1 shuffles. A row of 28 elements in four phases takes two loads and four stores; element by element, with the ends
of every phase cleared by themselves, it took five times as long.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.vector.instructions import outlined, shift
from funcnn.kernels.cpu.vector.rows import Row, clear_row, copy_row

LARGEST_UNROLLED = 4  # the largest stride with shuffles of its own


def _split_twin(source: Any, before: int, width: int, target: Any, apart: int, pitch: int, step: int) -> None:
    for b in range(step):
        for u in range(pitch):
            at = u * step + b - before
            target[b * apart + u] = source[at] if 0 <= at < width else 0


@intrinsic(twin=_split_twin)
def split_vectors(
    typingctx: Any, source: Any, before: Any, width: Any, target: Any, apart: Any, pitch: Any, step: Any
) -> Any:
    """Computes ``target[b * apart + u] = source[u * step + b - before]``, zero beyond ``width``, for u < pitch and b < step <= LARGEST_UNROLLED."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Split.of(context, builder, source).emit_split(*values)
        return context.get_dummy_value()

    word = types.intp
    return types.void(source, word, word, target, word, word, word), codegen


class Split(Row):
    """Writes ``split_vectors``: a loop for each step, chosen by a switch."""

    def emit_split(self, source: Any, before: Any, width: Any, target: Any, apart: Any, pitch: Any, step: Any) -> None:
        builder = self.builder
        done = builder.append_basic_block("done")
        choice = builder.switch(step, done)
        for s in range(1, LARGEST_UNROLLED + 1):
            case = builder.append_basic_block(f"step{s}")
            choice.add_case(self.word(s), case)
            builder.position_at_end(case)
            with self.steps(pitch) as at:
                first = builder.sub(builder.mul(at, self.word(s)), before)
                vectors = [self._within(source, builder.add(first, self.word(v * self.lanes)), width) for v in range(s)]
                mask = self.below(builder.sub(pitch, at))
                for b in range(s):
                    row = builder.gep(target, [builder.add(builder.mul(apart, self.word(b)), at)])
                    self.masked_store(self._phase(vectors, b), row, mask)
            builder.branch(done)
        builder.position_at_end(done)

    def _within(self, source: Any, at: Any, width: Any) -> Any:
        """Returns the vector that begins at ``at``, zero outside 0 to ``width``: seen without a sign, what is below 0 is large."""
        builder, lane = self.builder, self.ir.IntType(32)
        inside = builder.icmp_unsigned("<", self.counted(at, lane), self.integer(width, lane))
        return self.masked_load(builder.gep(source, [at]), inside)

    def _phase(self, vectors: list, b: int) -> Any:
        """Returns elements b, b + s, ... of s vectors."""
        lanes, result = self.lanes, vectors[0]
        lane = [u * len(vectors) + b for u in range(lanes)]
        if len(vectors) == 1:
            return result
        result = self.pick(result, vectors[1], [min(at, 2 * lanes - 1) for at in lane])
        for v in range(2, len(vectors)):
            low = v * lanes
            new = [u if at < low else lanes + min(at - low, lanes - 1) for u, at in enumerate(lane)]
            result = self.pick(result, vectors[v], new)
        return result


@device_function
def split_row(source, before, width, target, apart, pitch, step):
    """Copies a row of ``width`` elements behind ``before`` zeros, in ``step`` phases of ``pitch`` elements, ``apart`` apart."""
    if step <= LARGEST_UNROLLED:
        split_vectors(source, before, width, target, apart, pitch, step)
    else:
        for b in range(step):
            row, shifted = shift(target, b * apart), b - before
            first = min(pitch, max(0, -(shifted // step)))  # the smallest index that is not left of the row
            last = max(first, min(pitch, (width - 1 - shifted) // step + 1))
            clear_row(row, first)
            for u in range(first, last):
                row[u] = source[u * step + shifted]
            clear_row(shift(row, last), pitch - last)


@device_function
def pad_plane(x, image, layout):
    """Does what ``copy_plane`` does without phases."""
    outlined()
    (D, H, W), before, (Dp, Hs, Ws), _, slice_size = layout
    first = before[2]
    last = max(first, min(Ws, first + W))
    for d in range(Dp):
        at, slice_at = d - before[0], shift(image, d * slice_size)
        for h in range(Hs):
            row, target = h - before[1], shift(slice_at, h * Ws)
            if 0 <= at < D and 0 <= row < H:
                clear_row(target, first)
                copy_row(shift(target, first), shift(x, (at * H + row) * W), last - first)
                clear_row(shift(target, last), Ws - last)
            else:
                clear_row(target, Ws)
        clear_row(shift(slice_at, Hs * Ws), slice_size - Hs * Ws)


@device_function
def split_plane(x, image, layout):
    """Does what ``copy_plane`` does with phases of rows or columns."""
    outlined()
    (D, H, W), before, (Dp, Hs, Ws), (sh, sw), slice_size = layout
    used = sh * sw * Hs * Ws
    for d in range(Dp):
        at, slice_at = d - before[0], shift(image, d * slice_size)
        for a in range(sh):
            for h in range(Hs):
                row, target = h * sh + a - before[1], shift(slice_at, (a * sw * Hs + h) * Ws)
                if 0 <= at < D and 0 <= row < H:
                    split_row(shift(x, (at * H + row) * W), before[2], W, target, Hs * Ws, Ws, sw)
                else:
                    for b in range(sw):
                        clear_row(shift(target, b * Hs * Ws), Ws)
        clear_row(shift(slice_at, used), slice_size - used)
