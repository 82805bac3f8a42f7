"""Checks of operations, for whoever writes one: ``fn.testing.check_primitive`` runs what funcnn's own have to pass."""

from __future__ import annotations

from funcnn.testing.primitive import CHECKS, check_primitive

__all__ = ["CHECKS", "check_primitive"]
