"""Convolution kernels against loops over every tap and output pixel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn.kernels import plan_text
from funcnn.kernels.cpu import launching
from funcnn.kernels.cpu.conv.launch import lists as conv_cpu
from funcnn.kernels.cpu.conv.launch import pointwise as conv_pointwise
from funcnn.kernels.cpu.conv.launch import winograd as conv_winograd
from funcnn.kernels.cpu.vector.tiles import RUN_PRODUCTS
from funcnn.kernels.implementation import Implementation, operand_of
from funcnn.kernels.launch import LaunchPlan
from tests import helpers as h
from tests.plain import compiled_only, sized

# x (N, C, D, H, W), output channels, kernel, stride, padding, dilation, groups
CASES = {
    "plain": ((2, 3, 1, 6, 7), 4, (1, 3, 3), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "3d": ((2, 2, 4, 5, 6), 3, (2, 3, 2), (1, 2, 1), (1, 1, 0), (1, 1, 2), 1),
    "1d": ((3, 2, 1, 1, 11), 5, (1, 1, 4), (1, 1, 3), (0, 0, 2), (1, 1, 1), 1),
    "groups": ((2, 6, 1, 5, 4), 4, (1, 2, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 2),
    "depthwise": ((1, 5, 1, 6, 6), 10, (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 5),
    "stride over kernel": ((1, 2, 5, 9, 9), 3, (1, 2, 2), (2, 3, 4), (0, 0, 0), (1, 1, 1), 1),
    "dilated past the edge": ((1, 1, 1, 5, 5), 2, (1, 3, 3), (1, 1, 1), (0, 4, 4), (1, 4, 4), 1),
    "padding over input": ((1, 1, 1, 2, 1), 1, (1, 2, 2), (1, 1, 2), (0, 3, 5), (1, 1, 1), 1),
    "1x1": ((2, 17, 1, 3, 3), 5, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "several tiles": ((2, 2, 1, 20, 20), 2, (1, 3, 2), (1, 1, 1), (0, 1, 1), (1, 1, 1), 2),
    "rows cut by tiles": ((1, 1, 1, 1, 700), 2, (1, 1, 3), (1, 1, 2), (0, 0, 1), (1, 1, 1), 1),
    "many taps": ((1, 14, 1, 14, 14), 1, (1, 7, 7), (1, 1, 1), (0, 3, 3), (1, 1, 1), 1),
    "two phases": ((8, 9, 8, 12), 5, (3, 4), (2, 2), (1, 1), (1, 1), 1),
    "four phases in a row": ((8, 10, 100), 7, (5,), (4,), (1,), (1,), 1),
    "three phases, in depth and groups": ((4, 6, 4, 6, 9), 4, (2, 3, 3), (2, 1, 3), (0, 1, 0), (1, 1, 1), 2),
    "depthwise 3 x 3": ((3, 9, 11, 37), 9, (3, 3), (1, 1), (1, 1), (1, 1), 9),
    "depthwise, two each": ((2, 8, 70), 16, (5,), (2,), (3,), (2,), 8),
    "depthwise, tall": ((2, 8, 9, 8), 8, (5, 2), (1, 1), (2, 1), (1, 1), 8),
    "depthwise, strided": ((1, 10, 9, 8), 10, (3, 3), (2, 3), (2, 1), (1, 1), 10),
    "depthwise, many images": ((35, 8, 5, 6), 8, (3, 3), (1, 1), (1, 1), (1, 1), 8),
    "depthwise, large planes": ((2, 8, 45, 61), 8, (5, 5), (1, 1), (2, 2), (1, 1), 8),
    "depthwise over the edge": ((2, 8, 3, 4), 16, (3, 3), (1, 1), (4, 3), (2, 2), 8),
    "depthwise, strided, in bands": ((2, 9, 60, 40), 9, (3, 5), (2, 3), (1, 2), (1, 2), 9),
    "depthwise of one tap, strided": ((3, 8, 7, 6), 8, (1, 1), (2, 3), (0, 0), (1, 1), 8),
    "depthwise, small planes": ((4, 24, 3, 5), 48, (5, 3), (1, 1), (2, 1), (1, 1), 24),
    "depthwise, single pixels": ((2, 17, 2, 1), 17, (3, 3), (1, 1), (1, 1), (1, 1), 17),
    "depthwise, long in a row": ((2, 9, 300), 9, (3,), (1,), (1,), (1,), 9),
    "depthwise, many taps": ((1, 16, 17, 16), 16, (17, 16), (1, 1), (1, 1), (1, 1), 16),
    "depthwise, steps over the kernel": ((3, 6, 11, 14), 6, (2, 3), (3, 5), (0, 1), (1, 1), 6),
    "few pixels": ((1, 64, 4, 5), 67, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "few pixels, strided": ((2, 130, 9), 131, (3,), (2,), (1,), (2,), 1),
    "few pixels in depth": ((1, 43, 2, 3, 4), 52, (2, 3, 2), (1, 1, 2), (1, 1, 0), (1, 1, 1), 1),
    "few pixels of one tap": ((3, 150, 2, 3), 111, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "strides of six and eight": ((2, 2, 13, 24), 3, (6, 8), (6, 8), (3, 0), (1, 1), 1),
    "winograd": ((2, 16, 9, 11), 17, (3, 3), (1, 1), (1, 0), (1, 1), 1),
    "winograd in groups": ((9, 36, 4, 5), 40, (3, 3), (1, 1), (2, 1), (1, 1), 2),
    "winograd of small patches": ((40, 16, 4, 4), 16, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "winograd, dilated": ((2, 16, 13, 15), 18, (3, 3), (1, 1), (2, 3), (2, 2), 1),
    "winograd, dilated in groups": ((2, 32, 11, 17), 36, (3, 3), (1, 1), (1, 4), (1, 3), 2),
    "winograd in depth": ((2, 16, 5, 9, 10), 18, (3, 3, 3), (1, 1, 1), (1, 0, 1), (1, 1, 1), 1),
    "winograd in depth, dilated, in groups": ((1, 32, 6, 11, 9), 36, (2, 3, 3), (1, 1, 1), (0, 2, 1), (3, 2, 1), 2),
    "winograd in depth over the edge": ((1, 16, 2, 12, 12), 16, (3, 3, 3), (1, 1, 1), (4, 1, 1), (2, 1, 1), 1),
    "winograd of planes": ((1, 16, 3, 8, 9), 16, (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1),
    "one tap": ((3, 17, 1, 7, 9), 21, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "one tap, narrowing": ((2, 40, 1, 3, 11), 34, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "one tap, to a few": ((2, 40, 5, 3), 9, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one tap, from a few": ((2, 8, 7, 3), 18, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one tap, 1d in groups": ((2, 36, 130), 20, (1,), (1,), (0,), (1,), 2),
    "one tap, strided": ((2, 18, 9, 8), 10, (1, 1), (2, 3), (0, 0), (1, 1), 1),
    "one tap, strided in depth and groups": ((3, 34, 3, 4, 5), 18, (1, 1, 1), (2, 1, 1), (0, 0, 0), (1, 2, 1), 2),
    "one tap, few channels": ((4, 3, 1, 5, 20), 4, (1, 1, 1), (1, 1, 2), (0, 0, 0), (1, 1, 1), 1),
    "direct": ((16, 5, 7, 9), 5, (3, 4), (1, 1), (1, 2), (1, 1), 1),
    "direct, not padded": ((17, 7, 6, 20), 16, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "direct, strided, in groups": ((8, 4, 9, 8), 34, (3, 2), (2, 3), (1, 0), (1, 2), 2),
    "direct, strided in rows": ((16, 3, 11, 12), 9, (3, 7), (2, 2), (1, 3), (1, 1), 1),
    "direct, long rows of taps": ((16, 5, 70), 9, (25,), (1,), (3,), (1,), 1),
    "direct, dilated": ((16, 5, 9, 9), 18, (3, 3), (1, 1), (2, 1), (3, 1), 1),
    "direct in a row": ((16, 2, 41), 17, (5,), (1,), (2,), (1,), 1),
    "direct in depth": ((16, 2, 4, 5, 6), 9, (2, 3, 2), (1, 1, 1), (1, 1, 0), (1, 1, 1), 1),
    "direct 1 x 1": ((16, 3, 5, 5), 20, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "direct over the edge": ((16, 2, 3, 4), 8, (3, 3), (1, 1), (4, 3), (1, 1), 1),
    "direct, many channels": ((16, 31, 3, 5), 17, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "winograd, many channels": ((1, 52, 11, 13), 50, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one tap, many channels": ((2, 260, 5, 10), 18, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pictures in phases": ((5, 3, 17, 23), 9, (5, 4), (2, 3), (2, 1), (1, 1), 1),
    "pictures in depth and groups": ((3, 4, 5, 9, 12), 6, (3, 3, 2), (2, 2, 3), (1, 0, 1), (1, 2, 1), 2),
    "padding over kernel": ((2, 3, 5, 60), 5, (1, 1), (1, 1), (1, 2), (1, 1), 1),
    "padding over kernel in a row": ((2, 3, 4), 5, (3,), (1,), (60,), (1,), 1),
    "taps far apart, many images": ((16, 3, 300), 5, (3,), (1,), (200,), (200,), 1),
    "taps far apart, few channels": ((16, 2, 300), 2, (3,), (1,), (150,), (150,), 1),
    "long kernel": ((9, 2, 300), 5, (201,), (1,), (100,), (1,), 1),
    "long kernel, not padded": ((9, 2, 300), 5, (201,), (1,), (0,), (1,), 1),
    "long kernel, strided": ((2, 2, 500), 5, (401,), (2,), (200,), (1,), 1),
    "no images": ((0, 2, 1, 4, 4), 3, (1, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "no channels": ((2, 0, 1, 4, 4), 3, (1, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "no filters": ((2, 2, 1, 4, 4), 0, (1, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "no input in the padding": ((2, 2, 1, 0, 4), 3, (1, 2, 2), (1, 1, 1), (0, 2, 0), (1, 1, 1), 1),
}
SAME = [
    "3d",
    "groups",
    "rows cut by tiles",
    "winograd",
    "winograd, dilated in groups",
    "winograd in depth",
    "depthwise 3 x 3",
    "depthwise, tall",
    "pictures in phases",
    "one tap, 1d in groups",
    "one tap, strided in depth and groups",
    "direct",
    "direct, strided, in groups",
    "direct, strided in rows",
    "direct in depth",
    "four phases in a row",
    "direct, many channels",
    "winograd, many channels",
    "depthwise, strided, in bands",
    "depthwise, small planes",
    "few pixels",
]
TURNED = "depthwise, small", "depthwise, single", "depthwise, steps", "depthwise, strided, in", "few pixels"
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True)
def winograd_pays(monkeypatch):
    """Winograd's convolution is there wherever it can be, whatever it costs for shapes as small as these."""
    monkeypatch.setattr(conv_winograd, "PATCH_TERMS", (0, 0))


