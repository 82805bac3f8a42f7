"""A program as text, and read back from it: one equation a line, with the types of what it makes.

    program(%0:float32[3,4] strides (16, 4), %1:float64[] weak) {
      %2:float32[2] = constant [1.0, 2.0]
      %3:float32[4,3] = permute(%0) [dims=(1, 0)] shares %0
      index_check(%3, %1)
      store %3 -> %0
      return %3
    }

A parameter is a Python literal, ``inf``, ``nan``, the name of a dtype or a record (``Axis(n=4, m=3)``). An equation that
holds programs ends in ``holds`` and the names of these parameters, and the programs follow. What stands after ``#`` is where
the equation comes from: the module, the direction, and the line of the user's code.
"""

from __future__ import annotations

import ast
import binascii
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from funcnn.compiler.ir import Constant, Equation, Program, ProgramError, Store, Var, check_of
from funcnn.core.device import HOST
from funcnn.core.primitive import Primitive

LISTED_ELEMENTS = 16  # constants of at most so many are written element by element


# ---- printing -------------------------------------------------------------------------------------------------------
def show(program: Program, data: bool = True, origins: bool = True, indent: str = "") -> str:
    """The text of a program. data: with the numbers of large constants; origins: with where each equation comes from."""
    inputs = ", ".join(_typed(var) + _strides(program, var) for var in program.inputs)
    lines = [f"program({inputs}) {{"]
    lines += [f"  {_typed(c.var)} = constant {_numbers(c.array, data)}" for c in program.constants]
    lines += [f"  {_equation(eq, data, origins, indent + '  ')}" for eq in program.equations]
    for store in program.stores:
        lines.append(f"  store %{store.var.number} -> {'outside' if store.into is None else f'%{store.into.number}'}")
    lines += [f"  return {_names(program.outputs)}".rstrip(), "}"]
    return ("\n" + indent).join(lines)


def _typed(var: Var) -> str:
    said = " weak" * var.weak + f" on {var.device}" * (var.device != HOST)
    return f"%{var.number}:{var.dtype.name}[{','.join(map(str, var.shape))}]{said}"


def _names(group: Iterable[Var]) -> str:
    return ", ".join([f"%{var.number}" for var in group])


def _strides(program: Program, var: Var) -> str:
    return f" strides {program.strides[var]}" if var in program.strides else ""


def _numbers(array: np.ndarray, data: bool) -> str:
    listed = _listed(array.reshape(-1).tolist())
    if array.size <= LISTED_ELEMENTS and _read_numbers(listed, array.dtype).tobytes() == array.tobytes():
        return listed
    return f"bytes '{binascii.b2a_base64(array.tobytes(), newline=False).decode()}'" if data else "..."


def _equation(eq: Equation, data: bool, origins: bool, indent: str) -> str:
    made = f"{', '.join(map(_typed, eq.outs))} = " if eq.outs else ""
    held = {key: value for key, value in eq.params.items() if isinstance(value, Program)}
    params = ", ".join([f"{key}={_value(value, data)}" for key, value in eq.params.items() if key not in held])
    shares = "" if eq.shares is None else f" shares %{eq.ins[eq.shares].number}"
    holds = f" holds {', '.join(held)}" if held else ""
    head = f"{made}{eq.prim.name}({_names(eq.ins)}){f' [{params}]' if params else ''}{shares}{holds}"
    blocks = [f"\n{indent}  {show(program, data, origins, indent + '  ')}" for program in held.values()]
    return head + (_origin(eq) if origins else "") + "".join(blocks)


def _origin(eq: Equation) -> str:
    parts = [f"in {eq.path}"] * bool(eq.path) + ["backward"] * eq.backward + [f"at {eq.line}"] * bool(eq.line)
    return f"  # {', '.join(parts)}" if parts else ""


def _value(value: Any, data: bool) -> str:
    try:
        return literal(value)
    except ProgramError:
        if data:
            raise
        return repr(value)


def _listed(values: list) -> str:
    return f"[{', '.join(map(literal, values))}]"


