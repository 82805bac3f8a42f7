"""What every family of operations stands on: dimensions, promotion, batching, declarations, structure."""
