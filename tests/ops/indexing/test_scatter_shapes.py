"""Gathering, scattering and their gradients by their kernels at many small shapes, against loops; axes of one element, too."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """An array, an index into one of its axes that covers all or a part of the others, as many elements, and the axis."""
    shape = rng.integers(1, 5, rng.integers(1, 4))
    shape[rng.integers(len(shape))] = rng.integers(1, 40)
    dim = int(rng.integers(len(shape)))
    if rng.random() < 0.5:
        shape[dim] = 1
    covered = shape if rng.random() < 0.8 else rng.integers(1, shape + 1)
    covered = np.where(np.arange(len(shape)) == dim, rng.integers(1, 6), covered)
    x, elements = rng.standard_normal(shape), rng.standard_normal(covered)
    return x, rng.integers(0, shape[dim], covered), elements, dim


def placed(index: np.ndarray, dim: int) -> list[tuple[tuple, tuple]]:
    """For each element of the index: its own place, and the one that it names."""
    return [(at, (*at[:dim], int(index[at]), *at[dim + 1 :])) for at in np.ndindex(*index.shape)]


@pytest.mark.parametrize("seed", range(4))
def test_every_element_gets_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        x, index, elements, dim = drawn(rng)
        taken, added, last, back = np.empty_like(elements), x.copy(), x.copy(), np.zeros_like(x)
        for at, there in placed(index, dim):
            taken[at] = x[there]
            added[there] += elements[at]
            last[there] = elements[at]
            back[there] += elements[at]
        leaf, where, new = fn.tensor(x, requires_grad=True), fn.tensor(index), fn.tensor(elements)
        with fn.prefer("kernel"):
            gathered = leaf.gather(dim, where)
            gathered.backward(new)
            found = gathered.detach(), fn.tensor(x).scatter_add(dim, where, new), fn.tensor(x).scatter(dim, where, new)
        for got, expected in zip((*found, leaf.grad), (taken, added, last, back), strict=True):
            np.testing.assert_allclose(got.numpy(), expected, 1e-12, 1e-12, err_msg=f"{x.shape} {index.shape} {dim}")