def literal(value: Any) -> str:
    """A parameter's value as text that ``parse`` reads. Raises ``ProgramError`` for what has none."""
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)):
        return repr(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = zip(value._fields, value, strict=True)
        return f"{type(value).__name__}({', '.join(f'{name}={literal(held)}' for name, held in fields)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, list):
        return _listed(value)
    raise ProgramError(f"text: a parameter of type {type(value).__name__} has no text: {value!r}")


# ---- names ----------------------------------------------------------------------------------------------------------
def names(program: Program) -> dict[str, Any]:
    """The primitives and the kinds of records that a program uses, by name, as ``parse`` wants them.

    Raises ``ProgramError`` where two have one name.
    """
    found: dict[str, Any] = {}
    for eq in program.equations:
        _add(found, eq.prim.name, eq.prim)
        for value in eq.params.values():
            _add_records(found, value)
    return found


def _add(found: dict[str, Any], name: str, thing: Any) -> None:
    if found.setdefault(name, thing) is not thing:
        raise ProgramError(f"text: two things are named {name}: {found[name]!r} and {thing!r}")


def _add_records(found: dict[str, Any], value: Any) -> None:
    if isinstance(value, Program):
        for name, thing in names(value).items():
            _add(found, name, thing)
    elif isinstance(value, (tuple, list)):
        if hasattr(value, "_fields"):
            _add(found, type(value).__name__, type(value))
        for part in value:
            _add_records(found, part)


def loaded() -> dict[str, Any]:
    """The primitives that the loaded modules of funcnn hold, by name; of those with one name, none."""
    held = [thing for name, module in list(sys.modules.items()) if name.startswith("funcnn.")
            for thing in list(vars(module).values())]  # fmt: skip
    held += [getattr(thing, "primitive", None) for thing in held]
    by_name: dict[str, set] = {}
    for thing in held:
        if isinstance(thing, Primitive):
            by_name.setdefault(thing.name, set()).add(thing)
    return {name: things.pop() for name, things in by_name.items() if len(things) == 1}


# ---- reading --------------------------------------------------------------------------------------------------------
_VAR = r"%(\d+):(\w+)\[([\d,]*)\]( weak)?(?: on ([\w:]+))?"
_typed_var = re.compile(_VAR)
_input = re.compile(_VAR + r"(?: strides (\([^)]*\)))?")
_constant = re.compile(_VAR + r" = constant (bytes )?(.*)")
_line = re.compile(r"(?:(%.*?) = )?(\w+)\(([^)]*)\)(?: \[(.*)\])?(?: shares (%\d+))?(?: holds ([\w, ]+))?$")
_from = re.compile(r"(?:in ([^,]*))?(?:(?:, |^)(backward))?(?:(?:, |^)at (.*))?$")


class _Reader:
    def __init__(self, text: str, known: Mapping[str, Any]):
        self.lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        self.known, self.at = known, 0

    def program(self, head: str) -> Program:
        """The program whose first line is ``head``; reading goes on after it."""
        if not head.startswith("program(") or not head.endswith(") {"):
            raise ProgramError(f"text: expected 'program(...) {{', got {head!r}")
        read: dict[int, Var] = {}
        strides, inputs, constants, equations, stores = {}, [], [], [], []
        for match in _input.finditer(head):
            inputs.append(_var(match, read))
            if match[6]:
                strides[inputs[-1]] = ast.literal_eval(match[6])
        while not (line := self._next()).startswith("return"):
            if constant := _constant.match(line):
                constants.append(_read_constant(constant, read))
            elif line.startswith("store "):
                var, into = line.removeprefix("store ").split(" -> ")
                stores.append(Store(_named(var, read), None if into == "outside" else _named(into, read)))
            else:
                equations.append(self._equation(line, read))
        outputs = _group(line.removeprefix("return"), read)
        if self._next() != "}":
            raise ProgramError("text: expected '}' after the line of results")
        return Program(tuple(inputs), tuple(constants), tuple(equations), outputs, tuple(stores), strides)

    def _next(self) -> str:
        if self.at == len(self.lines):
            raise ProgramError("text: it ends within a program; the last lines are 'return ...' and '}'")
        self.at += 1
        return self.lines[self.at - 1]

    def _equation(self, line: str, read: dict[int, Var]) -> Equation:
        line, _, origin = line.partition("  # ")
        match = _line.match(line)
        if match is None:
            raise ProgramError(f"text: not an equation: {line!r}")
        made, name, given, listed, base, held = match.groups()
        prim = self._primitive(name)
        ins, params = _group(given, read), _params(listed or "", self.known)
        params |= {key: self.program(self._next()) for key in (held.split(", ") if held else ())}
        outs = tuple(_var(found, read) for found in _typed_var.finditer(made or ""))
        shares = ins.index(_named(base, read)) if base else None
        path, backward, place = _from.match(origin).groups()  # type: ignore[union-attr]
        return Equation(prim, ins, outs, params, shares, path or "", bool(backward), place or "")

    def _primitive(self, name: str) -> Primitive:
        if name in self.known:
            return self.known[name]
        checked = self.known.get(name.removesuffix("_check"))
        if checked is None or (checked.check is None and not checked.looks):
            raise ProgramError(f"text: no primitive is known by the name {name}")
        return check_of(checked)


def _var(match: re.Match, read: dict[int, Var]) -> Var:
    number, dtype, listed, weak, device = match.groups()[:5]
    shape = tuple(int(size) for size in listed.split(",") if size)
    var = Var(int(number), shape, np.dtype(dtype), bool(weak), device or HOST)
    if read.setdefault(var.number, var) != var:
        raise ProgramError(f"text: %{number} is both {_typed(read[var.number])} and {_typed(var)}")
    return var


def _named(name: str, read: dict[int, Var]) -> Var:
    number = int(name.strip().removeprefix("%"))
    if number not in read:
        raise ProgramError(f"text: %{number} is used before the line that makes it")
    return read[number]


def _group(names: str, read: dict[int, Var]) -> tuple[Var, ...]:
    return tuple(_named(name, read) for name in names.split(",") if name.strip())


def _read_constant(match: re.Match, read: dict[int, Var]) -> Constant:
    var, packed, data = _var(match, read), match[6], match[7]
    if data == "...":
        raise ProgramError(f"text: the numbers of %{var.number} were left out; print the program with data=True")
    if packed:
        array = np.frombuffer(binascii.a2b_base64(ast.literal_eval(data)), var.dtype).copy()
    else:
        array = _read_numbers(data, var.dtype)
    return Constant(var, array.reshape(var.shape))


def _read_numbers(text: str, dtype: np.dtype) -> np.ndarray:
    return np.array(_evaluated(ast.parse(text, mode="eval").body, {}), dtype)


def _params(listed: str, known: Mapping[str, Any]) -> dict[str, Any]:
    call: Any = ast.parse(f"_({listed})", mode="eval").body
    return {word.arg: _evaluated(word.value, known) for word in call.keywords}


def _evaluated(node: ast.AST, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.Tuple, ast.List)):
        return (tuple if isinstance(node, ast.Tuple) else list)(_evaluated(part, known) for part in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand, known)
    if isinstance(node, ast.Name):
        return float(node.id) if node.id in ("inf", "nan") else np.dtype(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
        return known[node.func.id](**{word.arg: _evaluated(word.value, known) for word in node.keywords if word.arg})
    raise ProgramError(f"text: not a value of a parameter: {ast.unparse(node)}")


def parse(text: str, known: Mapping[str, Any] | None = None) -> Program:
    """The program of a text. known: primitives and kinds of records by name, besides those that funcnn has loaded.

    Raises ``ProgramError`` for a text that is none.
    """
    reader = _Reader(text, {**loaded(), **(known or {})})
    program = reader.program(reader._next())
    if reader.at != len(reader.lines):
        raise ProgramError(f"text: the program ends before {reader.lines[reader.at]!r}")
    return program
