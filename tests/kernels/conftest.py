"""Floating-point warnings are off where kernels run as plain Python: NumPy's scalars give them, compiled code never does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.plain import PLAIN


@pytest.fixture(autouse=PLAIN)
def silent_numbers() -> Iterator[None]:
    """Overflow, division by zero and invalid operations pass in silence."""
    before = np.seterr(all="ignore")
    yield
    np.seterr(**before)
