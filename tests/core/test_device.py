"""Devices: who computes where, what is refused, and that no rule touches the numbers of a value."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn import optim
from funcnn.compiler.ir import ProgramError
from funcnn.compiler.passes.constants import constants
from funcnn.compiler.text import loaded, parse, show
from funcnn.compiler.verify import verify
from funcnn.core import primitive
from funcnn.core.aval import Aval, is_concrete
from funcnn.core.device import stand_in
from funcnn.core.errors import DeviceError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.kernels.implementation import host
from funcnn.kernels.refusal import Refused, number, word
from funcnn.testing import engine
from funcnn.transforms.grad import vjp
from funcnn.transforms.vmap import vmap
from tests import helpers as h
from tests import second_device as second
from tests.cases import TABLE
from tests.cases.case import Case
from tests.transforms.test_jit_checks import REFUSED

MADE = ("tensor", "zeros", "ones", "full", "empty", "arange", "eye", "linspace", "logspace", "as_tensor")

# Rows that cannot be without numbers, with the reason.
NEED_NUMBERS = {
    "getitem_mask": "a mask selects as many elements as it holds",
    "masked_select": "a mask selects as many elements as it holds",
    "nonzero": "the size of the result depends on the numbers",
}
ON_THE_HOST = {
    "isclose": "the row adds an array of its own, which is on the host",
    "running_statistics": "the row has arrays of its own, which are on the host",
}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        second.install(made)
        yield made


@pytest.fixture
def remote(patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second device, and all that a row or a helper makes of data made there."""
    for module in (h, engine):
        monkeypatch.setattr(module, "boxes", second.boxes)
    monkeypatch.setattr(engine, "as_tensor", second.box)
    for name in MADE:
        monkeypatch.setattr(fn, name, partial(getattr(fn, name), device=second.NAME))
    second.touches.clear()


def types(result: Any) -> list[tuple]:
    return [(t._v.shape, t._v.dtype) for t in h.outputs(result)]


def on_device(result: Any) -> list[tuple]:
    assert {t.device for t in h.outputs(result)} <= {second.NAME}
    return types(result)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
@pytest.mark.filterwarnings("ignore")
def test_no_rule_touches_memory(row: Case, remote: None) -> None:
    arrays = h.inputs(row)
    if row.id in NEED_NUMBERS or row.id in ON_THE_HOST:
        words = (
            "numbers are not on the host"
            if row.id in NEED_NUMBERS
            else "expected operands on one device, got 'fake' and 'cpu'"
        )
        with pytest.raises(DeviceError, match=words):
            row.fn(*second.boxes(arrays))
        assert not second.touches
        return
    on_device(row.fn(*second.boxes(arrays)))
    if row.vmap and arrays:
        on_device(vmap(row.fn)(*second.boxes([np.stack([array, array]) for array in arrays])))
    if row.grad:
        f, floats = h.differentiable(row, arrays)
        weights = h.cotangents(f, floats)
        pulled = vjp(f, *second.boxes(floats))[1](tuple(second.boxes(weights)))
        assert on_device(pulled) == [(x.shape, x.dtype) for x in floats]
        if row.second:
            scalar, at = h.second_order(f, floats)
            pulled = vjp(scalar, *second.boxes(at))[1](second.box(np.ones(())))
            assert on_device(pulled) == [(x.shape, x.dtype) for x in at]
    for dtype in row.dtypes:
        on_device(row.fn(*second.boxes(h.inputs(row, dtype))))
    assert not second.touches


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("make", [
    lambda w: optim.SGD(w, lr=0.1), lambda w: optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda w: optim.Adam(w, lr=0.1, amsgrad=True), lambda w: optim.AdamW(w, lr=0.1),
])  # fmt: skip
def test_optimizers_step_on_the_device(make: Any, dtype: str, patch: pytest.MonkeyPatch) -> None:
    w = second.box(np.ones((3, 4), dtype)).requires_grad_()
    memory = w._v.handle
    steps = make([w])
    for _ in range(2):
        steps.zero_grad()
        (w * w).sum().backward()
        steps.step()
    assert w.device == "fake" and w.dtype == dtype and w._v.handle is memory
    assert {t.device for t in steps.state[w].values() if isinstance(t, fn.Tensor)} <= {"fake"}
    assert not second.touches


