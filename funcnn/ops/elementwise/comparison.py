"""Comparison and logic: elementwise operations without a derivative."""

from __future__ import annotations

import numpy as np

from funcnn.core import dtypes
from funcnn.ops.base.declare import binary, unary

eq = binary("eq", np.equal, None, None, "``input == other``, elementwise, as bool.", dtype=dtypes.bool_)


ne = binary("ne", np.not_equal, None, None, "``input != other``, elementwise, as bool.", dtype=dtypes.bool_)


lt = binary("lt", np.less, None, None, "``input < other``, elementwise, as bool.", dtype=dtypes.bool_)


le = binary("le", np.less_equal, None, None, "``input <= other``, elementwise, as bool.", dtype=dtypes.bool_)


gt = binary("gt", np.greater, None, None, "``input > other``, elementwise, as bool.", dtype=dtypes.bool_)


ge = binary("ge", np.greater_equal, None, None, "``input >= other``, elementwise, as bool.", dtype=dtypes.bool_)


logical_and = binary("logical_and", np.logical_and, None, None, "Both true (non-zero).", dtype=dtypes.bool_)


logical_or = binary("logical_or", np.logical_or, None, None, "Either true (non-zero).", dtype=dtypes.bool_)


logical_xor = binary("logical_xor", np.logical_xor, None, None, "Just one true (non-zero).", dtype=dtypes.bool_)


logical_not = unary("logical_not", np.logical_not, None, "Not true (zero).", to_float=False, dtype=dtypes.bool_)


bitwise_and = binary("bitwise_and", np.bitwise_and, None, None, "Bitwise and of integers or bools.", kinds="biu")


bitwise_or = binary("bitwise_or", np.bitwise_or, None, None, "Bitwise or of integers or bools.", kinds="biu")


bitwise_xor = binary(
    "bitwise_xor", np.bitwise_xor, None, None, "Bitwise exclusive or of integers or bools.", kinds="biu"
)


bitwise_not = unary("bitwise_not", np.invert, None, "Bitwise not of integers or bools.", to_float=False, kinds="biu")


bitwise_left_shift = binary("bitwise_left_shift", np.left_shift, None, None, "``input << other``.", kinds="iu")


bitwise_right_shift = binary("bitwise_right_shift", np.right_shift, None, None, "``input >> other``.", kinds="iu")


isnan = unary("isnan", np.isnan, None, "Where the element is NaN.", to_float=False, dtype=dtypes.bool_)


isinf = unary(
    "isinf", np.isinf, None, "Where the element is plus or minus infinity.", to_float=False, dtype=dtypes.bool_
)


isfinite = unary("isfinite", np.isfinite, None, "Where the element is finite.", to_float=False, dtype=dtypes.bool_)