def setup(case, dtype, seed=0):
    """x, w, dy and the arguments that all three kernels end with."""
    shape, K, kernel, stride, padding, dilation, groups = case
    spans = [s + 2 * p - d * (k - 1) for s, p, d, k in zip(shape[2:], padding, dilation, kernel, strict=True)]
    pixels = [max(0, (span - 1) // s + 1) for span, s in zip(spans, stride, strict=True)]
    rng = np.random.default_rng(seed)
    shapes = (shape, (K, shape[1] // groups, *kernel), (shape[0], K, *pixels))
    return (*[rng.standard_normal(s).astype(dtype) for s in shapes], (stride, padding, dilation, groups))


def naive(x, w, dy, stride, padding, dilation, groups):
    """y, dx and dw by the definition; what would be read from the padding is no product at all, as in PyTorch."""
    x, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    high = [
        p + s * o + d * k for p, s, o, d, k in zip(padding, stride, dy.shape[2:], dilation, w.shape[2:], strict=True)
    ]
    around = [(0, 0), (0, 0), *zip(padding, high, strict=True)]
    wide, real = np.pad(x, around), np.pad(np.ones(x.shape, bool), around)
    y, dwide, dw = np.zeros(dy.shape), np.zeros(wide.shape), np.zeros(w.shape)
    K, C = w.shape[0] // groups, w.shape[1]
    pixels = tuple(range(2, dy.ndim))
    for k, tap in product(range(w.shape[0]), product(*map(range, w.shape[2:]))):
        spans = [slice(t * d, t * d + s * o, s) for t, d, s, o in zip(tap, dilation, stride, dy.shape[2:], strict=True)]
        at = (slice(None), slice(k // K * C, (k // K + 1) * C), *spans)
        weights = w[(k, slice(None), *tap)].reshape(1, -1, *[1] * len(spans))
        y[:, k] += np.where(real[at], weights * wide[at], 0).sum(1)
        dwide[at] += np.where(real[at], weights * dy[:, k : k + 1], 0)
        dw[(k, slice(None), *tap)] += np.where(real[at], wide[at] * dy[:, k : k + 1], 0).sum((0, *pixels))
    inner = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[2:], strict=True))
    return y, dwide[(slice(None), slice(None), *inner)], dw


def run(x, w, dy, args):
    """What the implementations give that are chosen."""
    where = parameters(args)
    calls = [
        (conv_cpu.FORWARD, [x, w], dy, where),
        (conv_cpu.INPUT_GRAD, [dy, w], x, {**where, "size": x.shape[2:]}),
        (conv_cpu.WEIGHT_GRAD, [x, dy], w, {**where, "size": w.shape[2:]}),
    ]
    return [made(chosen(ways, ins, **params)[1], ins, like) for ways, ins, like, params in calls]


def parameters(args):
    """Those of the primitives but a size."""
    return {**dict(zip(("stride", "padding", "dilation", "groups"), args, strict=True)), "precision": "high"}


def every_way(x, w, dy, args):
    """For y, dx and dw: what each implementation that applies gives, in an output that held garbage."""
    where = parameters(args)
    yield results(conv_cpu.FORWARD, [x, w], dy, **where)
    yield results(conv_cpu.INPUT_GRAD, [dy, w], x, size=x.shape[2:], **where)
    yield results(conv_cpu.WEIGHT_GRAD, [x, dy], w, size=w.shape[2:], **where)


def results(implementations, ins, like, **params):
    """Of all that apply, in order; like: an array of the output's shape."""
    for _, plan in applying(implementations, ins, **params):
        yield made(plan, ins, like)


def made(plan: LaunchPlan, ins, like):
    """What a plan gives."""
    out = np.full_like(like, np.nan)
    launching.Runner(plan, tuple(map(operand_of, ins)), (operand_of(out),))(list(ins), [out])
    return out


def applying(implementations: tuple[Implementation, ...], ins, **params):
    """Names and plans of those that apply."""
    operands = tuple(map(operand_of, ins))
    plans = ((way.name, way.plan(operands, params)) for way in implementations)
    return ((name, plan) for name, plan in plans if plan is not None)


def paying(implementations: tuple[Implementation, ...], ins, **params):
    """Names and plans of those that apply and pay."""
    operands = tuple(map(operand_of, ins))
    worth = {way.name for way in implementations if way.pays is None or way.pays(operands, params)}
    return ((name, plan) for name, plan in applying(implementations, ins, **params) if name in worth)


def chosen(implementations: tuple[Implementation, ...], ins, **params):
    """The name and the plan of the one that is chosen."""
    return next(paying(implementations, ins, **params))


@DTYPES
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_implementation_against_loops(case, dtype):
    x, w, dy, args = setup(case, dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    for name, ways, expected in zip(("y", "dx", "dw"), every_way(x, w, dy, args), naive(x, w, dy, *args), strict=True):
        largest = abs(expected).max(initial=0)  # sums of large terms that cancel err by the terms' size
        for place, got in enumerate(ways):
            np.testing.assert_allclose(got, expected, tolerance, tolerance / 10 * largest, err_msg=f"{name}, {place}")


@DTYPES
@pytest.mark.parametrize("case", ["one tap", "one tap, strided", "one tap, 1d in groups"])
def test_one_tap_past_the_cache_is_the_same(case, dtype, monkeypatch):
    x, w, dy, args = setup(CASES[case], dtype)
    expected = run(x, w, dy, args)
    monkeypatch.setattr(conv_pointwise, "beyond_cache", lambda size: True)
    monkeypatch.setattr(conv_pointwise, "LEAST_CHUNKS", 1)  # blocks that follow one another in a chunk
    monkeypatch.setattr(conv_pointwise, "BLOCK_BYTES", 1)
    for got, same in zip(run(x, w, dy, args), expected, strict=True):
        np.testing.assert_array_equal(got, same)


@DTYPES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "case",
    sized(["winograd", "winograd, dilated", "depthwise 3 x 3", "direct", "direct, not padded", "few pixels"], [])
    + [
        "depthwise, small planes",
        "depthwise, steps over the kernel",
        "several tiles",
        "3d",
        "depthwise, tall",
        "one tap",
        "one tap, strided",
        "direct 1 x 1",
    ],
)
def test_nan_and_inf_go_where_they_belong(dtype, bad, case):
    for poisoned, place in enumerate((163, 5, 170)):  # read by the first tile where it is longer than the second
        x, w, dy, args = setup(CASES[case], dtype)
        (x, w, dy)[poisoned].reshape(-1)[place] = bad
        for ways, expected in zip(every_way(x, w, dy, args), naive(x, w, dy, *args), strict=True):
            for got in ways:
                np.testing.assert_allclose(got, expected, 1e-4, 1e-4)


@pytest.mark.parametrize("case", SAME)
def test_plans_are_data_and_always_the_same(case):
    x, w, dy, args = setup(CASES[case], "float32")
    where, sizes = parameters(args), [{}, {"size": x.shape[2:]}, {"size": w.shape[2:]}]
    lists = conv_cpu.FORWARD, conv_cpu.INPUT_GRAD, conv_cpu.WEIGHT_GRAD
    for ways, ins, size in zip(lists, ([x, w], [dy, w], [x, dy]), sizes, strict=True):
        plans, again = (dict(applying(ways, ins, **where, **size)) for _ in range(2))
        assert plans == again and "reference" in plans
        for plan in plans.values():
            assert plan_text.read(plan_text.text(plan)) == plan


def test_weight_grad_sums_a_large_batch_in_float64():
    x = np.full((5000, 1, 1, 1, 4), 1.1, np.float32)
    dy, dw = np.full((5000, 1, 1, 1, 4), 1.3, np.float32), np.empty((1, 1, 1, 1, 1), np.float32)
    where = parameters(((1, 1, 1), (0, 0, 0), (1, 1, 1), 1))
    dw = made(dict(applying(conv_cpu.WEIGHT_GRAD, [x, dy], size=(1, 1, 1), **where))["gather"], [x, dy], dw)
    np.testing.assert_allclose(dw.item(), 20000 * float(x[0, 0, 0, 0, 0]) * float(dy[0, 0, 0, 0, 0]), rtol=2e-7)


@compiled_only
@DTYPES
@pytest.mark.parametrize("case", SAME)
def test_the_number_of_threads_does_not_change_a_bit(case, dtype, monkeypatch):
    results = []
    for n in (1, 2, 3):
        h.on_workers(monkeypatch, n)
        results.append([way for ways in every_way(*setup(CASES[case], dtype)) for way in ways])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("winograd")])
def test_winograd_is_chosen_and_errs_little(case):
    x, w, dy, args = setup(CASES[case], "float32")
    assert chosen(conv_cpu.FORWARD, [x, w], **parameters(args))[0] == "winograd"
    for got, expected in zip(run(x, w, dy, args), naive(x, w, dy, *args), strict=True):
        assert abs(got - expected).max() < 1e-5 * abs(expected).max()  # a tenth of what is allowed


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("direct")])
def test_direct_pays(case):
    x, w, dy, args = setup(CASES[case], "float32")
    where = parameters(args)
    assert "direct" in dict(paying(conv_cpu.FORWARD, [x, w], **where))
    plain = max(where["stride"]) == 1
    assert ("direct" in dict(paying(conv_cpu.INPUT_GRAD, [dy, w], size=x.shape[2:], **where))) == plain
    assert "direct" in dict(paying(conv_cpu.WEIGHT_GRAD, [x, dy], size=w.shape[2:], **where))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(TURNED)])
