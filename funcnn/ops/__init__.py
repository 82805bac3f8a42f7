"""Operations: primitives by family, with their shape, gradient and batching rules, and no word of how they run."""
