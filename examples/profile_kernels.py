"""How close single kernels come to this machine's limits, and which instructions they were compiled to.

Every operation of the list runs forward and backward a few times; then come the machine's measured limits, a table, the
instructions of the kernels that ran, and a roofline picture.

    python examples/profile_kernels.py --scale 1 --out runs/profile_kernels
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import funcnn as fn
import funcnn.nn.functional as F


def cases(scale: float) -> dict[str, Callable[[], Any]]:
    """Operations by name; ``scale`` multiplies the batch sizes."""

    def leaf(n: float, *shape: int) -> fn.Tensor:
        return fn.randn(max(1, round(n)), *shape).requires_grad_()

    image, small = leaf(16 * scale, 64, 56, 56), leaf(16 * scale, 3, 64, 64)
    w3, w1, w7 = leaf(64, 64, 3, 3), leaf(128, 64, 1, 1), leaf(64, 3, 7, 7)
    rows, table = leaf(2048 * scale, 768), leaf(1000, 128)
    gain, shift = leaf(768), leaf(768)
    index = fn.randint(0, 1000, (len(rows), 4))
    return {
        "conv 3x3": lambda: F.conv2d(image, w3, padding=1),
        "conv 1x1": lambda: F.conv2d(image, w1),
        "conv 7x7, stride 2": lambda: F.conv2d(small, w7, stride=2, padding=3),
        "max pool": lambda: F.max_pool2d(image, 3, stride=2, padding=1),
        "average pool": lambda: F.avg_pool2d(image, 2),
        "layer norm": lambda: F.layer_norm(rows, (768,), gain, shift),
        "softmax": lambda: F.softmax(rows, 1),
        "gelu": lambda: F.gelu(rows),
        "embedding": lambda: F.embedding(index, table),
    }


def both_ways(case: Callable[[], Any]) -> None:
    """Forward, and backward from a cotangent of the output's own values."""
    y = case()
    y.backward(y.detach())


def run(args: argparse.Namespace) -> Any:
    """Profile every case; the profile."""
    args.out.mkdir(parents=True, exist_ok=True)
    operations = cases(args.scale)
    for case in operations.values():
        both_ways(case)
    with fn.profiler.profile() as prof:
        for case in operations.values():
            for _ in range(args.repeats):
                both_ways(case)
    print(fn.profiler.machine_limits())
    print()
    print(prof.table(sort_by="time", limit=args.limit))
    print("\n---- by efficiency\n")
    print(prof.table(sort_by="percent", limit=args.limit, kind="kernel"))
    for kernel in prof.kernels():
        print(f"\n{kernel.inspect()}")
    prof.export_chrome_trace(args.out / "trace.json")
    prof.plot(args.out / "roofline.png", limit=16)
    print(f"\ntrace and picture are in {args.out}")
    return prof


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the batch sizes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=25, help="lines of a table")
    parser.add_argument("--out", type=Path, default=Path("runs/profile_kernels"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(parse())
