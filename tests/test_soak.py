"""Memory stays flat over eager training steps: the short form of ``benchmarks.soak``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_300_eager_steps_leave_memory_flat() -> None:
    """At most 4 MB of movement after the first hundred steps (``TOLERANCE``), in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.soak", "--steps", "300", "--batch", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"from step 100 to 300 memory moved by [\d.]+ MB at most \(allowed: 4\)", last), last
