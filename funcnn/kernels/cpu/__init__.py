"""CPU kernels, compiled by Numba when first called."""
