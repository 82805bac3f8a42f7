"""Register tiles of products whose operands are rows anywhere in memory: what convolution stands on.

``tile_gather`` is ``tile_product`` with each row of b at an address of its own, so an image serves as its own unfolded
matrix; ``tile_few`` is the same for three rows. ``tile_dots`` multiplies rows with rows: the sum runs along the vectors,
DOTS_A x DOTS_B of them at once, which is the shape of a weight gradient (pixels are summed away). Twelve or 24 accumulators
hide the latency of the multiply-add; a step of ``tile_dots`` loads DOTS_A + DOTS_B vectors for DOTS_A * DOTS_B of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.vector.instructions import Tile, _tile_twin
from funcnn.kernels.cpu.vector.writer import Writer

# Products that a sum takes one by one; the sums of such runs are added up, so that errors grow with their number.
RUN_PRODUCTS = 256


# ---- rows at addresses of their own -----------------------------------------------------------------------------------
def _gathered(shape: Any) -> Any:
    def twin(count: int, a: Any, b: Any, offsets: Any, c: Any, stride: int, accumulate: bool) -> None:
        rows, columns = shape(c.dtype.itemsize)
        for i in range(rows):
            total = sum(a[k * rows + i] * b[offsets[k] : offsets[k] + columns] for k in range(count))
            c[i * stride : i * stride + columns] = c[i * stride : i * stride + columns] + total if accumulate else total

    return twin


@intrinsic(twin=_gathered(tile_shape))
def tile_gather(typingctx: Any, count: Any, a: Any, b: Any, offsets: Any, c: Any, stride: Any, accumulate: Any) -> Any:
    """Computes ``c[i, j] (+)= sum(a[k, i] * b[offsets[k] + j])`` for a whole tile of c, whose rows are ``stride`` apart."""
    from numba.core import types

    signature = types.void(types.intp, a, b, offsets, c, types.intp, types.boolean)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, right, places, tile, step, adding = values
        Gather.of(context, builder, c, places).emit(many, left, right, tile, step, adding)
        return context.get_dummy_value()

    return signature, codegen


class Gather(Tile):
    """A tile whose row k of b begins at ``b + offsets[k]``."""

    def __init__(self, builder: Any, scalar: Any, size: int, offsets: Any):
        super().__init__(builder, scalar, size)
        self.offsets = offsets

    def row(self, b: Any, k: Any) -> Any:
        return self.builder.gep(b, [self.builder.load(self.builder.gep(self.offsets, [k]))])


FEW_ROWS = 3  # of ``tile_few``


@cache
def few_shape(itemsize: int) -> tuple[int, int]:
    """Returns rows and columns of ``tile_few``'s tile: as many accumulators as ``tile_gather`` has, for the channels of a picture."""
    return FEW_ROWS, (8 if tile_shape(4)[0] == 8 else 4) * vector_bytes() // itemsize


@intrinsic(twin=_gathered(few_shape))
def tile_few(typingctx: Any, count: Any, a: Any, b: Any, offsets: Any, c: Any, stride: Any, accumulate: Any) -> Any:
    """Does what ``tile_gather`` does, with a tile of three rows and more columns, for eight rows would be mostly empty."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, right, places, tile, step, adding = values
        gather = Gather.of(context, builder, c, places)
        gather.rows, gather.across = FEW_ROWS, few_shape(gather.size)[1] // gather.lanes
        gather.emit(many, left, right, tile, step, adding)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, offsets, c, types.intp, types.boolean), codegen


@cache
def row_columns(itemsize: int) -> int:
    """Returns columns of ``tile_row``: four vectors, enough to hide the latency of a multiply-add."""
    return 4 * vector_bytes() // itemsize


def _row_twin(count: int, a: Any, b: Any, offsets: Any, c: Any) -> None:
    columns = row_columns(c.dtype.itemsize)
    c[:columns] = sum(a[k] * b[offsets[k] : offsets[k] + columns] for k in range(count))


@intrinsic(twin=_row_twin)
def tile_row(typingctx: Any, count: Any, a: Any, b: Any, offsets: Any, c: Any) -> Any:
    """Computes ``c[j] = sum(a[k] * b[offsets[k] + j])``: ``tile_gather`` of a single row, wider."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, right, places, tile = values
        gather = Gather.of(context, builder, c, places)
        gather.rows, gather.across = 1, 4
        gather.emit(many, left, right, tile, gather.word(0), None)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, offsets, c), codegen


