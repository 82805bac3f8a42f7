"""Copies of arrays in another order."""