def test_nobody_takes_an_array_for_what_is_not_traced() -> None:
    asked = []
    for path in Path(fn.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                what, kind = map(ast.unparse, node.args)
                if what.endswith("._v") and "ndarray" in kind:
                    asked.append(f"{path.name}:{node.lineno}")
    assert not asked, f"is_concrete(value) asks whether it is traced, on whatever device: {', '.join(asked)}"


# ---- where things are ---------------------------------------------------------------------------------------------------
def test_a_tensor_says_where_it_is(patch: pytest.MonkeyPatch) -> None:
    x, y = fn.ones(2, 3), second.box(np.ones((2, 3)))
    assert x.device == "cpu" == x.device.type and repr(x.device) == "device(type='cpu')" and x.to("cpu") is x is x.cpu()
    assert y.device == "fake" and (y + 1).device == "fake" and y.T.device == "fake" and y.new_zeros(2).device == "fake"
    for made in (fn.zeros(2, device="fake"), fn.full((2,), 3.0, device=y.device), fn.arange(3, device="fake"),
                 fn.eye(2, device=fn.device("fake")), fn.ones_like(y), fn.tensor([1.0], device="fake"), x.to("fake"), x.to(y)):  # fmt: skip
        assert made.device == "fake" and type(made._v) is second.Remote
    assert fn.zeros_like(y, device="cpu").device == "cpu" and Aval((), np.dtype(bool)).device == "cpu"
    assert is_concrete(y._v) and is_concrete(x._v)


def test_tracers_are_where_their_values_are(patch: pytest.MonkeyPatch) -> None:
    seen = []

    def f(x: Any) -> Any:
        seen.append((x.device, is_concrete(x._v)))
        return (x * fn.ones(3, device=x.device)).sum()

    x = second.box(np.ones((2, 3)))
    assert fn.grad(f)(x[0]).device == "fake" and vmap(f)(x).device == "fake" and vmap(fn.grad(f))(x).device == "fake"
    assert set(seen) == {("fake", False)}


def test_operands_on_two_devices_are_refused(patch: pytest.MonkeyPatch) -> None:
    x, y = fn.ones(3), second.box(np.ones(3))
    match = r"add: expected operands on one device, got 'cpu' and 'fake' \(cpu, fake in turn\); move one with .to"
    with pytest.raises(DeviceError, match=match):
        x + y
    with pytest.raises(DeviceError, match="add: expected operands on one device"):
        vmap(lambda a, b: a + b)(x, y)
    with pytest.raises(DeviceError, match="in place"):
        y.data.copy_(x)
    with pytest.raises(DeviceError, match="device 'tpu' is not available; tensors live on 'cpu' and 'fake'"):
        x.to(device="tpu")


def test_what_has_nothing_for_a_device_is_refused_by_name(patch: pytest.MonkeyPatch) -> None:
    lonely = Primitive("lonely", lambda x: (x,), cpu=lambda ins, outs: np.copyto(outs[0], ins[0]))
    with pytest.raises(DeviceError, match="lonely: no implementation for device 'fake', only for 'cpu'"):
        lonely(second.box(np.ones(3)))
    np.testing.assert_array_equal(lonely(fn.ones(3)).numpy(), np.ones(3))


def test_numbers_are_asked_of_the_device_by_name(patch: pytest.MonkeyPatch) -> None:
    x = second.box(np.ones(3))
    for read in (lambda: x.numpy(), lambda: np.asarray(x), lambda: x.data_ptr(), lambda: fn.nonzero(x)):
        with pytest.raises(DeviceError, match="on 'fake', whose numbers are not on the host"):
            read()
    assert not second.touches
    for copied in (lambda: x[0].item(), lambda: bool(x[0]), lambda: x.tolist(), lambda: repr(x), lambda: x.cpu()):
        with pytest.raises(second.Touched, match="copy_out"):
            copied()
    second.touches.clear()


# ---- memory -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("view", [
    lambda x: x[1], lambda x: x[:, ::2], lambda x: x.T, lambda x: x.reshape(4, 3), lambda x: x.flip(0).T[1:],
    lambda x: x[None].expand(2, 3, 4), lambda x: x.unfold(1, 2, 1), lambda x: x.diagonal(), lambda x: x.detach()[2:, 1:],
])  # fmt: skip
def test_views_share_memory_at_the_right_place(view: Any, patch: pytest.MonkeyPatch) -> None:
    array = np.arange(12.0).reshape(3, 4)
    here, there = fn.tensor(array), second.box(array)
    expected, got = view(here)._v, view(there)._v
    offset = expected.__array_interface__["data"][0] - here._v.__array_interface__["data"][0]
    shares = np.may_share_memory(expected, here._v)
    assert (got.shape, got.strides, got.dtype) == (expected.shape, expected.strides, expected.dtype)
    assert (got.handle is there._v.handle) == shares and (not shares or got.offset == offset)
    assert view(there).is_contiguous() == view(here).is_contiguous() and view(there).stride() == view(here).stride()


