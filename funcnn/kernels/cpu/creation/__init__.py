"""Tensors made of numbers: filled with one, or counted up."""
