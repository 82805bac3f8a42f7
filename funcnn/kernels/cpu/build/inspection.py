"""Which instructions a kernel was compiled to, read from the assembly that LLVM emits for it.

Numba keeps the optimised module beside the machine code, also in its cache; the assembly is emitted from it again, so a
kernel that was loaded from the cache shows the same. Counted is what stands in the code, not how often it runs: a loop's
body counts once, its vectorised and its remaining iterations apart.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# x86 names what an instruction works on: packed or scalar, single or double; on AArch64 the registers tell.
_X86 = re.compile(
    r"v?(add|sub|mul|div|sqrt|max|min|cmp[a-z]*?|u?comi|range|rndscale|round|scalef|fn?m(?:add|sub|addsub|subadd)(?:132|213|231))([ps])[sd]"
)
_ARM = re.compile(r"fadd|fsub|fmul|fdiv|fsqrt|fmax(?:nm)?|fmin(?:nm)?|fcm\w+|fmla|fmls|fn?madd|fn?msub")
_FUSED = ("fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub")
_NEON = re.compile(r"\bv\d+\.(?:16b|8h|4s|2d)\b|\bq\d+\b")
_MOVE = re.compile(r"v?mov(?:[au]p[sd]|nt.*|dq[au].*)|ldp|ldr|stp|str|ld1|st1|stnp|ldnp")
_COMMENT = re.compile(r"\s#\s|//")  # of x86, of AArch64
_LABEL = re.compile(r'"?([^\s".][^\s"]*)"?:')
_WRAPPER = re.compile(r"_ZN7cpython|cfunc\.|NRT_|_ZN5numba")  # what turns Python's arguments into the kernel's
_CALL = re.compile(r"(?:callq?|blr?)\s+\*?%?([\w.$]+)")
_HELD = re.compile(r"(?:movabsq|movq|leaq)\s+\$?([A-Za-z_][\w.$]*)(?:@\w+)?(?:\(%rip\))?,\s*%(\w+)")
_HELD_ARM = re.compile(r"(?:adrp|ldr|movz|movk|add)\s+(\w+),.*?:([A-Za-z_]\w*)(?:\]|$|,)")
_LIBM = re.compile(
    r"(a?(?:sin|cos|tan)h?|atan2|exp2?|expm1|log|log2|log10|log1p|pow|cbrt|hypot|fmod|remainder|erfc?|[tl]gamma|fma|floor|ceil|"
    r"round|trunc|rint|nearbyint|ldexp|scalbn)f?"
)


@dataclass(frozen=True)
class Instructions:
    """Counts the instructions of one compiled form of a kernel, helpers included."""

    arguments: str  # the types that it is compiled for
    vector_bits: int  # widest vectors that floating-point arithmetic uses: 512, 256, 128, or 0 for none
    registers: str  # their name: "zmm", "ymm", "xmm", or "v" of NEON
    move_bits: int  # widest vectors that are loaded and stored
    packed: int  # floating-point arithmetic on whole vectors, fused multiply-adds included
    scalar: int  # and on single elements
    fma: int  # fused multiply-adds, either way
    libm: dict[str, int] = field(default_factory=dict)  # calls to functions of the C library, an element at a time
    calls: int = 0  # calls of any function, libm's included
    total: int = 0  # instructions in all

    def __str__(self) -> str:
        width = f"{self.vector_bits}-bit vectors ({self.registers})" if self.vector_bits else "no vectors"
        slow = ", ".join(f"{name} x{count}" for name, count in sorted(self.libm.items())) or "none"
        return (
            f"({self.arguments})\n"
            f"  arithmetic: {width}; {self.packed} packed, {self.scalar} scalar, {self.fma} of them fused multiply-adds\n"
            f"  loads and stores: up to {self.move_bits} bits\n"
            f"  scalar libm calls: {slow}; {self.calls} calls in {self.total} instructions"
        )


@dataclass(frozen=True)
class Inspection:
    """Holds a kernel's compiled forms, one for each combination of argument types that it was called with."""

    name: str
    forms: tuple[Instructions, ...]

    def __str__(self) -> str:
        return "\n".join([f"kernel {self.name}", *map(str, self.forms)])


