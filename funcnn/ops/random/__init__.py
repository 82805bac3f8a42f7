"""Random numbers and keys."""
