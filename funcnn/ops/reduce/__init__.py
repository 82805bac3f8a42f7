"""Reductions, extrema, moments and running reductions."""
