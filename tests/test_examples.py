"""The examples as tests: the four ways to train LeNet agree, and a short training leaves its picture and weights."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.warmup import command

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def lenet() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lenet_digits", ROOT / "examples" / "lenet_digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lenet_digits"] = module
    spec.loader.exec_module(module)
    return module


def test_the_digits(lenet: ModuleType) -> None:
    digits = lenet.load_digits()
    assert digits.train_x.shape == (1437, 1, 32, 32) and digits.test_x.shape == (360, 1, 32, 32)
    assert digits.train_x.dtype == np.float32 and digits.train_x.min() == -1.0 and digits.train_x.max() == 1.0
    counts = np.bincount(digits.test_y, minlength=10)
    assert counts.min() >= 34 and counts.max() <= 38  # a fifth of every class


def test_enlarging_keeps_a_linear_picture_linear(lenet: ModuleType) -> None:
    ramp = np.broadcast_to(np.arange(8.0), (1, 8, 8))
    wide = lenet.enlarge(ramp, 32)
    np.testing.assert_allclose(np.diff(wide[0, 0, 2:-2]), 0.25, atol=1e-12)
    assert wide[0, 0, 0] == 0 and wide[0, 0, -1] == 7


def _weights(lenet: ModuleType, digits: Any, api: str, compiled: bool, steps: int) -> tuple[dict, list[float]]:
    trainer = (lenet.functional_trainer if api == "functional" else lenet.module_trainer)(fn.random.key(3), compiled)
    losses = []
    for step in range(steps):
        rows = slice(16 * step, 16 * (step + 1))
        loss, _ = trainer.step(fn.tensor(digits.train_x[rows]), fn.tensor(digits.train_y[rows]), 2e-3)
        losses.append(float(loss))
    return {name: w.copy() for name, w in trainer.weights().items()}, losses


def test_four_ways_give_equal_weights_after_20_steps(lenet: ModuleType) -> None:
    digits = lenet.load_digits()
    reference, losses = _weights(lenet, digits, "functional", False, 20)
    assert losses[-1] < losses[0]
    for api, compiled in (("functional", True), ("module", False), ("module", True)):
        weights, _ = _weights(lenet, digits, api, compiled, 20)
        assert list(weights) == list(reference)
        for name, w in weights.items():
            np.testing.assert_allclose(w, reference[name], rtol=0, atol=1e-5, err_msg=f"{api}, jit={compiled}: {name}")


def test_the_script_trains_and_leaves_picture_and_weights(
    lenet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from safetensors.numpy import load_file

    score, weights = lenet.run(lenet.parse(["--epochs", "2", "--quiet", "--out", str(tmp_path)]))
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r"test accuracy ([\d.]+)% on 360 held-out digits \(module, jit=True, \d+ images/s\)", last)
    assert found is not None and float(found[1]) == pytest.approx(score * 100, abs=0.01)
    assert score > 0.7
    assert (tmp_path / "lenet_digits.png").read_bytes().startswith(b"\x89PNG")
    loaded = load_file(str(tmp_path / "lenet_digits.safetensors"))
    assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in weights.items()}
    np.testing.assert_array_equal(loaded["fc3.bias"], weights["fc3.bias"])


def test_progress_into_a_file_is_a_few_lines(lenet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """90 steps, and a program of the warm-up after the other: no line for each where nobody sees the bar move."""
    lenet.run(lenet.parse(["--epochs", "2", "--batch-size", "32", "--out", str(tmp_path)]))
    bars = capsys.readouterr().err
    assert "100%" in bars and len(re.split(r"[\r\n]+", bars.strip())) <= 8
    assert len(list(command.progress([("name", "float32", 1)] * 200, 200, False))) == 200
    assert len(re.split(r"[\r\n]+", capsys.readouterr().err.strip())) <= 4


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_profiling_lenet_leaves_tables_traces_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    example = _example("profile_lenet")
    profiles = example.run(example.parse(["--batch", "2", "--warm", "1", "--steps", "2", "--out", str(tmp_path)]))
    printed = capsys.readouterr().out
    assert "==== eager" in printed and "==== jit" in printed and "features.0" in printed
    for name, prof in profiles.items():
        assert {e.direction for e in prof.events} == {"forward", "backward"}
        assert len([e for e in prof.events if e.kind == "operation" and e.name == "conv"]) == 4
        assert (tmp_path / f"roofline_{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((tmp_path / f"trace_{name}.json").read_text())["traceEvents"]


def test_profiling_kernels_shows_limits_and_instructions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    example = _example("profile_kernels")
    prof = example.run(example.parse(["--scale", "0.01", "--repeats", "1", "--out", str(tmp_path)]))
    printed = capsys.readouterr().out
    assert "multiply-add float32" in printed and "fused multiply-adds" in printed
    assert all(f"kernel {kernel.__name__}\n" in printed for kernel in prof.kernels())
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
