"""What intrinsics write their LLVM IR with: vectors of elements of one type, their addresses, masks and loops.

LLVM fits vectors of any length to the registers of the CPU, whole registers best. Loads and stores are aligned to an
element, for a row may begin anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from funcnn.kernels.cpu.machine import vector_bytes


class Writer:
    """Writes the IR of one intrinsic. size: bytes of an element; lanes: as many as a register holds, unless given."""

    def __init__(self, builder: Any, scalar: Any, size: int, lanes: int | None = None):
        from llvmlite import ir

        self.ir, self.builder, self.scalar, self.size = ir, builder, scalar, size
        self.lanes = vector_bytes() // size if lanes is None else lanes
        self.vector = ir.VectorType(scalar, self.lanes)
        self.word = ir.IntType(64)

    @classmethod
    def of(cls, context: Any, builder: Any, pointer: Any, *args: Any) -> Any:
        """Makes a writer of the elements that a pointer or an array of Numba's type is of."""
        return cls(builder, context.get_data_type(pointer.dtype), pointer.dtype.bitwidth // 8, *args)

    # ---- values -------------------------------------------------------------------------------------------------------
    def constant(self, values: list, kind: Any = None) -> Any:
        """Returns a vector of constants, one for each lane; ``kind``: of other elements."""
        return self.ir.Constant(self.ir.VectorType(kind or self.scalar, self.lanes), values)

    def same(self, value: float, kind: Any = None) -> Any:
        """Returns a vector of one constant."""
        return self.constant([value] * self.lanes, kind)

    def splat(self, value: Any) -> Any:
        """Returns a scalar of any type in all lanes."""
        blank = self.constant(self.ir.Undefined, value.type)
        index = self.ir.IntType(32)
        return self.builder.shuffle_vector(
            self.builder.insert_element(blank, value, index(0)), blank, self.same(0, index)
        )

    def integer(self, value: Any, kind: Any) -> Any:
        """Returns a 64-bit integer, cut to ``kind``, in all lanes."""
        return self.splat(self.builder.trunc(value, kind) if kind.width < 64 else value)

    def counted(self, first: Any, kind: Any, step: int = 1) -> Any:
        """first, first + step, ... as integers of ``kind``."""
        steps = self.constant([step * lane for lane in range(self.lanes)], kind)
        return self.builder.add(self.integer(first, kind), steps)

    def pick(self, a: Any, b: Any, lanes: list) -> Any:
        """Returns a vector of some lanes of a or, counted on, of b."""
        return self.builder.shuffle_vector(a, b, self.constant(lanes, self.ir.IntType(32)))

    @property
    def fma(self) -> Any:
        """LLVM's fused multiply-add of three vectors."""
        return self.declared(f"fma.{self._letters(self.vector)}", self.vector, [self.vector] * 3)

    def declared(self, name: str, result: Any, arguments: list) -> Any:
        """Returns one of LLVM's functions, by its name after ``llvm.``."""
        from numba.core import cgutils

        kind = self.ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}")

    def _letters(self, vector: Any) -> str:
        """LLVM's name of a vector type: v16f32."""
        element = vector.element
        whole = isinstance(element, self.ir.IntType)
        return f"v{self.lanes}i{element.width}" if whole else f"v{self.lanes}f{8 * self.size}"

    # ---- memory -------------------------------------------------------------------------------------------------------
    def address(self, row: Any, j: int = 0) -> Any:
        """Returns the address of the j-th vector of a row, as one of vectors."""
        return self.builder.bitcast(self.builder.gep(row, [self.word(j * self.lanes)]), self.vector.as_pointer())

    def load(self, row: Any, j: int = 0) -> Any:
        """Returns the j-th vector of a row."""
        return self.builder.load(self.address(row, j), align=self.size)

    def store(self, value: Any, row: Any, j: int = 0) -> None:
        """Writes the j-th vector of a row."""
        self.builder.store(value, self.address(row, j), align=self.size)

    def at(self, row: Any, *offsets: Any, kind: Any = None) -> Any:
        """Returns the vector that begins at the sum of some offsets in a row; ``kind``: of other elements."""
        for offset in offsets:
            row = self.builder.gep(row, [offset])
        if kind is None:
            return self.load(row)
        address, size = self._aligned(row, self.ir.VectorType(kind, self.lanes))
        return self.builder.load(address, align=size)

    def put(self, value: Any, row: Any, offset: Any, mask: Any = None) -> None:
        """Writes a vector of any elements, or its lanes of a mask, at an offset in a row."""
        row = self.builder.gep(row, [offset])
        if mask is None:
            self.builder.store(value, *self._aligned(row, value.type))
        else:
            self.masked_store(value, row, mask)

    def _aligned(self, row: Any, vector: Any) -> tuple[Any, int]:
        """Returns the address as one of vectors, and the bytes of an element."""
        element = vector.element
        size = element.width // 8 if isinstance(element, self.ir.IntType) else self.size
        return self.builder.bitcast(row, vector.as_pointer()), size

    # ---- masks --------------------------------------------------------------------------------------------------------
    def below(self, count: Any) -> Any:
        """Returns the mask of the lanes 0 to count - 1."""
        lane = self.ir.IntType(32)
        return self.builder.icmp_signed("<", self.constant(list(range(self.lanes)), lane), self.integer(count, lane))

    def masked_load(self, row: Any, mask: Any, otherwise: Any = None) -> Any:
        """Returns the lanes of a mask from a row; the others are those of ``otherwise``, or 0, and their memory is not read."""
        address, size = self._aligned(row, self.vector)
        otherwise = self.same(0.0) if otherwise is None else otherwise
        return self._masked("load", self.vector, self.vector, [address, self.ir.IntType(32)(size), mask, otherwise])

    def masked_store(self, value: Any, row: Any, mask: Any) -> None:
        """Writes the lanes of a mask to a row."""
        address, size = self._aligned(row, value.type)
        self._masked("store", self.ir.VoidType(), value.type, [value, address, self.ir.IntType(32)(size), mask])

    def _masked(self, name: str, result: Any, vector: Any, arguments: list) -> Any:
        kinds = [argument.type for argument in arguments]
        return self.builder.call(self.declared(f"masked.{name}.{self._letters(vector)}.p0", result, kinds), arguments)

    # ---- loops --------------------------------------------------------------------------------------------------------
    @contextmanager
    def steps(self, end: Any, vectors: int = 1) -> Iterator[Any]:
        """Writes a loop over the first elements of so many vectors below ``end``."""
        from numba.core import cgutils

        step = self.word(vectors * self.lanes)
        with cgutils.for_range_slice(self.builder, self.word(0), end, step, inc=True) as (k, _):
            yield k

    def loop(self, count: Any, before: list, advance: Callable, step: int = 1) -> list:
        """Computes ``state = advance(k, state)`` for k in range(0, count, step), count > 0, with the state in registers."""
        builder, entry = self.builder, self.builder.block
        body, after = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(self.word)
        state = [builder.phi(value.type) for value in before]
        new = advance(k, state)
        following = builder.add(k, self.word(step))
        for phi, first, value in zip([k, *state], [self.word(0), *before], [following, *new], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(value, builder.block)
        self.close(builder.cbranch(builder.icmp_signed("<", following, count), body, after))
        builder.position_at_end(after)
        return new

    def close(self, branch: Any) -> None:
        """Takes the branch that closes a loop: LLVM may unroll it."""