def test_writes_reach_the_memory_of_the_device(patch: pytest.MonkeyPatch) -> None:
    x = second.box(np.ones((3, 4)))
    row, value = x[1], x._v
    row.mul_(2.0)
    x.add_(second.box(np.ones(4)))
    x[:, 0] = 5.0
    assert x._v is value and row._v.handle is value.handle
    with pytest.raises(ShapeError, match="read-only"):
        x[None].expand(2, 3, 4).add_(1.0)
    w = second.box(np.ones((3, 4))).requires_grad_()
    (w * w).sum().backward()
    assert w.grad.device == "fake" and w.grad.shape == (3, 4)
    assert not second.touches


def test_a_stand_in_lies_as_the_value_does() -> None:
    for array in (np.ones((3, 4)).T, np.ones(5)[::-2], np.ones((0, 3)), np.broadcast_to(np.ones(3), (2, 3))):
        seen = stand_in(array.shape, array.strides, array.dtype)
        assert (seen.shape, seen.strides, seen.dtype) == (array.shape, array.strides, array.dtype)


# ---- refusals -----------------------------------------------------------------------------------------------------------
def refusal_of(name: str) -> tuple[Primitive, list, dict, Refused, str]:
    """The primitive, its arrays and parameters, what is refused, and the host's message."""
    f, arrays = REFUSED[name]
    told: list[tuple] = []
    make = primitive.refused

    def watch(prim: Primitive, refusal: Refused, values: list, params: dict) -> Exception:
        told.append((prim, values, params, refusal))
        return make(prim, refusal, values, params)

    with pytest.MonkeyPatch.context() as once:
        once.setattr(primitive, "refused", watch)
        with pytest.raises((IndexError, ValueError, ZeroDivisionError)) as raised:
            f(*[fn.tensor(array) for array in arrays])
    prim, values, params, found = told[-1]
    return prim, values, params, found, str(raised.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_refuses_on_a_device_in_the_words_of_the_host(name: str, patch: pytest.MonkeyPatch) -> None:
    prim, values, params, found, message = refusal_of(name)
    assert prim.name == name and prim.refuse is not None and prim.check is None

    def refusing(ins: list, outs: list, **params: Any) -> None:
        raise Refused(found.meaning, found.words)

    assert len(found.words) == 4 and all(type(one) is int for one in found.words)
    with pytest.MonkeyPatch.context() as once:
        once.setitem(prim.on, second.NAME, (host("refusing", refusing, "it refuses"),))
        with pytest.raises((IndexError, ValueError, ZeroDivisionError)) as raised:
            prim(*second.boxes(values), **params)
    if name != "multinomial":  # whose message shows a row, where it can be read
        assert str(raised.value) == message
    assert "expected" in message or str(raised.value) == message
    assert not second.touches


def test_words_hold_integers_and_floats() -> None:
    for value in (np.int64(-3), np.uint8(200), np.float32(0.1), np.float64(-1.5), np.float32("inf")):
        assert number((1, 0, 0, word(value)), value.dtype) == value and type(word(value)) is int


# ---- programs -----------------------------------------------------------------------------------------------------------
TEXT = """
program(%0:float32[3] on fake) {
  %1:float32[3] on fake = full() [shape=(3,), value=1.0, dtype=float32, device='fake']
  %2:float32[3] on fake = add(%0, %1)
  return %2
}
"""


def test_a_program_says_where_its_values_are(patch: pytest.MonkeyPatch) -> None:
    program = parse(TEXT, loaded())
    assert verify(program) is program and parse(show(program), loaded()) == program
    assert [var.device for eq in program.equations for var in eq.outs] == ["fake", "fake"] and constants(
        program
    ) == program
    with pytest.raises(ProgramError, match="%2 is on 'cpu', but it is computed on 'fake'"):
        verify(parse(TEXT.replace("%2:float32[3] on fake", "%2:float32[3]"), loaded()))
    with pytest.raises(DeviceError, match="expected operands on one device"):
        verify(parse(TEXT.replace("%0:float32[3] on fake", "%0:float32[3]"), loaded()))


def test_a_trace_is_stamped_and_what_cannot_be_run_is_refused(patch: pytest.MonkeyPatch) -> None:
    def traced() -> Any:
        made = fn.zeros(3, device="fake")
        assert made.device == "fake" and (made * 2.0 + 1).device == "fake" and fn.zeros(3).device == "cpu"
        return made + fn.zeros(3)

    with pytest.raises(DeviceError, match="add: expected operands on one device"):
        fn.jit(traced)()
    with pytest.raises(DeviceError, match="jit: a program with values on 'fake' cannot be run here"):
        fn.jit(lambda t: (t, fn.zeros(3, device="fake")))(fn.ones(3))
