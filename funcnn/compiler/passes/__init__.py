"""Passes: each takes a program and gives one that computes the same."""
