"""CUDA kernels, mirroring ``kernels.cpu`` name by name. Only ``shim`` imports ``numba.cuda``."""
