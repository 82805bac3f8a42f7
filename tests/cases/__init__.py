"""The one table of cases: a row for each operation and way of calling it, gathered from its family's file."""

from __future__ import annotations

from tests.cases import creation, elementwise, embedding, index, interpolate, matmul, movement, nn, random, recurrent, reduce
from tests.cases.case import Case

FAMILIES = (creation, elementwise, embedding, interpolate, movement, index, reduce, matmul, nn, random, recurrent)
TABLE: list[Case] = [row for family in FAMILIES for row in family.ROWS]
