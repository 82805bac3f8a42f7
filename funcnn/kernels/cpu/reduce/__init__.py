"""Reductions, running reductions and selections."""
