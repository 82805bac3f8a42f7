"""``python -m funcnn.warmup [-j N]`` compiles every CPU kernel into the cache, in N processes."""
