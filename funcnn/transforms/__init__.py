"""Transformations of functions: grad and vjp, vmap, jit."""
