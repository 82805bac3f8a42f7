"""Convolutions and the folding of images."""
