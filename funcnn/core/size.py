"""Size: the tuple that ``Tensor.shape`` is."""

from __future__ import annotations

import math
from typing import Any


class Size(tuple):
    """A tuple of ints that prints as ``funcnn.Size([2, 3])``; slices and sums are Sizes too."""

    __slots__ = ()

    def numel(self) -> int:
        """Counts the elements of a tensor of this size."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return Size(item) if isinstance(index, slice) else item

    def __add__(self, other: Any) -> Size:  # type: ignore[override]
        return Size(tuple.__add__(self, tuple(other)))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __repr__(self) -> str:
        return f"funcnn.Size([{', '.join(map(str, self))}])"
