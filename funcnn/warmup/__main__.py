"""The command of ``python -m funcnn.warmup``; the processes that it starts cannot import this file, but ``command``."""

from funcnn.warmup.command import main

if __name__ == "__main__":
    main()
