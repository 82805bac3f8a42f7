"""The stub that editors read says what the code says."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import funcnn as fn
from funcnn import nn
from funcnn.layers import GENERATED

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_stub_is_what_the_layers_generate() -> None:
    assert (ROOT / "funcnn" / "nn" / "__init__.pyi").read_text() == script().stub()


def script() -> Any:
    """scripts/generate_stubs.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_stubs", ROOT / "scripts" / "generate_stubs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_the_stub_of_tensor_is_what_its_methods_are() -> None:
    assert (ROOT / "funcnn" / "core" / "tensor.pyi").read_text() == script().tensor_stub()


def test_the_stub_of_tensor_names_every_attribute() -> None:
    tree = ast.parse((ROOT / "funcnn" / "core" / "tensor.pyi").read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Tensor")
    functions = {node.name for node in found.body if isinstance(node, ast.FunctionDef)}
    declared = {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    implicit = {"__annotations__", "__dict__", "__doc__", "__module__", "__weakref__"}
    assert functions | declared >= set(vars(fn.Tensor)) - implicit


def test_the_stub_names_everything_that_is_public() -> None:
    tree = ast.parse((ROOT / "funcnn" / "nn" / "__init__.pyi").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert classes == {layer.__name__ for layer in GENERATED}
    assert set(nn.__all__) <= classes | imported
