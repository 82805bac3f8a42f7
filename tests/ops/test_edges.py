"""Numbers beyond a dtype, 0-d and empty tensors, bools, NaN and infinities: one line each, read by both libraries.

A line is an expression of ``m`` (the library), ``F`` (its functional part) and a few tensors; both must give the same
values in the same dtype, or both must raise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcnn as fn

NUMBERS = """
u8 == -1
u8 != 70000
u8 < 300
i8 < 200
i8 >= -300
u8 == 2**40
u8 == 2**63
u8 + 2**63
i64 + 2**63
u8 + 2**64
u8 - 300
300 - u8
u8 * 300
u8 / 300
u8 / -300
i8 / 200
u8 // 300
u8 % 300
300 % u8
u8 & 300
m.eq(u8, 300)
m.remainder(u8, 300)
m.fmod(u8, 300)
m.maximum(u8, m.tensor(300))
m.div(u8, 300, rounding_mode='floor')
m.div(u8, 300, rounding_mode='trunc')
u8.add_(300)
u8.mul_(300)
u8 + 0.5
f + 1e300
f.half() + 1e6
i8 / m.tensor(200, dtype=m.uint8)
i8 < m.tensor(200, dtype=m.uint8)
i8 == m.tensor(200, dtype=m.uint8)
i8 + m.tensor(200, dtype=m.uint8)
i8 * m.tensor(200, dtype=m.uint8)
m.atan2(i8, m.tensor(200, dtype=m.uint8))
u8.fill_(300)
u8.fill_(-1)
u8.fill_(-300)
i8.fill_(200)
u8.fill_(2.7)
u8.fill_(-1.5)
u8.fill_(300.5)
u8.fill_(255.5)
u8.fill_(m.tensor(300))
i64.fill_(2.0)
i64.fill_(2.9)
i64.fill_(inf)
i64.fill_(nan)
i64.fill_(2**63)
i64.fill_(m.tensor(2.5))
i64.fill_(m.tensor([2]))
b.fill_(2)
b.fill_(2.5)
b.fill_(nan)
f.fill_(True)
f.fill_(1e300)
f.fill_(inf)
f.half().fill_(1e6)
d.fill_(0.1)
m.tensor(300, dtype=m.uint8)
m.tensor([300], dtype=m.uint8)
m.tensor([[1, 2], [3, 256]], dtype=m.uint8)
m.tensor(-1, dtype=m.uint8)
m.tensor([-1], dtype=m.uint8)
m.tensor(-300, dtype=m.uint8)
m.tensor(-129, dtype=m.int8)
m.tensor([2.5], dtype=m.uint8)
m.tensor(2.5, dtype=m.int64)
m.tensor(300.5, dtype=m.uint8)
m.tensor(1e300, dtype=m.float32)
m.tensor(nan, dtype=m.int64)
m.tensor(np.array([300]), dtype=m.uint8)
m.tensor(2**63)
m.tensor(2, dtype=m.bool)
m.as_tensor([300], dtype=m.uint8)
u8.new_tensor(300)
u8.new_full((2,), 300)
m.full((2,), 300, dtype=m.uint8)
m.full((2,), -1, dtype=m.uint8)
m.full((2,), 2.5, dtype=m.int64)
m.full((2,), 1e300)
m.full_like(u8, 300)
m.arange(250, 260, dtype=m.uint8)
u8.masked_fill(b, 300)
u8.masked_fill(b, -1)
u8.masked_fill(b, 2.5)
i64.masked_fill(i64 > 0, 2.5)
d.masked_fill(b, 0.1)
f.masked_fill(b, 1e300)
f.masked_fill(b, f)
u8.index_fill(0, m.tensor([0]), 300)
u8.index_fill(0, m.tensor([0]), 2.5)
d.index_fill(0, m.tensor([0]), 0.1)
u8.scatter(0, m.tensor([0]), 300)
u8.scatter(0, m.tensor([0]), 2.5)
d.scatter(0, m.tensor([0]), 0.1)
d.scatter(0, m.tensor([0]), value=0.1)
put(u8, 0, 300)
put(u8, 0, -1)
put(u8, 0, 2.5)
put(u8, [0], 300)
put(u8, b, 300)
put(f, 0, 1e300)
put(d, 0, 0.1)
put(d, [0], 0.1)
put(d, b, 0.1)
put(d, slice(None), 0.1)
u8.clamp(0, 300)
u8.clamp(-5, 50)
u8.clamp(min=-1)
m.clamp(i64, 0.5, 2)
m.where(b, u8, 300)
m.where(b, u8, 3)
u8 ** 300
u8.pow(2.5)
m.pow(u8, -1)
m.pow(i64, -1)
m.pow(i64, m.tensor(-1))
m.pow(i64, m.tensor([-1, -2, -1]))
m.tensor([2, -1, 1, -1]).pow(m.tensor([-1, -1, -3, -2]))
2 ** m.tensor([-1, 2])
m.pow(300, u8)
u8.add(u8, alpha=300)
u8.add(u8, alpha=2.5)
u8.sub(u8, alpha=-1)
i64[:2].add(u8, alpha=100)
i64[:2].sub(i8, alpha=100)
f.add(u8, alpha=0.5)
f.add(f, alpha=True)
b.add(b, alpha=True)
b.add(b, alpha=2)
m.add(u8, 100, alpha=3)
m.add(i8, 100, alpha=3)
m.add(f, 1, alpha=2.5)
"""

KINDS = """
m.round(i64)
m.round(u8)
m.ceil(i64)
m.floor(u8)
m.trunc(i64)
m.round(b)
m.floor(b)
m.frac(i64)
m.round(i64, decimals=1)
m.round(f, decimals=-1)
m.sign(b)
m.square(b)
m.square(u8)
m.positive(b)
m.tril(m.ones(2, 2).bool())
m.triu(m.ones(2, 2).bool())
m.diag(b)
m.isclose(b, b)
m.isclose(b, ~b)
m.isclose(i64, i64 + 1, rtol=0, atol=1)
m.isclose(f, d)
m.isclose(f, i64[:2])
m.isclose(m.tensor([inf, nan]), m.tensor([inf, nan]), equal_nan=True)
m.tensor(m.allclose(b, b))
m.nanmean(f, dtype=m.float64)
m.nanmean(f.half(), 0, dtype=m.float32)
m.nanmean(i64, dtype=m.float32)
b - b
u8 - b
b // b
-b
b < 2
b == 300
m.relu(u8)
"""

EMPTY = """
m.zeros(0, dtype=m.int64) // 0
m.zeros(0, dtype=m.int64) % 0
m.zeros(0, 3, dtype=m.int64) // m.tensor([0, 1, 2])
i64 // 0
m.zeros(0).median()
m.zeros(0, 3).median()
m.zeros(0, dtype=m.int64).median()
m.zeros(0, 3).median(0)
m.ones(1, 0).index_fill(1, m.tensor([], dtype=m.int64), 1.)
m.zeros(0, 3).index_fill(0, m.tensor([], dtype=m.int64), 1.)
m.zeros(0, 3).index_fill(1, m.tensor([0]), 1.)
m.zeros(0, 3).index_select(1, m.tensor([0]))
F.linear(m.ones(2, 3), m.ones(0, 3))
F.linear(m.ones(2, 3), m.ones(0, 3), m.ones(0))
F.linear(m.ones(2, 0), m.ones(4, 0), m.ones(4))
F.linear(m.ones(0, 3), m.ones(4, 3), m.ones(4))
F.linear(m.ones(3), m.ones(0, 3))
m.nn.Linear(3, 2)(m.ones(0, 3)) * 0
F.glu(m.ones(0, 4))
F.glu(m.ones(2, 0))
F.glu(m.ones(0))
F.glu(m.ones(2, 3))
F.cross_entropy(m.ones(0, 0), m.zeros(0).long())
F.cross_entropy(m.ones(2, 0), m.zeros(2).long())
F.cross_entropy(m.ones(2, 0), m.full((2,), -100))
F.cross_entropy(m.ones(2, 0), m.full((2,), -100), reduction='none')
F.cross_entropy(m.ones(2, 0), m.ones(2, 0))
F.cross_entropy(m.ones(2, 0), m.ones(2, 0), reduction='none')
F.cross_entropy(m.ones(2, 0, 3), m.ones(2, 0, 3), reduction='sum')
F.cross_entropy(m.ones(0, 3), m.zeros(0).long())
m.zeros(2, 3).diagonal(5)
m.zeros(2, 3).diagonal(-5)
m.zeros(2, 0).diagonal()
m.zeros(0, 3).t().diagonal(1)
m.diag(m.zeros(0))
m.diag_embed(m.zeros(2, 0), 1)
m.zeros(0).unfold(0, 0, 1)
m.zeros(2, 3).unfold(1, 0, 2)
"""

SCALARS = """
s.sort()[0]
m.tensor(nan).sort()[1]
m.tensor(nan).argsort()
m.tensor(nan).topk(1)[1]
m.tensor(nan).kthvalue(1)[1]
m.tensor(2.).index_fill(0, m.tensor([0]), 1.)
m.tensor(2.).index_fill(0, m.tensor(0), 1.)
m.tensor(2.).masked_scatter(m.tensor(True), m.tensor([5., 6.]))
m.tensor([1., 2.]).masked_scatter(m.tensor(True), m.tensor([5., 6.]))
m.tensor(1.).masked_scatter(m.tensor([True, False]), m.tensor([5., 6.]))
m.tensor([1., 2.]).masked_scatter(m.tensor([True, True]), m.tensor([5.]))
m.tensor([1., 2.]).masked_scatter(m.tensor([True, True]), m.tensor([5, 6]))
m.gather(s, 0, m.tensor(0))
m.gather(s, 0, m.tensor([0, 0]))
m.gather(f, 0, m.tensor(1))
m.gather(s, -1, m.tensor(0))
m.gather(s, 0, m.tensor(1))
m.scatter(s, 0, m.tensor(0), 3.)
m.scatter(s, 0, m.tensor([0]), 3.)
m.scatter(s, 0, m.tensor([0]), m.tensor([3.]))
m.scatter(f, 0, m.tensor(0), m.tensor(3.))
m.scatter_add(s, 0, m.tensor(0), m.tensor(3.))
m.scatter_add(s, 0, m.tensor([0, 0]), m.tensor([3., 4.]))
m.index_select(s, 0, m.tensor([0]))
m.index_select(s, 0, m.tensor(0))
m.index_select(f, 0, m.tensor(1))
m.index_add(s, 0, m.tensor(0), m.tensor(2.))
m.index_add(s, 0, m.tensor([0]), m.tensor(2.))
m.index_copy(s, 0, m.tensor(0), m.tensor(2.))
m.index_copy(s, 0, m.tensor([0]), m.tensor([2.]))
m.index_copy(f, 0, m.tensor(1), m.tensor(2.))
s.unfold(0, 1, 1)
s.unfold(0, 0, 1)
s.T
f.mT
m.take(s, m.tensor(0))
s.diagonal()
"""

BEYOND = """
m.lerp(m.tensor(inf), m.tensor(1.), .75)
m.lerp(m.tensor(inf), m.tensor(1.), .25)
m.lerp(m.tensor(1.), m.tensor(inf), .25)
m.lerp(f, f + 1, m.tensor([.5, 2.]))
F.huber_loss(m.tensor([inf, 1.]), m.tensor([0., inf]), reduction='none')
F.huber_loss(m.tensor([inf, 1.]), m.tensor([inf, nan]), reduction='none')
F.huber_loss(m.tensor([inf]), m.tensor([0.]))
F.smooth_l1_loss(m.tensor([inf, inf]), m.tensor([0., inf]), reduction='none')
grad(lambda x: m.lerp(x, m.tensor(1.), .75), [inf, 2.])
grad(lambda x: F.huber_loss(x, m.zeros(4), reduction='sum'), [inf, -inf, nan, .5])
grad(lambda x: F.huber_loss(x, m.zeros(4), reduction='sum', delta=2.), [inf, -inf, nan, 1.5])
grad(lambda x: F.smooth_l1_loss(x, m.zeros(4), reduction='sum'), [inf, -inf, nan, .5])
grad(lambda x: F.smooth_l1_loss(x, m.zeros(4), reduction='sum', beta=0.), [inf, -inf, nan, .5])
grad(lambda x: F.l1_loss(x, m.zeros(4), reduction='sum'), [inf, -inf, nan, .5])
grad(lambda x: m.amin(x), [nan, 1., nan])
grad(lambda x: m.amax(x), [nan, 1., nan])
grad(lambda x: m.amin(x), [2., 1., 1.])
grad(lambda x: m.min(x), [nan, 1., nan])
grad(lambda x: m.min(x, 0)[0], [nan, 1., nan])
grad(lambda x: m.median(x), [nan, 1., 2.])
grad(lambda x: m.nanmean(x), [nan, 1., 3.])
grad(lambda x: m.nansum(x), [nan, 1., 3.])
grad(lambda x: m.nanmean(x), [nan, nan])
grad(lambda x: m.median(x), [])
grad(lambda x: m.minimum(x, m.tensor([nan, 1., 0.])), [1., nan, 0.])
grad(lambda x: m.maximum(x, m.tensor([nan, 1., 0.])), [1., nan, 0.])
grad(lambda x: m.fmax(x, m.tensor([nan, 1., 0.])), [1., nan, 0.])
grad(lambda x: m.div(x, 0., rounding_mode='trunc'), [0., 1.])
grad(lambda x: m.div(x, m.tensor([0., 2.]), rounding_mode='trunc'), [0., 1.])
grad(lambda x: m.div(1., x, rounding_mode='trunc'), [0., 1.])
grad(lambda x: m.div(1., x, rounding_mode='floor'), [0., 1.])
grad(lambda x: 2. / x, [0., 1., inf])
grad(lambda x: 1 / x, [0., -1., nan])
"""


def _put(x: Any, index: Any, value: Any) -> Any:
    x[index] = value
    return x


def names(m: Any) -> dict[str, Any]:
    """What a line may speak of, in one library."""

    def grad(f: Any, at: list) -> Any:
        x = m.tensor(at, dtype=m.float32, requires_grad=True)
        f(x).sum().backward()
        return x.grad

    return {
        "m": m, "F": m.nn.functional, "np": np, "inf": float("inf"), "nan": float("nan"), "put": _put, "grad": grad,
        "u8": m.tensor([1, 100], dtype=m.uint8), "i8": m.tensor([1, -100], dtype=m.int8), "i64": m.tensor([1, -2, 3]),
        "b": m.tensor([True, False]), "f": m.tensor([1.0, 2.0]), "d": m.tensor([1.0, 2.0], dtype=m.float64),
        "s": m.tensor(5.0),
    }  # fmt: skip


def read(m: Any, line: str) -> np.ndarray | str:
    """The value of a line, or that it raises."""
    try:
        return np.array(eval(line, names(m)).detach().numpy())
    except Exception:
        return "raises"


LINES = [line for part in (NUMBERS, KINDS, EMPTY, SCALARS, BEYOND) for line in part.strip().splitlines()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", LINES)
def test_edges_are_pytorch(line: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = read(torch, line), read(fn, line)
    if isinstance(theirs, str) or isinstance(ours, str):
        assert isinstance(theirs, str) and isinstance(ours, str), (theirs, ours)
        return
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