def test_channels_and_few_pixels_are_chosen(case, dtype):
    x, w, dy, args = setup(CASES[case], dtype)
    where, name = parameters(args), "few" if case.startswith("few") else "channels"
    assert chosen(conv_cpu.FORWARD, [x, w], **where)[0] == name
    assert chosen(conv_cpu.WEIGHT_GRAD, [x, dy], size=w.shape[2:], **where)[0] == name
    if dy.shape[1] == x.shape[1] or name == "few":
        assert chosen(conv_cpu.INPUT_GRAD, [dy, w], size=x.shape[2:], **where)[0] == name


@pytest.mark.parametrize("channels, side, dilation, pays", [
    (16, 28, 1, False), (64, 28, 1, True), (64, 28, 3, False), (128, 28, 2, True), (64, 9, 1, False), (128, 9, 1, True),
])  # fmt: skip
def test_winograd_is_chosen_where_its_transforms_pay(channels, side, dilation, pays, monkeypatch):
    monkeypatch.undo()
    x, w = np.empty((8, channels, side, side), np.float32), np.empty((channels, channels, 3, 3), np.float32)
    where = parameters(((1, 1), (dilation,) * 2, (dilation,) * 2, 1))
    for ways, ins, size in ((conv_cpu.FORWARD, [x, w], {}), (conv_cpu.INPUT_GRAD, [x, w], {"size": (side, side)})):
        assert (chosen(ways, ins, **where, **size)[0] == "winograd") == pays


