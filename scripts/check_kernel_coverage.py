"""Kernel coverage: how many lines of the CPU kernels their tests reach, with kernels run as plain Python.

Runs ``tests/kernels`` under coverage with ``NUMBA_DISABLE_JIT=1``, prints a table of the files, and exits with 1 when
a test fails or a file stays below 95 %. What writes LLVM IR does not count (``[tool.coverage.report]`` in pyproject.toml),
nor do files of the families that declare no kernel: they launch kernels, and tests of operations reach them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "funcnn" / "kernels" / "cpu"
LEAST = 95.0
DECLARES = re.compile(r"^from funcnn\.kernels\.cpu\.build\.compile import", re.MULTILINE)


def measure(data: str) -> int:
    """Run the tests, the lines that they reach noted in the file ``data``; pytest's exit status."""
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "COVERAGE_FILE": data}
    run = ["run", "--source=funcnn/kernels/cpu", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels"]
    return subprocess.run([sys.executable, "-m", "coverage", *run], cwd=ROOT, env=env, check=False).returncode


def counts(path: Path) -> bool:
    """Whether a file counts: in the families' folders only what declares kernels; the rest plans, cuts and launches them."""
    folder, *within = path.relative_to(KERNELS).parts
    if within == ["declared.py"]:  # plans kernels of users; tests of fn.primitive reach it
        return False
    return not within or folder in ("build", "threads") or bool(DECLARES.search(path.read_text()))


def table(data: str) -> list[tuple[str, int, list[int]]]:
    """For each kernel file: its name, its lines that count, and those that no test reached."""
    from coverage import Coverage

    found = Coverage(data_file=data, config_file=str(ROOT / "pyproject.toml"))
    found.load()
    rows = []
    for path in sorted(KERNELS.rglob("*.py")):
        name = path.relative_to(KERNELS).as_posix()
        if not counts(path):
            continue
        _, counted, _, missed, _ = found.analysis2(str(path))
        rows.append((name, len(counted), missed))
    return rows


def share(counted: int, missed: int) -> float:
    """The percentage of lines that were reached; of none, all."""
    return 100.0 * (counted - missed) / counted if counted else 100.0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        status = measure(folder + "/data")
        rows = table(folder + "/data")
    print(f"{'kernel file':32}{'lines':>7}{'missed':>8}{'reached':>9}")
    for name, counted, missed in rows:
        reached = share(counted, len(missed))
        where = " ".join(map(str, missed)) if reached < LEAST else ""
        print(f"{name:32}{counted:7}{len(missed):8}{reached:8.1f}%  {where}".rstrip())
    counted, missed = sum(row[1] for row in rows), sum(len(row[2]) for row in rows)
    print(f"{'all':32}{counted:7}{missed:8}{share(counted, missed):8.1f}%")
    low = [name for name, counted, missed in rows if share(counted, len(missed)) < LEAST]
    print(f"below {LEAST} %: {', '.join(low)}" if low else f"every file reaches {LEAST} %")
    sys.exit(bool(status or low))
