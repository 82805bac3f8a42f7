"""Which updates of a program write into the memory of the boxes that they are stored to.

An operation that declares what it overwrites (``Primitive.overwrites``) gives new values, as every other. Where such a value
does nothing but go back to the box that the old one was read from, it may come about in that box's memory. These updates
run after everything else, so an error before has written nothing, and whoever reads the old value has read it.
"""

from __future__ import annotations

from collections import Counter

from funcnn.compiler.ir import Equation, Program

Into = tuple[int | None, ...]  # for each of the first outputs the input whose memory it takes over


def updates(program: Program) -> tuple[list[Equation], dict[int, Into]]:
    """The equations in the order in which they run, and by the place in it what takes over memory."""
    if not any(eq.prim.overwrites for eq in program.equations):
        return list(program.equations), {}
    read = {var for eq in program.equations for var in eq.ins}
    late = [eq for eq in program.equations if eq.prim.overwrites and read.isdisjoint(eq.outs)]
    among = set(map(id, late))
    early = [eq for eq in program.equations if id(eq) not in among]
    owners, inputs, leaving = program.owners(), set(program.inputs), Counter(program.leaving)
    kept = {owners[var] for var in leaving}
    stored = {store.var: store.into for store in program.stores}
    readers = Counter([owners[var] for eq in late for var in eq.ins])

    def taken(eq: Equation, output: int, at: int) -> int | None:
        var, out = eq.ins[at], eq.outs[output]
        alone = leaving[out] == 1 and readers[var] == 1 and var not in kept
        return at if alone and var in inputs and stored.get(out) == var else None

    into = {
        place: tuple([taken(eq, output, at) for output, at in enumerate(eq.prim.overwritten(eq.params))])
        for place, eq in enumerate(late, len(early))
    }
    return [*early, *late], into