def test_direct_weight_gradients_are_sums_in_float64():
    """Of images: thousands of them, all alike, err by no more than one does."""
    x, w, dy, args = setup(((1, 2, 6, 7), 5, (3, 3), (1, 1), (1, 1), (1, 1), 1), "float32")
    count = sized(5000, 50)
    many = [np.repeat(a, count, 0) for a in (x, dy)]
    plans = dict(applying(conv_cpu.WEIGHT_GRAD, many, size=w.shape[2:], **parameters(args)))
    expected = count * naive(x, w, dy, *args)[2]
    np.testing.assert_allclose(made(plans["direct"], many, w), expected, 2e-7, 5e-7 * abs(expected).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("many", [RUN_PRODUCTS - 1, RUN_PRODUCTS, RUN_PRODUCTS + 1, 2 * RUN_PRODUCTS])
@pytest.mark.parametrize("taps, stride", [(1, 1), (1, 2), ("all", 1), (3, 1), (3, 2)])
def test_sums_around_the_end_of_a_run(many, taps, stride, dtype):
    """One tap of many channels, many taps of one channel, and three taps, whose runs end elsewhere."""
    channels, taps = (1, many) if taps == "all" else (many, taps)
    rng = np.random.default_rng(many)
    w = rng.standard_normal((5, channels, taps))
    x = rng.standard_normal((2, channels, taps + 6))
    windows = np.lib.stride_tricks.sliding_window_view(x, taps, 2)[:, :, ::stride]  # (N, C, O, taps)
    right = np.einsum("ncot,kct->nko", windows, w)
    atol = 2e-6 if dtype == "float32" else 1e-13
    dy = rng.standard_normal(right.shape)
    xs, ws = (fn.tensor(a.astype(dtype)).requires_grad_() for a in (x, w))
    y = F.conv1d(xs, ws, stride=stride)
    y.backward(fn.tensor(dy.astype(dtype)))
    dx = np.zeros_like(x)
    for o in range(right.shape[2]):
        dx[:, :, o * stride : o * stride + taps] += np.einsum("nk,kct->nct", dy[:, :, o], w)
    dw = np.einsum("ncot,nko->kct", windows, dy)
    for found, expected in ((y.detach(), right), (xs.grad, dx), (ws.grad, dw)):
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol * np.abs(expected).max())
