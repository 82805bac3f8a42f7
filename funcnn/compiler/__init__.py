"""A traced function as a program, and what becomes of it."""
