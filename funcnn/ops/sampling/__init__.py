"""Interpolation and sampling of images."""
