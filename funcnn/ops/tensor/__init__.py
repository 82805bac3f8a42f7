"""New tensors, conversions, methods and writes in place."""
