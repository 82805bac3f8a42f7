"""Who runs a program."""
