"""``python -m funcnn.plans``: the implementations of every primitive; ``--host``: those that are Python functions, and why."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator

import funcnn.ops
import funcnn.optim
from funcnn.core.primitive import Primitive
from funcnn.kernels.implementation import Implementation


def primitives() -> list[Primitive]:
    """All primitives of the package, by name."""
    found: dict[int, Primitive] = {}
    for package in (funcnn.ops, funcnn.optim):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            found.update({id(value): value for value in vars(module).values() if isinstance(value, Primitive)})
            functions = [getattr(value, "primitive", None) for value in vars(module).values()]
            found.update({id(value): value for value in functions if isinstance(value, Primitive)})
    return sorted(found.values(), key=lambda prim: prim.name)


def implementations(host: bool = False) -> Iterator[tuple[Primitive, str, Implementation]]:
    """(primitive, device, implementation) in the order in which they are asked. host: only Python functions."""
    for prim in primitives():
        for device, ways in prim.on.items():
            yield from ((prim, device, way) for way in ways if not host or way.reason is not None)


def main(given: list[str] | None = None) -> None:
    """Print a line for each implementation."""
    parser = argparse.ArgumentParser("python -m funcnn.plans", description=__doc__)
    parser.add_argument(
        "--host", action="store_true", help="only implementations that are Python functions, with the reason"
    )
    options = parser.parse_args(given)
    for prim, device, way in implementations(options.host):
        print(f"{prim.name:28}{device:6}{way.name:12}{way.reason or 'launches'}")


if __name__ == "__main__":
    main()
