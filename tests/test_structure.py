"""The house rules that scripts check: sizes and the direction of imports; and that the checks can fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_go_downward() -> None:
    assert _script("check_imports").check(ROOT / "funcnn") == []


def test_files_and_functions_are_within_budget() -> None:
    assert _script("check_sizes").check(ROOT / "funcnn")[1] == []


def _package(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "funcnn" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "funcnn"


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    package = _package(tmp_path, core__a="def f():\n    from funcnn.ops import b\n", ops__b="")
    (package / "ops" / "__init__.py").write_text("")
    found = _script("check_imports").check(package)
    assert any("funcnn.core.a imports funcnn.ops" in line for line in found)


def test_a_cycle_is_found_and_a_type_checking_import_is_free(tmp_path: Path) -> None:
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from funcnn.nn import z\n"
    package = _package(
        tmp_path,
        ops__a="from funcnn.ops.b import x\n",
        ops__b="from funcnn.ops.a import y\n",
        core__c=guarded,
        nn__z="",
    )
    found = _script("check_imports").check(package)
    assert found == ["import cycle: funcnn.ops.a -> funcnn.ops.b -> funcnn.ops.a"]


def test_an_import_inside_a_function_is_found_and_counts_for_cycles(tmp_path: Path) -> None:
    late = "def f():\n    import numpy\n    from funcnn.ops import b\n"
    found = _script("check_imports").check(_package(tmp_path, ops__a=late, ops__b="from funcnn.ops.a import f\n"))
    assert found == [
        "funcnn.ops.a imports funcnn.ops.b inside a function",
        "import cycle: funcnn.ops.a -> funcnn.ops.b -> funcnn.ops.a",
    ]


def test_a_long_function_is_found_unless_a_reason_stands_above(tmp_path: Path) -> None:
    body = "def f():\n" + "    x = 1\n" * 50
    package = _package(tmp_path, ops__long=body, ops__told=f'"""Why.\n\nSize: a table.\n"""\n{body}')
    total, over = _script("check_sizes").check(package)
    assert total > 100 and over == ["ops/long.py: f has 51 lines, budget 40"]


def test_kernel_coverage_counts_what_declares_kernels_and_what_builds_them() -> None:
    coverage = _script("check_kernel_coverage")
    counted = {p.relative_to(coverage.KERNELS).as_posix() for p in coverage.KERNELS.rglob("*.py") if coverage.counts(p)}
    assert {"softmax/softmax.py", "build/cache.py", "threads/pool.py", "memory.py"} <= counted
    assert not [name for name in counted if "launch" in name.removeprefix("launching")]


def test_importing_the_package_starts_neither_numba_nor_a_gpu() -> None:
    names = ("numba", "torch", "cupy", "matplotlib", "sklearn", "scipy", "pathlib", "tempfile", "hashlib")
    code = f"import sys, funcnn; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
