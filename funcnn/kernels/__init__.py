"""Kernels: loops over arrays and nothing else. They never validate; shape rules and checks have done that before."""
