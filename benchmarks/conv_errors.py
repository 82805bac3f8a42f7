"""What each implementation of convolution loses in float32: ``python -m benchmarks.conv_errors [--rows REGEX]``.

Each that applies to a shape, forward and both gradients, against the definition in float64: the largest difference as a share of
the largest number, in units of 1e-7. Numbers are normal, weights scaled by the root of the products in a sum. PyTorch's
own stand beside them where it is installed, as it computes by itself (oneDNN's direct kernels).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from benchmarks.report import number, table
from funcnn.kernels.cpu.conv.launch import lists as conv_cpu
from funcnn.kernels.cpu.launching import Runner
from funcnn.kernels.implementation import operand_of

SHAPES: dict[str, tuple] = {  # x, out channels, kernel, stride, padding, groups
    "8x64x28x28 -> 64 k3 p1": ((8, 64, 28, 28), 64, (3, 3), 1, 1, 1),
    "4x256x14x14 -> 256 k3 p1": ((4, 256, 14, 14), 256, (3, 3), 1, 1, 1),
    "4x512x7x7 -> 512 k3 p1": ((4, 512, 7, 7), 512, (3, 3), 1, 1, 1),
    "2x64x8x14x14 -> 64 k3 p1": ((2, 64, 8, 14, 14), 64, (3, 3, 3), 1, 1, 1),
    "16x128x14x14 -> 128 k3 s2 p1": ((16, 128, 14, 14), 128, (3, 3), 2, 1, 1),
    "16x32x14x14 -> 32 k5 p2": ((16, 32, 14, 14), 32, (5, 5), 1, 2, 1),
    "4x2048x7x7 -> 512 k1": ((4, 2048, 7, 7), 512, (1, 1), 1, 0, 1),
    "8x128x28x28 -> 128 k3 p1 depthwise": ((8, 128, 28, 28), 128, (3, 3), 1, 1, 128),
    "8x512x7x7 -> 512 k3 p1 depthwise": ((8, 512, 7, 7), 512, (3, 3), 1, 1, 512),
    "1x512x4x4 -> 512 k3 p1": ((1, 512, 4, 4), 512, (3, 3), 1, 1, 1),
}
WAYS = {"FORWARD": "forward", "INPUT_GRAD": "input_grad", "WEIGHT_GRAD": "weight_grad"}


def arrays(shape: tuple, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """x, w, dy and the options of a convolution."""
    size, out, kernel, stride, padding, groups = shape
    rng, fan = np.random.default_rng(seed), size[1] // groups * prod(kernel)
    pixels = [(s + 2 * padding - k) // stride + 1 for s, k in zip(size[2:], kernel, strict=True)]
    x, w, dy = (rng.standard_normal(s) for s in (size, (out, size[1] // groups, *kernel), (size[0], out, *pixels)))
    many = len(kernel)
    where = {"stride": (stride,) * many, "padding": (padding,) * many, "dilation": (1,) * many, "groups": groups}
    where["precision"] = "high"
    return x.astype(np.float32), (w / fan**0.5).astype(np.float32), dy.astype(np.float32), where


def calls(shape: tuple) -> Iterator[tuple[str, list, dict, np.ndarray]]:
    """For each of the three: its name, inputs, parameters, and what the definition gives in float64."""
    x, w, dy, where = arrays(shape)
    for name, ins, like in (("FORWARD", [x, w], dy), ("INPUT_GRAD", [dy, w], x), ("WEIGHT_GRAD", [x, dy], w)):
        params = where if name == "FORWARD" else {**where, "size": like.shape[2:]}
        wide = [array.astype(np.float64) for array in ins]
        yield name, ins, params, made(getattr(conv_cpu, name)[-1], wide, params, like.shape)


def made(implementation: Any, ins: list, params: dict, shape: tuple) -> np.ndarray | None:
    """What an implementation gives; None where it does not apply."""
    operands, out = tuple(map(operand_of, ins)), np.empty(shape, ins[0].dtype)
    plan = implementation.plan(operands, params)
    if plan is None:
        return None
    Runner(plan, operands, (operand_of(out),))(ins, [out])
    return out


def loss(got: Any, exact: np.ndarray) -> float:
    """The largest difference as a share of the largest number."""
    return float(np.abs(np.asarray(got, np.float64) - exact).max() / np.abs(exact).max())


def errors(shape: tuple) -> dict[str, dict[str, float]]:
    """``{implementation: {which of the three: error}}`` of all that apply, in their order."""
    found: dict[str, dict[str, float]] = {}
    for name, ins, params, exact in calls(shape):
        for implementation in getattr(conv_cpu, name):
            out = made(implementation, ins, params, exact.shape)
            if out is not None:
                found.setdefault(implementation.name, {})[name] = loss(out, exact)
    return found


def torch_errors(shape: tuple) -> dict[str, float]:
    """The same of PyTorch; nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    x, w, dy, where = arrays(shape)
    options = [list(where[key]) for key in ("stride", "padding", "dilation")]
    x, w, dy = map(torch.from_numpy, (x, w, dy))
    y = torch.convolution(x, w, None, *options, False, [0] * (x.dim() - 2), where["groups"])
    rest = (None, *options, False, [0] * (x.dim() - 2), where["groups"], [True, True, False])
    grads = torch.ops.aten.convolution_backward(dy, x, w, *rest)
    return {name: loss(got, exact) for got, (name, *_, exact) in zip((y, *grads), calls(shape), strict=False)}


def main(arguments: list[str] | None = None) -> str:
    """Print the table and return it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conv_errors", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", help="only shapes in which this pattern is found")
    args = parser.parse_args(arguments)
    lines = []
    for name, shape in SHAPES.items():
        if re.search(args.rows, name):
            for way, found in {**errors(shape), "PyTorch": torch_errors(shape)}.items():
                cells = (number(found[which] * 1e7, 1) if which in found else "-" for which in WAYS)
                lines.append([name, way, *cells])
    text = table(["shape", "implementation", "forward", "input gradient", "weight gradient"], lines)
    print(text)
    return text


if __name__ == "__main__":
    main()
