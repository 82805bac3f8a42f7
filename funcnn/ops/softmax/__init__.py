"""Softmax, entropy and losses."""
