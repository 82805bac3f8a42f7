"""The pool of threads, and how many of them work."""
