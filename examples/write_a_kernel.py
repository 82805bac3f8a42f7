"""An operation of your own, from the first line of its kernel to its row in the profiler.

``root_mean_square`` is the normalisation of many language models: y = w x / sqrt(mean(x^2) + eps), by rows. Its kernels are
written here, declared with ``fn.primitive``, checked, differentiated, batched, compiled, trained as a layer, and measured
beside the same formula in funcnn's operations. ``lion`` is an optimizer's step that changes its inputs in place.

    python examples/write_a_kernel.py --rows 4096 --columns 512
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import funcnn as fn
from funcnn import nn
from funcnn.kernels import device_function, kernel, parallel_for, pointer

ROWS = 16  # of a chunk: what one thread takes at a time
CHUNK = 1 << 14  # numbers of a chunk of ``lion``


# ---- forward ----------------------------------------------------------------------------------------------------------
@device_function
def normalise_rows(chunk, worker, x, w, eps, y, scale):
    """Some rows of the forward pass. ``pointer`` reads without looking at the index, as ``x[i]`` in a chunk would."""
    columns = x.shape[1]
    weight = pointer(w, 0)
    for r in range(chunk * ROWS, min((chunk + 1) * ROWS, x.shape[0])):
        row, out = pointer(x, r * columns), pointer(y, r * columns)
        total = x.dtype.type(0)
        for j in range(columns):
            total += row[j] * row[j]
        factor = x.dtype.type(1 / np.sqrt(total / columns + eps))
        scale[r] = factor
        for j in range(columns):
            out[j] = weight[j] * (row[j] * factor)


@kernel
def normalise(x, w, eps, y, scale, workers):
    """y (N, D) = w (D) x (N, D) scale (N), and scale = 1 / sqrt(mean(x^2) + eps)."""
    parallel_for(normalise_rows, (x.shape[0] + ROWS - 1) // ROWS, workers, (x, w, eps, y, scale))


# ---- backward ---------------------------------------------------------------------------------------------------------
@device_function
def normalise_rows_back(chunk, worker, dy, x, w, scale, dx, sums):
    """Some rows of dx, and what they add to dw, in a row of ``sums`` of the chunk's own: so threads share nothing."""
    columns = x.shape[1]
    weight, add = pointer(w, 0), pointer(sums, chunk * columns)
    for r in range(chunk * ROWS, min((chunk + 1) * ROWS, x.shape[0])):
        row, slope, out = pointer(x, r * columns), pointer(dy, r * columns), pointer(dx, r * columns)
        factor, total = scale[r], x.dtype.type(0)
        for j in range(columns):
            total += slope[j] * weight[j] * row[j]
        total *= factor * factor / columns
        for j in range(columns):
            add[j] += slope[j] * row[j] * factor
            out[j] = factor * (slope[j] * weight[j] - row[j] * total)


@kernel
def normalise_back(dy, x, w, scale, dx, dw, sums, workers):
    """dx, and dw as the sum over chunks in their order, which no number of threads changes."""
    chunks = (x.shape[0] + ROWS - 1) // ROWS
    parallel_for(normalise_rows_back, chunks, workers, (dy, x, w, scale, dx, sums))
    for c in range(chunks):
        for j in range(x.shape[1]):
            dw[j] += sums[c, j]


root_mean_square = fn.primitive(
    "root_mean_square",
    normalise,
    {"y": "x", "scale": lambda x: (x.shape[0], x.dtype)},
    backward=normalise_back,
    params={"eps": 1e-6},
    saved=("scale",),
    scratch={"sums": lambda x: ((-(-x.shape[0] // ROWS), x.shape[1]), x.dtype)},
    zeros=("dw", "sums"),
    fold=("x",),
    nanoseconds=0.6,
    flops=4,
)


# ---- in place ---------------------------------------------------------------------------------------------------------
@device_function
def lion_chunk(chunk, worker, p, m, g, lr, beta1, beta2):
    """Some numbers of Lion's step."""
    start = chunk * CHUNK
    a, b, c = pointer(p, start), pointer(m, start), pointer(g, start)
    for i in range(min(CHUNK, p.size - start)):
        a[i] -= lr * np.sign(beta1 * b[i] + (1 - beta1) * c[i])
        b[i] = beta2 * b[i] + (1 - beta2) * c[i]


@kernel
def lion_step(p, m, g, lr, beta1, beta2, workers):
    """Lion (arXiv:2302.06675): p and m are changed where they lie."""
    number = p.dtype.type
    parallel_for(
        lion_chunk, (p.size + CHUNK - 1) // CHUNK, workers, (p, m, g, number(lr), number(beta1), number(beta2))
    )


lion = fn.primitive(
    "lion", lion_step, overwrites=("p", "m"), params={"lr": 1e-4, "beta1": 0.9, "beta2": 0.99}, nanoseconds=0.4
)


class Lion:
    """The optimizer: a momentum for each parameter, and one call of ``lion`` for each."""

    def __init__(self, params: Any, lr: float):
        self.params, self.lr = list(params), lr
        self.momenta = [fn.zeros_like(p) for p in self.params]

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        with fn.no_grad():
            for p, m in zip(self.params, self.momenta, strict=True):
                if p.grad is not None:
                    lion(p, m, p.grad, lr=self.lr)


# ---- what becomes of them -----------------------------------------------------------------------------------------------
def composed(x: Any, w: Any) -> Any:
    """The same normalisation in funcnn's operations."""
    return w * x * fn.rsqrt((x * x).mean(1, keepdim=True) + 1e-6)


def reference(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """And in NumPy."""
    return w * x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6)


def train(rows: int, columns: int, steps: int) -> list[float]:
    """The losses of a small model with the layer and the optimizer, as one compiled step."""
    norm = nn.Custom(root_mean_square, {"w": fn.ones(columns)})
    model = nn.Sequential(nn.Linear(columns, columns), norm, nn.Linear(columns, 1))
    opt, x = Lion(model.parameters(), 1e-3), fn.randn(rows, columns)
    target = (x * x).mean(1, keepdim=True)

    @fn.jit
    def step(x: Any, target: Any) -> Any:
        for p in opt.params:
            p.grad = None
        loss = ((model(x) - target) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    return [float(step(x, target)) for _ in range(steps)]


def main(argv: list[str] | None = None) -> None:
    """Check, transform, train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    done = fn.testing.check_primitive(
        root_mean_square, (rng.normal(size=(33, 5)), rng.normal(size=5)), reference=reference
    )
    print("checked:", ", ".join(done))
    x, w = fn.randn(options.rows, options.columns), fn.ones(options.columns)
    print(fn.jit(fn.vmap(root_mean_square, in_axes=(0, None))).program(x.reshape(2, -1, options.columns), w))
    losses = train(256, 32, options.steps)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    with fn.profiler.profile() as prof:
        for f in (root_mean_square, composed):
            for _ in range(10):
                fn.grad(lambda x, w, f=f: (f(x, w) ** 2).sum(), argnums=(0, 1))(x, w)
    print(prof.table(sort_by="time", limit=12))


if __name__ == "__main__":
    main()
