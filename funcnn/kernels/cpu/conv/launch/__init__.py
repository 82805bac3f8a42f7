"""How convolutions run: which kernel, how the work is cut."""
