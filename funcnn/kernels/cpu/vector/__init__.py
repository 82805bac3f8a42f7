"""What kernels are made of: vector instructions, register tiles, mathematics."""
