"""The one table of cases: a row for each operation and way of calling it, gathered from its family's file."""

from __future__ import annotations

from tests.cases import elementwise
from tests.cases.case import Case

TABLE: list[Case] = [*elementwise.ROWS]
