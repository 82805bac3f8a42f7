"""Arguments that a transformation passes on without a tracer of its own: what the function writes to them.

The function gets an alias that is made inside, so it may write a value to it which is traced there. That ends the alias;
when the transformation has what it wants, the value goes to the argument itself, as in eager code.
"""

from __future__ import annotations

from typing import Any

from funcnn.core import tree
from funcnn.core.context import ctx
from funcnn.core.interpreter import BoxTracer, Interpreter
from funcnn.core.mutation import assign
from funcnn.core.tensor import Loan, Tensor, alias, refresh, wrap
from funcnn.ops.base.structure import permute_p

_AS_IT_IS = [{"dims": tuple(range(ndim))} for ndim in range(65)]  # NumPy's arrays have up to 64 dimensions


class Loans:
    """The arguments that one call of a transformed function lends to it."""

    def __init__(self, inside: Interpreter):
        self.inside = inside
        self.known: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of an argument: itself, and its alias

    def lend(self, t: Any) -> Any:
        """The alias for an argument; itself where it is no tensor, or has a gradient, for then it may not be written."""
        if not isinstance(t, Tensor) or t._rg or t._node is not None:
            return t
        held = self.known.get(id(t))
        if held is None:
            held = self.known[id(t)] = t, self._alias(t)
        return held[1]

    def _alias(self, t: Tensor) -> Tensor:
        if t._view is not None:
            with self.inside.outside():
                refresh(t)
        value = t._v
        if ctx.stage is not None and not isinstance(value, BoxTracer):
            value = ctx.stage.read(t)
        own = wrap(value, type(t))
        own._born = self.inside.depth
        return alias(own, t, permute_p, _AS_IT_IS[len(value.shape)], kind=Loan)

    def lend_all(self, values: Any) -> Any:
        """``lend`` for the leaves of a tree."""
        kind = type(values)
        if kind is dict:  # a third of the time of tree.map, in the case that has many leaves
            return {key: self.lend_all(value) for key, value in values.items()}
        return self.lend(values) if isinstance(values, Tensor) else tree.map(self.lend, values)

    def returned(self, t: Any) -> Any:
        """The argument itself for its alias, as long as it is one."""
        if isinstance(t, Tensor) and type(t._view) is Loan:
            for held, own in self.known.values():
                if own is t:
                    return held
        return t

    def returned_all(self, result: Any) -> Any:
        """``returned`` for the leaves of a tree."""
        if isinstance(result, Tensor):
            return self.returned(result)
        return tree.map(self.returned, result) if self.known else result

    def settle(self) -> None:
        """Give the arguments the values that were written to them; what differs between examples of vmap stays inside."""
        for t, own in self.known.values():
            if own._view is None and not (self.inside.owns(own) and not own._v.known):
                assign(t, own._v.value if self.inside.owns(own) else own, "in-place")
