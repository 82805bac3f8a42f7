"""Operations that users make of kernels of their own."""
