"""Imports go downward only: a file imports from floors below its own, never from above or from a sibling floor.

No import stands inside a function, where it would hide a circle: there only what others wrote is imported, for it may be
missing or slow to load. No circle is left, functions included. Imports for type checkers only are free.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

# Higher numbers stand on lower ones; floors of one number do not know each other.
FLOORS = {
    "kernels": 0,
    "core": 1,
    "ops": 2,
    "compiler": 3,
    "transforms": 4,
    "layers": 5,
    "optim": 6,
    "data": 6,
    "io": 6,
    "profiler": 6,
    "nn": 7,
}
TOP = 8


def floor(module: str) -> tuple[int, str]:
    """Height and name of a module's floor; the package itself and its single files are on top."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return (FLOORS[name], name) if name in FLOORS else (TOP, "")


def imports(tree: ast.AST, files: Iterable[str], package: str) -> set[str]:
    """The package's modules that a file imports, inside functions as well: the module that a name is, or else stands in."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in files else node.module for name in named}
        found |= imports(node, files, package)
    return found


def late(tree: ast.AST, files: Iterable[str], package: str) -> set[str]:
    """The package's modules that functions of a file import when they run."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return set().union(*(imports(function, files, package) for function in functions))


def check(root: Path) -> list[str]:
    """A line for each import that goes up or sideways, and for each cycle within a floor."""
    package = root.name
    files = {".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
             for path in sorted(root.rglob("*.py"))}  # fmt: skip
    problems, graph = [], {}
    for module, path in files.items():
        tree = ast.parse(path.read_text())
        height, own = floor(module)
        known = {name for name in imports(tree, files, package) if name in files and name != module}
        for name in sorted(known):
            other, theirs = floor(name)
            if other > height or (other == height and theirs != own):
                problems.append(f"{module} imports {name}, which is not below it")
        problems += [f"{module} imports {name} inside a function" for name in sorted(late(tree, files, package))]
        graph[module] = known
    return problems + [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Cycles found by a depth-first walk, each once."""
    done: set[str] = set()
    found: list[list[str]] = []

    def walk(node: str, trail: list[str]) -> None:
        if node in trail:
            found.append([*trail[trail.index(node) :], node])
            return
        if node in done:
            return
        for follower in sorted(graph.get(node, ())):
            if not graph.get(follower) and follower not in graph:
                continue
            walk(follower, [*trail, node])
        done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found


if __name__ == "__main__":
    wrong = check(Path(__file__).resolve().parent.parent / "funcnn")
    print("\n".join(wrong) or "every import goes downward")
    sys.exit(bool(wrong))
