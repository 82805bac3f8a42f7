"""The page and the example of kernels of one's own run as written."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import funcnn as fn

ROOT = Path(__file__).resolve().parents[3]


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where cached kernels look for it
    spec.loader.exec_module(module)
    return module


def test_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "write_a_kernel.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    (tmp_path / "own_page.py").write_text("\n".join(blocks))
    page = loaded(tmp_path / "own_page.py")
    shown = capsys.readouterr().out
    assert re.search(r"^swish ", shown, flags=re.M) and "swish_forward" in shown and "= swish(%0) [beta=1.0]" in shown
    assert page.double(fn.ones(5)).tolist() == [2.0] * 5
    p, m = fn.ones(3), fn.zeros(3)
    page.lion(p, m, fn.ones(3), lr=0.5)
    assert p.tolist() == [0.5] * 3 and np.allclose(m.numpy(), 0.01)
    assert page.module(fn.ones(2)).shape == (2,)


def test_the_example_runs() -> None:
    example = loaded(ROOT / "examples" / "write_a_kernel.py")
    losses = example.train(64, 8, 8)
    assert losses[-1] < losses[0]
    x, w = fn.randn(40, 8), fn.randn(8)
    one, two = (
        fn.grad(lambda x, w: (f(x, w) ** 2).sum(), argnums=(0, 1))(x, w)
        for f in (example.root_mean_square, example.composed)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-4, 1e-4)
