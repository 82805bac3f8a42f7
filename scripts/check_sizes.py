"""Sizes: files and functions stay within the budgets of the house; a file over its budget says why on a ``Size:`` line.

Prints the package's total and what is over; exits with 1 when something is over without a reason.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FILE, FUNCTION, KERNEL = 400, 40, 80
BUDGETS = {"core": 300, "layers": 250, "transforms": 300, "compiler": 300, "kernels": 300}


def budget(path: Path, root: Path) -> int:
    """The lines a file may have."""
    floor = path.relative_to(root).parts[0]
    return BUDGETS.get(floor, FILE)


def functions(tree: ast.Module) -> list[tuple[str, int]]:
    """Each function's name and lines, its docstring not counted."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((node.name, lines))
    return found


def check(root: Path) -> tuple[int, list[str]]:
    """Total lines under ``root``, and a line for each thing over its budget without a reason."""
    total, over = 0, []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        lines = text.count("\n")
        total += lines
        tree = ast.parse(text)
        if any(line.startswith("Size:") for line in (ast.get_docstring(tree) or "").splitlines()):
            continue
        name = path.relative_to(root)
        if lines > budget(path, root):
            over.append(f"{name}: {lines} lines, budget {budget(path, root)}")
        limit = KERNEL if name.parts[0] == "kernels" else FUNCTION
        over += [f"{name}: {f} has {n} lines, budget {limit}" for f, n in functions(tree) if n > limit]
    return total, over


if __name__ == "__main__":
    lines, problems = check(Path(__file__).resolve().parent.parent / "funcnn")
    print(f"funcnn: {lines} lines")
    print("\n".join(problems) or "every file and function is within its budget")
    sys.exit(bool(problems))
