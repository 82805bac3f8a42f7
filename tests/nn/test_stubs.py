"""The stub that editors read says what the code says."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from funcnn import nn
from funcnn.layers import GENERATED

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_stub_is_what_the_layers_generate() -> None:
    spec = importlib.util.spec_from_file_location("generate_stubs", ROOT / "scripts" / "generate_stubs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "funcnn" / "nn" / "__init__.pyi").read_text() == script.stub()


def test_the_stub_names_everything_that_is_public() -> None:
    tree = ast.parse((ROOT / "funcnn" / "nn" / "__init__.pyi").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert classes == {layer.__name__ for layer in GENERATED}
    assert set(nn.__all__) <= classes | imported
