"""Every program that any test traces is verified, as traced and after each pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from funcnn.compiler.passes import pipeline
from funcnn.compiler.verify import verify_pass


@pytest.fixture(autouse=True, scope="session")
def verified_passes() -> Iterator[None]:
    before = pipeline.after_each(verify_pass)
    yield
    pipeline.after_each(before)
