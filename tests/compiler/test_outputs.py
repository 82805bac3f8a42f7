"""What nobody reads is not made in inference: places of maxima, and what operations keep for their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn
from funcnn.compiler.ir import Program


def normal(*shape: int) -> fn.Tensor:
    return fn.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def layer(make: Callable, *more: Any) -> Callable:
    """A recurrent layer as a function of its input."""
    fn.manual_seed(0)
    return lambda x, made=make(3, 5, *more): made(x)


SAMPLES = fn.tensor(np.full((2, 3, 2), 0.3, np.float32))
# What runs, on what, the primitive, how many of its outputs are left, and how many there are where a gradient is taken.
CASES: dict[str, tuple] = {
    "adaptive_max_pool, planes": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), normal(2, 3, 4, 6), "adaptive_max_pool", 1, 2),
    "adaptive_max_pool, windows": (lambda x: F.adaptive_max_pool2d(x, (2, 7)), normal(1, 1, 41, 83), "adaptive_max_pool", 1, 2),
    "fractional_max_pool": (
        lambda x: F.fractional_max_pool2d(x, 2, (3, 4), _random_samples=SAMPLES), normal(2, 3, 7, 9), "fractional_max_pool", 1, 2,
    ),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), normal(2, 5, 7), "local_response_norm", 1, 2),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x), normal(2, 3, 5, 4), "scaled_dot_product_attention", 1, 2,
    ),
    "attention without keys": (
        lambda x: F.scaled_dot_product_attention(x, x[..., :0, :], x[..., :0, :]), normal(2, 3, 5, 4),
        "scaled_dot_product_attention", 1, 2,
    ),
    "lstm": (lambda x, run=layer(nn.LSTM): run(x)[0], normal(6, 2, 3), "lstm", 3, 5),
    "lstm of one step": (lambda x, run=layer(nn.LSTM): run(x)[0], normal(1, 2, 3), "lstm", 3, 5),
    "lstm's last cells": (lambda x, run=layer(nn.LSTM): run(x)[1][1], normal(5, 2, 3), "lstm", 3, 5),
    "gru": (lambda x, run=layer(nn.GRU): run(x)[0], normal(6, 2, 3), "gru", 2, 4),
    "rnn": (lambda x, run=layer(nn.RNN): run(x)[0], normal(6, 2, 3), "rnn", 2, 2),
}  # fmt: skip


def outputs(step: Any, prim: str) -> list[int]:
    """How many outputs each equation of a primitive has."""
    program: Program = next(iter(step.steps.values()))[0].program
    return [len(eq.outs) for eq in program.equations if eq.prim.name == prim]


@pytest.mark.parametrize("name", CASES)
def test_inference_makes_what_is_read(name: str) -> None:
    run, x, prim, left, _ = CASES[name]
    with fn.no_grad():
        step = fn.jit(run)
        made = [step(x).numpy() for _ in range(2)]
        assert outputs(step, prim) == [left]
        for one in made:
            np.testing.assert_array_equal(one, run(x).numpy())


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_has_what_it_reads(name: str) -> None:
    run, x, prim, _, whole = CASES[name]
    with fn.no_grad():
        slope = fn.grad(lambda t: (run(t) * run(t)).sum())
        step = fn.jit(slope)
        np.testing.assert_allclose(step(x).numpy(), slope(x).numpy(), rtol=1e-5, atol=1e-6)
    assert set(outputs(step, prim)) == {whole}


def test_both_directions_and_many_models_of_a_recurrence() -> None:
    fn.manual_seed(1)
    for make in (nn.LSTM, nn.GRU):
        both, x = make(3, 5, 2, bidirectional=True), normal(7, 2, 3)
        with fn.no_grad():
            np.testing.assert_array_equal(fn.jit(lambda x, both=both: both(x)[0])(x).numpy(), both(x)[0].numpy())
    w_ih, w, b = normal(4, 20, 3), normal(4, 20, 5), normal(4, 20)
    models = fn.vmap(
        lambda x, w_ih, w, b: fn.lstm_cell(x, (x[:, :1].expand(2, 5), x[:, 1:2].expand(2, 5)), w_ih, w, b, b)[0]
    )
    given = normal(4, 2, 3), w_ih, w, b
    np.testing.assert_array_equal(fn.jit(models)(*given).numpy(), models(*given).numpy())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_a_wide_recurrence_on_several_threads(make: Any, threads: int) -> None:
    fn.manual_seed(2)
    run, x = make(40, 130), normal(9, 33, 40)
    before = fn.get_num_threads()
    fn.set_num_threads(threads)
    try:
        with fn.no_grad():
            for got, want in zip(fn.jit(lambda x: run(x)[0])(x).numpy(), run(x)[0].numpy(), strict=True):
                np.testing.assert_array_equal(got, want)
    finally:
        fn.set_num_threads(before)
