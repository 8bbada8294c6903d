"""The window's thread has short slices of the processor's time; what it starts has not."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gui.time_slice import SLICE_NS

SCHED = Path("/proc/self/sched")
ASK = """
import json, re, subprocess, sys, threading
from pathlib import Path
from gui.time_slice import ask_for_short_slices
def mine():
    return int(re.search(r"se\\.slice\\s*:\\s*(\\d+)", Path("/proc/thread-self/sched").read_text()).group(1))
told = {"before": mine(), "asked": ask_for_short_slices(), "after": mine()}
thread = threading.Thread(target=lambda: told.update(thread=mine()))
thread.start(); thread.join()
child = "import re; print(re.search(r'se\\\\.slice\\\\s*:\\\\s*(\\\\d+)', open('/proc/self/sched').read()).group(1))"
told["child"] = int(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
print(json.dumps(told))
"""


def test_the_calling_thread_has_them_and_what_it_starts_has_not() -> None:
    if not SCHED.exists() or "se.slice" not in SCHED.read_text(encoding="utf-8"):
        pytest.skip("this kernel does not tell a thread's slice (/proc/self/sched)")
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip(f"Linux {platform.release()} knows no slices of a thread's own")
    done = subprocess.run([sys.executable, "-c", ASK], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["asked"] is True
    assert told["after"] == SLICE_NS
    assert told["before"] == told["thread"] == told["child"] > SLICE_NS
