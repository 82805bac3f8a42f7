"""The README's Python runs as written, in order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import funcnn as fn
from funcnn.kernels.cpu.threads import number as threads

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    rng = np.random.default_rng(0)
    x, target = fn.tensor(rng.normal(size=(4, 1, 28, 28)).astype(np.float32)), fn.tensor(rng.integers(0, 10, 4))

    exec(blocks[0], names)
    held = [names["params"], names["state"], names["opt_state"]]
    losses = []
    for _ in range(5):
        *held, loss = names["step"](*held, x, target)
        losses.append(float(loss))
    assert losses[-1] < losses[0]

    def loss_of_one(params, x, target):
        logits, _ = names["layer"](params, names["state"], x[None])
        return fn.nn.functional.cross_entropy(logits[0], target)

    names["loss_of_one"] = loss_of_one
    exec(blocks[1], names)
    before = float(names["train_step"](x, target))
    assert float(names["train_step"](x, target)) < before
    grads = names["per_example"](names["params"], x, target)
    assert tuple(grads["0"]["weight"].shape) == (4, 6, 1, 5, 5)

    exec(blocks[2], names)
    assert fn.grad(lambda x: names["cube"](x).sum())(fn.tensor([1.0, 2.0])).tolist() == [3.0, 12.0]

    names.update(x=x, target=target)
    monkeypatch.setattr(threads, "_chosen", 0)
    exec(blocks[4], names)
    assert fn.get_num_threads() == min(2, threads.available()) and fn.memory_stats()["cached_bytes"] == 0

    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    exec(blocks[3], names)
    assert {path.name for path in tmp_path.iterdir()} == {"trace.json", "roofline.png"}
