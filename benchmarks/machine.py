"""What was measured on, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import psutil

BUSY = 15.0
"""Percent of all cores, taken by others, from which on a machine counts as busy."""


def taken_by_others() -> float:
    """Percent of all cores that others take; to be asked when nothing of ours runs."""
    return psutil.cpu_percent(1.0)


def is_busy(percent: list[float]) -> bool:
    return bool(percent) and statistics.median(percent) >= BUSY


def describe() -> str:
    """One paragraph."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "tensorflow", "flask", "waitress"))
    built = "optimised" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "plain"
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}, "
        f"Python {platform.python_version()} ({built} build), {libraries}."
    )


def commit() -> str:
    """Of the tree that was measured; a word where that is no clone or holds changes."""
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={root}", "describe", "--always", "--dirty"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return done.stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()
