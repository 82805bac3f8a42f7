"""Softmax and cross-entropy."""
