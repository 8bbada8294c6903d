"""What was measured on, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

BUSY = 15.0
"""Percent of all cores, taken by others, from which on a machine counts as busy."""


@dataclass
class Busy:
    """Percent of all cores that others took, looked at before each round, when nothing of ours runs."""

    percent: list[float] = field(default_factory=list)

    def sample(self) -> None:
        self.percent.append(psutil.cpu_percent(1.0))

    def sentence(self) -> str:
        if not self.percent:
            return "Whether the machine did anything else was not looked at."
        most, usual = max(self.percent), sorted(self.percent)[len(self.percent) // 2]
        if usual < BUSY:
            return f"The machine was quiet: before the rounds others took {usual:.0f} % of it ({most:.0f} % at most)."
        return (
            f"**The machine was busy**: before the rounds others took {usual:.0f} % of it ({most:.0f} % at most). "
            "Absolute numbers are too low, and ratios noisy; see the rounds' range beside each."
        )


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
