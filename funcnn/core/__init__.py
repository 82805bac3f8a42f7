"""The core: avals, primitives, the Tensor box, interpreters, pytrees. It knows no operation by name."""
