"""The one table of cases: a row for each operation and way of calling it, gathered from its family's file."""

from __future__ import annotations

from tests.cases import (
    attention,
    creation,
    elementwise,
    embedding,
    fold,
    grid_sample,
    index,
    interpolate,
    matmul,
    movement,
    nn,
    optim,
    pool,
    random,
    recurrent,
    reduce,
    shuffle,
)
from tests.cases.case import Case

FAMILIES = (
    attention,
    creation,
    elementwise,
    embedding,
    fold,
    grid_sample,
    interpolate,
    movement,
    index,
    reduce,
    shuffle,
    matmul,
    nn,
    optim,
    pool,
    random,
    recurrent,
)
TABLE: list[Case] = [row for family in FAMILIES for row in family.ROWS]