def _keep_twin(count: int, a: Any, b: Any, step: int, kept: Any, c: Any, stride: int, accumulate: bool) -> None:
    columns = tile_shape(c.dtype.itemsize)[1]
    for k in range(count):
        kept[k * columns : (k + 1) * columns] = b[k * step : k * step + columns]
    _tile_twin(count, a, kept, c, stride, accumulate)


@intrinsic(twin=_keep_twin)
def tile_keep(
    typingctx: Any, count: Any, a: Any, b: Any, step: Any, kept: Any, c: Any, stride: Any, accumulate: Any
) -> Any:
    """Does what ``tile_product`` does, of rows of b that are ``step`` apart and are copied to ``kept``, packed, on the way."""
    from numba.core import types

    word = types.intp

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, right, further, copy, tile, apart, adding = values
        Keep.of(context, builder, c, further, copy).emit(many, left, right, tile, apart, adding)
        return context.get_dummy_value()

    return types.void(word, a, b, word, kept, c, word, types.boolean), codegen


class Keep(Tile):
    """A tile that leaves a packed copy of b: three stores beside 24 multiply-adds."""

    def __init__(self, builder: Any, scalar: Any, size: int, step: Any, kept: Any):
        super().__init__(builder, scalar, size)
        self.step, self.kept = step, kept

    def row(self, b: Any, k: Any) -> Any:
        row, target = self.builder.gep(b, [self.builder.mul(k, self.step)]), super().row(self.kept, k)
        for j in range(self.across):
            self.store(self.load(row, j), target, j)
        return row


# ---- operands with strides ----------------------------------------------------------------------------------------------
@cache
def strided_shape(itemsize: int) -> tuple[int, int]:
    """Returns rows and columns of ``tile_strided``'s tile: two vectors wide, so that 64 channels are whole tiles."""
    return tile_shape(itemsize)[0], 2 * vector_bytes() // itemsize


def _strided_twin(
    count: int, a: Any, along: int, row: int, b: Any, step: int, c: Any, stride: int, accumulate: bool
) -> None:
    rows, columns = strided_shape(c.dtype.itemsize)
    for i in range(rows):
        total = sum(a[k * along + i * row] * b[k * step : k * step + columns] for k in range(count))
        c[i * stride : i * stride + columns] = c[i * stride : i * stride + columns] + total if accumulate else total


@intrinsic(twin=_strided_twin)
def tile_strided(
    typingctx: Any, count: Any, a: Any, along: Any, row: Any, b: Any, step: Any, c: Any, stride: Any, accumulate: Any
) -> Any:
    """Computes ``c[i * stride + j] (+)= sum(a[k * along + i * row] * b[k * step + j])``: operands are read where they are, not packed."""
    from numba.core import types

    word = types.intp
    signature = types.void(word, a, word, word, b, word, c, word, types.boolean)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, over, down, right, further, tile, apart, adding = values
        strided = Strided.of(context, builder, c, over, down, further)
        strided.emit(many, left, right, tile, apart, adding)
        return context.get_dummy_value()

    return signature, codegen


class Strided(Tile):
    """A tile two vectors wide whose operands' elements are any distance apart."""

    def __init__(self, builder: Any, scalar: Any, size: int, along: Any, down: Any, step: Any):
        super().__init__(builder, scalar, size)
        self.rows, columns = strided_shape(size)
        self.across = columns // self.lanes
        self.along, self.down, self.step = along, down, step

    def element(self, a: Any, k: Any, i: int) -> Any:
        start = self.builder.gep(a, [self.builder.mul(k, self.along)])
        return self.builder.gep(start, [self.builder.mul(self.down, self.word(i))])

    def row(self, b: Any, k: Any) -> Any:
        return self.builder.gep(b, [self.builder.mul(k, self.step)])


