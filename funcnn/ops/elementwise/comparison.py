"""Comparison and logic: elementwise operations without a derivative."""

from __future__ import annotations

from functools import partial

from funcnn.core import dtypes
from funcnn.kernels.cpu.elementwise import comparison as kernels
from funcnn.ops.base.declare import binary, unary

_compare = partial(binary, dx=None, dy=None, dtype=dtypes.bool_)
_logic = partial(_compare, loops="biuf")
_bits = partial(binary, dx=None, dy=None)
_tell = partial(unary, d=None, to_float=False, dtype=dtypes.bool_, inplace=False)

eq = _compare("eq", kernels.eq, doc="``input == other``, elementwise, as bool.", numpy="equal")
ne = _compare("ne", kernels.ne, doc="``input != other``, elementwise, as bool.", numpy="not_equal")
lt = _compare("lt", kernels.lt, doc="``input < other``, elementwise, as bool.", numpy="less")
le = _compare("le", kernels.le, doc="``input <= other``, elementwise, as bool.", numpy="less_equal")
gt = _compare("gt", kernels.gt, doc="``input > other``, elementwise, as bool.", numpy="greater")
ge = _compare("ge", kernels.ge, doc="``input >= other``, elementwise, as bool.", numpy="greater_equal")

logical_and = _logic("logical_and", kernels.logical_and, doc="Both true (non-zero).")
logical_or = _logic("logical_or", kernels.logical_or, doc="Either true (non-zero).")
logical_xor = _logic("logical_xor", kernels.logical_xor, doc="Just one true (non-zero).")
logical_not = _tell("logical_not", kernels.logical_not, doc="Not true (zero).", loops="biuf", inplace=True)

bitwise_and = _bits(
    "bitwise_and", kernels.bitwise_and, doc="Bitwise and of integers or bools.", kinds="biu", loops="biu"
)
bitwise_or = _bits("bitwise_or", kernels.bitwise_or, doc="Bitwise or of integers or bools.", kinds="biu", loops="biu")
bitwise_xor = _bits(
    "bitwise_xor", kernels.bitwise_xor, doc="Bitwise exclusive or of integers or bools.", kinds="biu", loops="biu"
)
bitwise_not = unary(
    "bitwise_not", kernels.bitwise_not, None, "Bitwise not of integers or bools.", to_float=False, kinds="biu", loops="iu",
    numpy="invert",
)  # fmt: skip
bitwise_left_shift = _bits("bitwise_left_shift", kernels.left_shift, doc="``input << other``.", kinds="iu", loops="iu")
bitwise_right_shift = _bits(
    "bitwise_right_shift", kernels.right_shift, doc="``input >> other``.", kinds="iu", loops="iu"
)

isnan = _tell("isnan", kernels.isnan, doc="Where the element is NaN.")
isinf = _tell("isinf", kernels.isinf, doc="Where the element is plus or minus infinity.")
isfinite = _tell("isfinite", kernels.isfinite, doc="Where the element is finite.")
