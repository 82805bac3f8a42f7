"""Profile LeNet's training step, eager and compiled: tables, a trace for https://ui.perfetto.dev, and a roofline picture.

The step runs a few times before it is recorded, so that nothing is compiled or loaded inside the profile.

    python examples/profile_lenet.py --batch 64 --out runs/profile_lenet
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import nn, optim


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling, for 1 x 32 x 32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: fn.Tensor) -> fn.Tensor:
        x = fn.flatten(self.features(x), 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def training_step(batch: int) -> Callable[[], Any]:
    """One step on random images, the same ones every time."""
    fn.manual_seed(0)
    model = LeNet()
    opt = optim.AdamW(model.parameters(), lr=1e-3)
    x, target = fn.randn(batch, 1, 32, 32), fn.randint(0, 10, (batch,))

    def step() -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        opt.step()
        return loss

    return step


def profiled(step: Callable[[], Any], warm: int, steps: int) -> Any:
    """The profile of some steps, after some that are not recorded."""
    for _ in range(warm):
        step()
    with fn.profiler.profile() as prof:
        for _ in range(steps):
            step()
    return prof


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Profile both ways, print the tables, write traces and pictures; the profiles by name."""
    args.out.mkdir(parents=True, exist_ok=True)
    print(fn.profiler.machine_limits())
    step = training_step(args.batch)
    profiles = {}
    for name, way in (("eager", step), ("jit", fn.jit(step))):
        prof = profiles[name] = profiled(way, args.warm, args.steps)
        print(f"\n==== {name}: {prof.seconds / args.steps * 1e3:.3f} ms a step, {len(prof.events)} events\n")
        print(prof.table(sort_by="time", limit=args.limit))
        print(f"\n---- {name}, by module\n")
        print(prof.table(sort_by="time", limit=args.limit, by="path", kind="operation"))
        prof.export_chrome_trace(args.out / f"trace_{name}.json")
        prof.plot(args.out / f"roofline_{name}.png")
    print(f"\ntraces and pictures are in {args.out}")
    return profiles


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--warm", type=int, default=5, help="steps before recording")
    parser.add_argument("--steps", type=int, default=20, help="steps to record")
    parser.add_argument("--limit", type=int, default=15, help="lines of a table")
    parser.add_argument("--out", type=Path, default=Path("runs/profile_lenet"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(parse())
