"""Interpolation, sampling and folding of images."""
