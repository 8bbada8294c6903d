"""The first GPU as its driver counts it."""

from __future__ import annotations

import subprocess

PATIENCE_S = 180.0
"""The bound of every wait: generous, only so that a test ends."""


def used_mib() -> int:
    """Memory in use, by every process, in MiB."""
    return _asked("memory.used")


def device_gib() -> int:
    """All the memory there is, in whole GiB."""
    return _asked("memory.total") >> 10


def _asked(field: str) -> int:
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.check_output(query, text=True, timeout=60).split()[0])