def inspect(kernel: Any) -> Inspection:
    """Reads what a kernel was compiled to so far. Raises ``RuntimeError`` where it was not, or runs as plain Python."""
    overloads = getattr(kernel.compiled, "overloads", None)
    if not overloads:
        why = "has not been called yet; call it once with the types of interest"
        if kernel.compiled is not None and overloads is None:
            why = "runs as plain Python (NUMBA_DISABLE_JIT); unset it"
        raise RuntimeError(f"inspect: kernel {kernel.__name__} {why}")
    forms = [read(assembly(compiled), ", ".join(map(short, types))) for types, compiled in overloads.items()]
    return Inspection(kernel.__name__, tuple(forms))


def assembly(compiled: Any) -> str:
    """Returns the assembly of a compiled form, emitted from a copy: emitting rewrites a module, and kernels that inline this use it."""
    from llvmlite import binding

    library = compiled.library
    module = binding.parse_bitcode(library._get_module_for_linking().as_bitcode())
    return library._codegen._tm.emit_assembly(module)


def short(kind: Any) -> str:
    """Writes a type as ``float32[2]``, ``int64`` or ``(int64 x 3)``."""
    if hasattr(kind, "ndim") and hasattr(kind, "dtype"):
        return f"{kind.dtype}[{kind.ndim}]"
    text = str(kind)
    found = re.fullmatch(r"UniTuple\((\w+) x (\d+)\)", text)
    return f"({found[1]} x {found[2]})" if found else re.sub(r"Literal\[\w+\]\((\w+)\)", r"\1", text)


def read(text: str, arguments: str = "") -> Instructions:
    """Counts the instructions of an assembly listing, of x86 or AArch64."""
    count = _Count()
    wrapper = False
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label is not None:
            wrapper = bool(_WRAPPER.match(label[1]))
        code = _COMMENT.split(line)[0].strip()
        if not wrapper and code and not code.startswith((".", '"')) and not code.endswith(":"):
            count.add(code)
    name, bits = count.widest
    return Instructions(
        arguments,
        bits,
        name,
        count.moved,
        count.packed,
        count.scalar,
        count.fma,
        dict(count.libm),
        count.calls,
        count.total,
    )


class _Count:
    """Sums up instructions, and knows which function's address each register holds."""

    def __init__(self) -> None:
        self.packed = self.scalar = self.fma = self.calls = self.total = self.moved = 0
        self.widest = ("", 0)
        self.libm: Counter = Counter()
        self.held: dict[str, str] = {}

    def add(self, code: str) -> None:
        """Counts one more instruction."""
        mnemonic = code.split(None, 1)[0]
        self.total += 1
        if not self._arithmetic(code, mnemonic) and _MOVE.fullmatch(mnemonic):
            self.moved = max(self.moved, _registers(code)[1])
        self._follow(code)

    def _arithmetic(self, code: str, mnemonic: str) -> bool:
        x86 = _X86.fullmatch(mnemonic)
        if x86 is None and not _ARM.fullmatch(mnemonic):
            return False
        packed = x86[2] == "p" if x86 is not None else bool(re.search(r"\bv\d+\.", code))
        self.packed += packed
        self.scalar += not packed
        self.fma += x86[1].startswith("f") if x86 is not None else mnemonic in _FUSED
        if packed:
            self.widest = max(self.widest, _registers(code), key=lambda found: found[1])
        return True

    def _follow(self, code: str) -> None:
        """Notes functions whose addresses go into registers, and calls by name or through those."""
        if (call := _CALL.match(code)) is not None:
            name = self.held.get(call[1], call[1]).lstrip("_")
            self.calls += 1
            if _LIBM.fullmatch(name):
                self.libm[name] += 1
        elif (held := _HELD.match(code)) is not None:
            self.held[held[2]] = held[1]
        elif (held := _HELD_ARM.match(code)) is not None:
            self.held[held[1]] = held[2]


def _registers(code: str) -> tuple[str, int]:
    """Returns the widest vector registers that an instruction names."""
    for name, bits in (("zmm", 512), ("ymm", 256), ("xmm", 128)):
        if name in code:
            return name, bits
    return ("v", 128) if _NEON.search(code) else ("", 0)