# ---- rows with rows ---------------------------------------------------------------------------------------------------
@cache
def dots_shape() -> tuple[int, int]:
    """Returns rows of a and of b in a tile of dot products: as many as the registers hold beside the loaded vectors."""
    return (4, 6) if tile_shape(4)[0] == 8 else (3, 3)


def _dots_twin(count: int, a: Any, places: Any, b: Any, offsets: Any, c: Any) -> None:
    many, each = dots_shape()
    for i in range(many):
        for j in range(each):
            c[i * each + j] += a[places[i] : places[i] + count] @ b[offsets[j] : offsets[j] + count]


@intrinsic(twin=_dots_twin)
def tile_dots(typingctx: Any, count: Any, a: Any, places: Any, b: Any, offsets: Any, c: Any) -> Any:
    """Computes ``c[i, j] += sum(a[places[i] + k] * b[offsets[j] + k] for k in range(count))``; ``count`` in whole vectors.

    c is float64: what vectors of float32 added up is added to it exactly enough for any number of calls.
    """
    from numba.core import types

    signature = types.void(types.intp, a, places, b, offsets, c)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, left, rows, right, columns, sums = values
        dots, (high, wide) = Dots.of(context, builder, a), dots_shape()
        dots.emit_dots(many, dots.starts(left, rows, high), dots.starts(right, columns, wide), sums)
        return context.get_dummy_value()

    return signature, codegen


class Dots(Writer):
    """Writes a tile of dot products, each a vector of partial sums until the end."""

    def starts(self, a: Any, places: Any, count: int) -> list:
        """Returns the addresses of rows of a, whose offsets are the first of a table."""
        builder, word = self.builder, self.word
        return [builder.gep(a, [builder.load(builder.gep(places, [word(i)]))]) for i in range(count)]

    def emit_dots(self, count: Any, left: list, right: list, c: Any) -> None:
        """Writes the product of every row of ``left`` with every one of ``right``."""
        builder, wide = self.builder, len(right)

        def advance(k: Any, state: list) -> list:
            rights, new = [self.at(p, k) for p in right], []
            for i, p in enumerate(left):
                vector = self.at(p, k)
                new += [
                    builder.call(self.fma, [vector, *pair])
                    for pair in zip(rights, state[i * wide : (i + 1) * wide], strict=True)
                ]
            return new

        flat = self.loop(count, [self.same(0.0)] * (len(left) * wide), advance, step=self.lanes)
        for start in range(0, len(flat), self.lanes):
            group = flat[start : start + self.lanes]
            self._add_totals(self._totals(group), len(group), builder.gep(c, [self.word(start)]))

    def _totals(self, vectors: list) -> Any:
        """Returns a vector whose lane i is the sum of vector i's lanes, neighbours added first: always in the same order."""
        lanes, block = self.lanes, 1
        zero = self.same(0.0)
        while block < lanes:
            low = [j if not j & block else lanes + j - block for j in range(lanes)]
            high = [j + block if not j & block else lanes + j for j in range(lanes)]
            if len(vectors) == 1:  # the other lanes repeat its sum
                pairs = [(vectors[0], vectors[0])]
            else:
                vectors = vectors + [zero] * (len(vectors) % 2)
                pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            vectors = [self.builder.fadd(self.pick(x, y, low), self.pick(x, y, high)) for x, y in pairs]
            block *= 2
        return vectors[0]

    def _add_totals(self, totals: Any, count: int, c: Any) -> None:
        """Adds the first ``count`` lanes, as float64, to as many elements."""
        ir, builder = self.ir, self.builder
        wide = ir.VectorType(ir.DoubleType(), count)
        some = builder.shuffle_vector(
            totals, totals, ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
        )
        some = some if self.size == 8 else builder.fpext(some, wide)
        place = builder.bitcast(c, wide.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=8), some), place, align=8)
