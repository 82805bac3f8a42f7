"""Imports go downward only: a file imports from floors below its own, never from above or from a sibling floor.

Within a floor, imports at module level must not form a cycle. Imports for type checkers only are free.
"""

from __future__ import annotations

import ast
import sys
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


def imports(tree: ast.AST, package: str, within: bool = True) -> list[str]:
    """The package's modules that a file imports; ``within``: inside functions as well."""
    found: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not within:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == package]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += imports(node, package, within)
    return found


def check(root: Path) -> list[str]:
    """A line for each import that goes up or sideways, and for each cycle within a floor."""
    package = root.name
    files = {".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
             for path in sorted(root.rglob("*.py"))}  # fmt: skip
    problems, graph = [], {}
    for module, path in files.items():
        tree = ast.parse(path.read_text())
        height, own = floor(module)
        for name in imports(tree, package):
            if name in files:
                other, theirs = floor(name)
                if other > height or (other == height and theirs != own):
                    problems.append(f"{module} imports {name}, which is not below it")
        known = {name for name in imports(tree, package, within=False) if name in files and name != module}
        graph[module] = {name for name in known if floor(name) == floor(module) and path.name != "__init__.py"}
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
